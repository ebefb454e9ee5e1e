"""The evaluator where POSIX ends: what Windows lacks is taken away, since none was at hand."""

import csv
import os
import subprocess
import sys

import numpy as np

STAND_IN = [sys.executable, "-X", "warn_default_encoding", "tests/windows.py"]


def run(*arguments):
    """A program in the stand-in, its output to a pipe of an old code page."""
    done = subprocess.run(
        [*STAND_IN, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_table_is_evaluated_and_forecast_from(tmp_path):
    table, report = tmp_path / "runs.csv", tmp_path / "report"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("params", "tokens", "loss", "optimizer \N{GREEK SMALL LETTER MU}"))
        for flops in (1e17, 3e17, 1e18):
            for params in np.geomspace(0.25, 4, 7) * 0.1 * np.sqrt(flops):
                tokens = flops / 6 / params
                loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
                rows.writerow((f"{params:.6g}", f"{tokens:.6g}", f"{loss:.6f}", "\N{SNOWMAN}"))
    done = run("chinchilla_jax.evaluate", f"--runs={table}", f"--out={report}", "--bootstrap=20")
    assert done.returncode == 0, done.stderr
    assert (report / "report.html").is_file() and (report / "fits.json").is_file()
    done = run("chinchilla_jax.forecast", f"--fits={report / 'fits.json'}", "--flops=1e19")
    assert done.returncode == 0 and " 1e19 " in done.stdout, done.stderr


def test_where_there_are_no_locks_a_line_says_what_to_do(tmp_path):
    done = run("chinchilla_jax.plan", "--config=quickstart", f"--workdir={tmp_path / 'work'}")
    assert done.returncode == 2
    assert "CHINCHILLA_JAX_LOCK=lease" in done.stderr.splitlines()[-1]
