"""Runs the cells of an experiment that are not done, and can be stopped and resumed at any time.

    python -m chinchilla_jax.sweep --config=configs/quickstart.py --workdir=runs/quickstart

--status --watch shows how far all is, from anywhere that sees the folder.
--halving=3 searches a grid of many shapes by successive halving (`training/halving.py`).
--until=1.5 --flops=1e14 chooses further runs (`plan --next`) and makes them until the 95 % interval
of N* at --target ends at 1.5 times its beginning, or all runs together have taken --flops.
Exit status: 0 all selected cells are over, N* is known well enough; 1 some failed or are left, the
FLOPs are spent; 2 a mistake in the call; 130 interrupted.
"""

import functools
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from absl import flags

from chinchilla_jax import program, shared_flags
from chinchilla_jax.experiment import halving as searches
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.plans import cells_of
from chinchilla_jax.training import distributed, halving, job_array, supervise, sweep

_JOIN, _DIVISION = shared_flags.define_processes(), shared_flags.define_division()
_CONFIG = shared_flags.define_config(required=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of plan, runs and report.", required=True)
_CELLS = flags.DEFINE_string(
    "cells",
    "",
    "Which cells: 0,3,5-7; the part i/n (i from 0); auto, the part of this task of a SLURM array "
    "or Kubernetes Indexed Job. Default: all.",
)
_HALVING = flags.DEFINE_float(
    "halving", 0.0, "Search shapes: the best 1/HALVING of those at a budget go on to the next.", 0.0
)
_GOAL = shared_flags.define_goal()
_STATUS = shared_flags.define_status()
_WORKER = flags.DEFINE_bool("worker", False, "Be one of the processes that a sweep starts.")
_PIN = flags.DEFINE_list("pin", [], "Of --worker: its CPU cores.")


def main(_: list[str]) -> None:
    workdir = storage.path(_WORKDIR.value)
    if _WORKER.value:
        from chinchilla_jax.training.worker import work

        work(workdir, [int(core) for core in _PIN.value])
        return
    if _STATUS(workdir, _CONFIG.value):
        return
    several = _JOIN()
    if goal := _GOAL(several, _CELLS.value, _HALVING.value):
        from chinchilla_jax.scaling.design.until import until

        first = program.experiment_to_plan(_CONFIG.value, workdir)
        sys.exit(until(first, workdir, goal, lambda asked: _run(workdir, False, asked)))
    sys.exit(_run(workdir, several))


def _chosen(workdir: Path, asked: Experiment | None, opened: ExitStack) -> list[str]:
    """Ids of the runs to make, in their order; none leaves the plan before `opened` ends."""
    asked = asked or program.experiment_to_plan(_CONFIG.value, workdir)
    experiment, cells = opened.enter_context(sweep.opened_plan(asked, workdir))
    selection = job_array.part(os.environ) if _CELLS.value == "auto" else _CELLS.value
    return [cell.run.run_id for cell in sweep.chosen(workdir, cells, selection, experiment.order)]


def _run(workdir: Path, several: bool, asked: Experiment | None = None) -> int:
    """The exit status."""
    with ExitStack() as opened:
        return distributed.in_all_processes(lambda: _made(workdir, several, asked, opened))


def _made(workdir: Path, several: bool, asked: Experiment | None, opened: ExitStack) -> int:
    chosen = cells_of(workdir, distributed.on_writer(lambda: _chosen(workdir, asked, opened)))
    make, more = functools.partial(supervise.shown, workdir, _DIVISION()), ""
    if several:
        from chinchilla_jax.training.worker import work_jointly

        make = functools.partial(work_jointly, workdir)
    if _HALVING.value:
        rows, more = halving.run(workdir, chosen, make, _HALVING.value)
    else:
        distributed.on_writer(lambda: None if _CELLS.value else searches.end(workdir))
        rows = make(chosen)
    said, left = sweep.outcome(workdir, chosen, rows)
    if distributed.is_writer():
        print(said + more)
        print(*left, sep="\n", end="\n" * bool(left), file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    program.run(main, program.CONTINUES)
