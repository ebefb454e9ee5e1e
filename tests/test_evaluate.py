"""`evaluate` as a person calls it: on a sweep, on a foreign table, and with mistakes."""

import csv
import json

import pytest

from chinchilla_jax.scaling import analysis, comparison, notebook
from chinchilla_jax.scaling.report import evaluation

from .command import call
from .scaling.conditions import three_optimizers
from .scaling.ruler.laws import CASES, panel_of
from .scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def test_what_cannot_be_written_is_found_before_the_fit(sweep, tmp_path, monkeypatch):
    def fitted(*_):
        raise AssertionError("the fit came first")

    for module in (
        analysis,
        comparison,
        evaluation,
        notebook,
    ):  # loaded: none of them keeps what is set here
        monkeypatch.setattr(module, "analyse", fitted)
    (tmp_path / "file").write_text("")
    done = call("evaluate", f"--runs={sweep}", f"--out={tmp_path / 'file'}", "--bootstrap=0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr


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


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A table of three optimizers at two precisions, the second of which changes nothing."""
    path = tmp_path_factory.mktemp("several") / "table.csv"
    rows = [
        row | {"bits": bits}
        for row in three_optimizers(sizes=5, budgets=(1e18, 1e19, 1e20))
        for bits in (4, 16)
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_several_conditions_are_compared_and_the_flags_are_named(several, tmp_path):
    done = call("evaluate", f"--runs={several}", f"--out={tmp_path}", "--bootstrap=0")
    assert done.returncode == 0 and done.stderr == ""
    first = done.stdout.splitlines()[0]
    for words in ("optimizer (adamw, muon, sgd)", "bits (4, 16)", "--by=optimizer,bits",
                  "--where=optimizer=adamw,bits="):  # fmt: skip
        assert words in first
    found = json.loads((tmp_path / "fits.json").read_text())
    assert len(found["conditions"]) == 6
    asked = call("forecast", f"--fits={tmp_path}", "--flops=1e21")
    assert asked.returncode == 2 and "pick one with --where=optimizer=adamw,bits=4" in asked.stderr
    asked = call("forecast", f"--fits={tmp_path}", "--flops=1e21", "--where=optimizer=sgd,bits=4")
    assert asked.returncode == 0 and "1e21" in asked.stdout


def test_by_compares_and_where_picks(several, tmp_path):
    flags = (f"--runs={several}", f"--out={tmp_path}", "--bootstrap=0", "--nofigures")
    done = call("evaluate", *flags, "--by=optimizer", "--where=bits=16.0")
    assert done.returncode == 0 and done.stdout.startswith("condition ")
    assert done.stdout.count("for 1e21 FLOPs train") == 3
    done = call("evaluate", *flags, "--where=bits=16,optimizer=muon")
    assert done.returncode == 0 and done.stdout.startswith("FLOPs C")
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["table"]["condition"] == {"bits": "16", "optimizer": "muon"}
    assert "optimizer=muon" in (tmp_path / "report.html").read_text().split("</h1>")[0]
    done = call("evaluate", *flags, "--kinds=bits=outcome", "--by=optimizer")
    assert "count as replicates" in done.stdout and done.stdout.count(" 30 ") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by=optimizer",), ("bits (4, 16)", "add it to --by", "--where=bits=")),
        (("--by=optimiser",), ("--by=optimiser", "did you mean optimizer?")),
        (("--by=loss",), ("--by=loss", "fitted")),
        (("--where=optimizer=lion",), ("no run has it", "adamw, muon, sgd")),
        (("--where=optimizer",), ("--where", "name=value")),
        (("--kinds=bits=seting",), ("--kinds=bits=seting", "did you mean setting?")),
        (("--kinds=bit=setting",), ("did you mean bits?",)),
        (("--laws=width_depth",), ("width_depth", "width")),
        (("--by=optimizer,optimizer",), ("--by: optimizer is given twice",)),
        (("--overlay=hoffmann,hoffmann",), ("--overlay: hoffmann is given twice",)),
        (("--kinds=optimizer=seed", "--by=optimizer"), ("contradict", "--kinds=optimizer=seed")),
        (("--out=/dev/null/report",), ("/dev/null/report",)),
        (("--where=optimizer=adamw,b",), ("'b' is not name=value", "--where='\"name=a,b\"'")),
    ],
)
def test_a_wrong_choice_is_one_line_and_status_2(arguments, words, several):
    done = call("evaluate", f"--runs={several}", "--bootstrap=0", "--nofigures", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


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


@pytest.fixture(scope="module")
def techniques(tmp_path_factory):
    """A panel of a technique, as a table."""
    path = tmp_path_factory.mktemp("panel") / "panel.csv"
    rows = panel_of(CASES["kumar"])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_by_technique_is_the_league_table(techniques, tmp_path):
    flags = (f"--runs={techniques}", f"--out={tmp_path}", "--bootstrap=200", "--nofigures")
    done = call("evaluate", *flags, "--by=technique")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("technique ") and "\nkumar: a model of 1." in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"fits.json", "league.csv", "report.html"}
    found = json.loads((tmp_path / "fits.json").read_text())
    assert found["league"]["charge"] == "teacher_forward" and len(found["conditions"]) == 1
    asked = call("forecast", f"--fits={tmp_path}", "--flops=1e21", "--where=technique=dense")
    assert asked.returncode == 0 and "1e21" in asked.stdout
    again = call("evaluate", *flags, "--by=technique", "--baseline=technique=kumar")
    assert again.returncode == 0 and "\ndense: a model of 0." in again.stdout
    both = call("evaluate", *flags)
    assert "technique=kumar: for" in both.stdout and "league" not in json.loads(
        (tmp_path / "fits.json").read_text()
    )


def test_where_techniques_alone_tell_runs_apart_the_league_table_is_the_default(
    techniques, tmp_path
):
    with techniques.open() as file:
        rows = list(csv.DictReader(file))
    names = {"dense": "0", "kumar": "0.5"}
    ours = [
        row | {"sparsity_level": names[row["technique"]]}
        for row in rows
        if row["technique"] in names
    ]
    table = tmp_path / "ours.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, [n for n in ours[0] if n != "technique"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(ours)
    flags = (f"--runs={table}", f"--out={tmp_path / 'out'}", "--bootstrap=50", "--nofigures")
    assert "\n50 % sparse: a model of " in call("evaluate", *flags).stdout
    assert "sparsity_level=0.5: for" in call("evaluate", *flags, "--by=sparsity_level").stdout


def test_a_league_table_that_cannot_be_is_one_line(several, tmp_path):
    flags = (f"--runs={several}", f"--out={tmp_path}", "--bootstrap=0", "--nofigures")
    for arguments, words in (
        (("--by=technique",), "--baseline=COLUMN=VALUE"),
        (
            ("--by=optimizer", "--baseline=optimizer=lion", "--where=bits=4"),
            "--baseline=optimizer=",
        ),
        (("--by=bits", "--baseline=bits=16"), "also differ in column optimizer"),
    ):
        done = call("evaluate", *flags, *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert words in done.stderr, arguments


def test_compare_opposes_two_conditions_or_two_tables(several, techniques, tmp_path):
    flags = (f"--out={tmp_path}", "--bootstrap=100", "--nofigures")
    done = call("evaluate", f"--runs={several}", "--where=bits=4", "--compare=adamw,muon", *flags)
    assert done.returncode == 0 and done.stdout.startswith("FLOPs of optimizer=muon")
    found = json.loads((tmp_path / "fits.json").read_text())
    assert found["versus"]["overall"]["value"] > 1 and len(found["conditions"]) == 2
    rows = techniques.read_text().splitlines()
    for name in ("dense", "kumar"):
        kept = [row for row in rows[1:] if row.startswith(name)]
        (tmp_path / f"{name}.csv").write_text("\n".join([rows[0], *kept]))
    pair = f"--compare={tmp_path / 'dense.csv'},{tmp_path / 'kumar.csv'}"
    done = call("evaluate", pair, *flags)
    assert done.returncode == 0 and "it is slower" in done.stdout, done.stderr
    for arguments, words in (
        ((pair, "--by=bits"), "--compare and --by ask for two reports"),
        ((pair, "--charge=student"), "--charge=student: --compare takes training FLOPs as the"),
        (("--compare=adamw,muon",), "--runs: is required"),
        ((), "--runs: is required; see --help"),
    ):
        done = call("evaluate", *arguments, *flags)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
