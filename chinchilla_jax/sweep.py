"""Runs the cells of an experiment that are not done, and can be stopped and resumed at any time.

    python -m chinchilla_jax.sweep --config=configs/quickstart.py --workdir=runs/quickstart

--halving=3 searches a grid of many shapes by successive halving (`training/halving.py`).
Exit status: 0 all selected cells are over; 1 some failed or are left; 2 a mistake in the call;
130 interrupted.
"""

import contextlib
import functools
import os
import sys
from pathlib import Path

from absl import flags

from chinchilla_jax import program
from chinchilla_jax.experiment import status, storage, tables
from chinchilla_jax.experiment.records import cells_of
from chinchilla_jax.training import distributed, halving, job_array, supervise, sweep

_JOIN, _DIVISION = program.define_processes(), program.define_division()
_CONFIG = program.define_config(required=False)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the plan, the runs and the report.", required=True
)
_CELLS = flags.DEFINE_string(
    "cells",
    "",
    "Which cells: 0,3,7; the part i/n (i from 0); auto, the part of this task of a SLURM array or "
    "Kubernetes Indexed Job. Default: all.",
)
_HALVING = flags.DEFINE_float(
    "halving", 0.0, "Search for the best shape: of each budget 1/HALVING go on to the next.", 0.0
)
_STATUS = flags.DEFINE_bool("status", False, "Only show how far each cell is.")
_WORKER = flags.DEFINE_bool("worker", False, "Be one of the processes that a sweep starts.")
_PIN = flags.DEFINE_list("pin", [], "CPU cores of this worker.")


def main(_: list[str]) -> None:
    workdir = storage.path(_WORKDIR.value)
    if _WORKER.value:
        from chinchilla_jax.training.worker import work

        work(workdir, [int(core) for core in _PIN.value])
        return
    if _STATUS.value:
        asked = program.experiment_from_flags(_CONFIG.value) if _CONFIG.value else None
        print(status.text(workdir, asked))
        return
    several = _JOIN()
    with contextlib.ExitStack() as opened:
        sys.exit(distributed.in_all_processes(lambda: _run(workdir, several, opened)))


def _chosen(workdir: Path, opened: contextlib.ExitStack) -> list[str]:
    """Ids of the runs to make, in their order; none leaves the plan before `opened` ends."""
    asked = program.experiment_to_plan(_CONFIG.value, workdir)
    experiment, cells = opened.enter_context(sweep.opened_plan(asked, workdir))
    selection = job_array.part(os.environ) if _CELLS.value == "auto" else _CELLS.value
    return [cell.run.run_id for cell in sweep.chosen(workdir, cells, selection, experiment.order)]


def _run(workdir: Path, several: bool, opened: contextlib.ExitStack) -> int:
    """The exit status."""
    names = distributed.on_writer(lambda: _chosen(workdir, opened))
    chosen = cells_of(workdir, names)
    make, said = functools.partial(supervise.shown, workdir, _DIVISION()), ""
    if several:
        from chinchilla_jax.training.worker import work_jointly

        make = functools.partial(work_jointly, workdir)
    if _HALVING.value:
        rows, said = halving.run(workdir, chosen, make, _HALVING.value)
    else:
        rows = make(chosen)
    if distributed.is_writer():
        lacking = sweep.unmeasured(workdir, chosen, rows)
        print(f"{tables.results(rows)}\nresults: {workdir / 'results.csv'}{lacking}{said}")
    left = [r for r in rows if r["run_id"] in names and r["status"] not in ("done", "diverged")]
    for row in left if distributed.is_writer() else []:
        print(f"{row['run_id']}: {row['status']}: {row['reason'] or 'not run'}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    program.run(main)
