"""`forecast --register` and `verify` as a person calls them."""

import json

import pytest

from .command import call
from .scaling.register.known import check_in, grid_in


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a grid that is trained and evaluated."""
    folder = tmp_path_factory.mktemp("place")
    grid_in(folder / "runs" / "grid")
    return folder


def test_registered_trained_verified(place):
    done = call(
        "forecast", "--fits=runs/grid/report/fits.json", "--flops=1e13",
        "--register=forecasts/one.json", "--write_config=configs/one.py", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "parameters N*" in done.stdout and "config: configs/one.py, 5 runs" in done.stdout
    planned = call("plan", "--config=configs/one.py", cwd=place)
    assert planned.returncode == 0 and "5 of 5 cells planned" in planned.stdout
    commands = (place / "configs" / "one.py").read_text().splitlines()[2:4]
    assert commands[1].strip() == (
        "python -m chinchilla_jax.verify --forecast=forecasts/one.json --runs=runs/one"
    )
    early = call("verify", "--forecast=forecasts/one.json", "--runs=runs/one", cwd=place)
    assert early.returncode == 2 and "holds no plan.json" in early.stderr
    check_in(place / "runs" / "one", place / "configs" / "one.py", seed=1)
    flags = "--forecast=forecasts/one.json", "--runs=runs/one"
    done = call("verify", *flags, cwd=place)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "inside" in done.stdout and "Hit: of " in done.stdout
    assert "Choosing this size cost" in done.stdout and "ledger: forecasts/ledger" in done.stdout
    assert done.stdout.rstrip().endswith("report: runs/one/report/report.html")
    assert "Forecast and outcome" in (place / "runs/one/report/report.html").read_text()
    assert (place / "runs/one/report/outcome.png").exists()
    verdict = json.loads((place / "runs" / "one" / "verdict.json").read_text())
    assert verdict["hit"] and json.loads((place / "forecasts/ledger.jsonl").read_text()) == verdict
    with (place / "forecasts" / "ledger.jsonl").open("a") as file:
        file.write("damaged\n")
    again = call("verify", *flags, "--ledger", "--nofigures", cwd=place)
    assert again.returncode == 0 and "1 damaged line (2), kept" in again.stderr
    assert "Calibration" in again.stdout and "100 %" in again.stdout
    assert (place / "forecasts" / "ledger.jsonl").read_text().endswith("damaged\n")
    done = call("verify", "--ledger", cwd=place)
    assert done.returncode == 0 and (place / "forecasts" / "calibration.png").exists()


FORECAST = ("--fits=runs/grid/report/fits.json", "--register=forecasts/two.json")


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("forecast", (*FORECAST, "--flops=1e13,1e14"), ("one --flops",)),
        ("forecast", FORECAST, ("one --flops",)),
        ("forecast", ("--law=hoffmann", "--flops=1e21", "--register=x.json"), ("--fits=FILE",)),
        ("forecast", (*FORECAST, "--flops=1e13", "--loss=2"), ("no more",)),
        ("forecast", (*FORECAST[:1], "--flops=1e13", "--write_config=x.py"), ("--register=FILE",)),
        ("forecast", (*FORECAST, "--flops=1e12"), ("have runs of 3e12", "larger budget")),
        ("forecast", (*FORECAST, "--flops=1e13", "--write_config=x"), ("configs/more.py",)),
        ("forecast", (*FORECAST, "--flops=1e13", "--seeds=0"), ("seeds",)),
        ("verify", (), ("--forecast=FILE", "--ledger")),
        ("verify", ("--runs=runs/grid",), ("--forecast=FILE and",)),
        ("verify", ("--forecast=forecasts/two.json",), ("give both",)),
        ("verify", ("--forecast=no.json", "--runs=runs/grid"), ("no.json", "no such file")),
        ("verify", ("--forecast=runs/grid/plan.json", "--runs=runs/grid"), ("is no registered",)),
        ("verify", ("--ledger", "--ledger_file=none.jsonl"), ("none.jsonl", "no verdict yet")),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(program, arguments, words, place):
    done = call(program, *arguments, cwd=place)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (place / "forecasts" / "two.json").exists()
