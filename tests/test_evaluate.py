"""`evaluate` as a person calls it: on a sweep, on a foreign table, and with mistakes."""

import json

import pytest

from .command import call
from .scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def test_a_sweep_becomes_a_report(sweep):
    done = call(
        "evaluate",
        f"--runs={sweep}", "--bootstrap=100", "--laws=compute,over_training",
        "--overlay=hoffmann,llama3", "--budgets=1e13", "--holdout_above=1e12",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.rstrip().endswith(f"report: {sweep / 'report' / 'report.html'}")
    assert "L = E + A/C^a" in done.stdout
    fits = json.loads((sweep / "report" / "fits.json").read_text())
    assert {law["law"] for law in fits["laws"]} == {"compute", "over_training"}
    assert fits["settings"]["holdout_above"] == 1e12 and fits["forecast_check"]
    page = (sweep / "report" / "report.html").read_text()
    assert "Llama team 2024" in page and "Further laws" in page and "checked" in page


def test_a_foreign_table_without_figures(sweep, tmp_path):
    lines = ["Size,Data,final"] + [
        f"{n:g},{d:g},{1.7 + 400 / n**0.34 + 400 / d**0.28}"
        for n in (1e7, 3e7, 1e8, 3e8)
        for d in (1e9, 4e9, 2e10, 9e10)
    ]
    (tmp_path / "theirs.csv").write_text("\n".join(lines))
    done = call(
        "evaluate",
        "--runs=theirs.csv", "--columns=params=Size,tokens=Data,loss=final", "--nofigures",
        "--bootstrap=0", "--objective=squared", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"fits.json", "report.html"}
    surface = json.loads((tmp_path / "report" / "fits.json").read_text())["parametric"]
    assert surface["alpha"] == pytest.approx(0.34, rel=1e-6)
    assert surface["beta"] == pytest.approx(0.28, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--runs", "required")),
        (("--runs=/nonexistent.csv",), ("/nonexistent.csv",)),
        (("--runs={sweep}", "--columns=params"), ("--columns", "name=value")),
        (("--runs={sweep}", "--columns=params=NOPE"), ("NOPE",)),
        (("--runs={sweep}", "--budgets=1e12,lots"), ("--budgets", "lots", "5.76e23")),
        (("--runs={sweep}", "--overlay=hofmann"), ("did you mean hoffmann?",)),
        (("--runs={sweep}", "--laws=chinchila"), ("did you mean chinchilla?",)),
        (("--runs={sweep}", "--laws=sparsity", "--bootstrap=0"), ("sparsity", "nonzero_params")),
        (("--runs={sweep}", "--delta=-1"), ("delta",)),
        (("--runs={sweep}", "--params=body"), ("params", "non_embedding")),
        (("--runs={sweep}", "--nofigurs"), ("nofigurs",)),
        (("--runs={sweep}", "--bootstrap=0", "--nofigures", "--out=/proc/x"), ("/proc/x",)),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, words, sweep):
    done = call("evaluate", *(argument.format(sweep=sweep) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
