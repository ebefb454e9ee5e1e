"""What the programs print: the summary of a sweep and its progress."""

import io

import pytest

from chinchilla_jax.experiment import tables
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.rows import row_of


@pytest.mark.parametrize(
    "statuses,summary",
    [
        (("done", "rejected"), "1 done, 1 rejected (the plan program and results.csv say why)"),
        (("done", "done"), "2 done"),
    ],
)
def test_where_cells_are_rejected_the_summary_says_where_the_reason_is(statuses, summary):
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16)))
    rows = [
        row_of(cell.run) | {"status": status}
        for cell, status in zip(plan(source), statuses, strict=True)
    ]
    assert tables.results(rows).splitlines()[-1] == summary


def test_energy_is_told_below_the_summary_by_kind():
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16)))
    done, diverged = (row_of(cell.run) for cell in plan(source))
    rows = [
        done | {"status": "done", "joules_gpu": 3.6e6, "grams_co2e_per_kwh": 400.0},
        diverged | {"status": "diverged", "joules_estimated": 1.8e6},
    ]
    assert tables.results(rows).splitlines()[-3:] == [
        "1 done, 1 diverged",
        "energy: accelerators, measured: 1 kWh in 1 of 2 runs, 0.4 kg CO2e",
        "energy: accelerators, estimated from stated power: 0.5 kWh in 1 of 2 runs",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_of_progress_says_what_is_known_and_nothing_more(monkeypatch):
    stream, now = io.StringIO(), iter((0.0, 10.0, 40.0))
    monkeypatch.setattr(tables.time, "monotonic", lambda: next(now))
    with tables.ProgressBar(stream) as bar:
        bar.show(0.0, 5e10, "0 of 2 cells")
        bar.show(1e10, 5e10, "1 of 2 cells")
    assert stream.getvalue().splitlines() == [
        "0 %: 0 of 5e10 FLOPs, 0 of 2 cells, 10 s",
        "20 %: 1e10 of 5e10 FLOPs, 1 of 2 cells, 40 s, 3 min left",
    ]


def test_the_bar_of_a_terminal_says_the_same():
    stream = Terminal()
    with tables.ProgressBar(stream) as bar:
        bar.show(0.0, 5e10, "0 of 2 cells")
    assert "0 of 5e10 FLOPs, 0 of 2 cells, 0 s" in stream.getvalue()
    assert ", \r" not in stream.getvalue() and "-" not in stream.getvalue()
