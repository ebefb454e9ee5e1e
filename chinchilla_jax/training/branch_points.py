"""Checkpoints that a trunk keeps for its branches, who has none, and when they go: see
`experiment/trunks.py`.

No JAX here: a sweep with nothing to train looks after them too.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from chinchilla_jax.experiment import storage, trunks
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.needs import RECORD
from chinchilla_jax.experiment.other_run import Branch
from chinchilla_jax.experiment.records import RunDirectory, run_directory

log = logging.getLogger(__name__)


def as_begun(cells: Sequence[Cell], workdir: Path) -> list[Cell]:
    """The cells of a plan, whose branches begin where their trunks let them.

    A trunk keeps the points of the branches that it was begun with. What becomes a branch later, at
    a budget between those of its size, is trained from its start, and so is one whose point was
    lost: the same run to the bit, for the FLOPs of all its steps.
    """
    whole = {
        cell.run.run_id
        for cell in cells
        if cell.status == "planned" and cell.run.parent and not _begins_late(cell.run, workdir)
    }

    def begun(run: RunConfig) -> RunConfig:
        if run.parent and run.run_id in whole:
            return trunks.from_start(run)
        return replace(run, branches=tuple(b for b in run.branches if b.run not in whole))

    return [replace(cell, run=begun(cell.run)) for cell in cells]


def _begins_late(run: RunConfig, workdir: Path) -> bool:
    """Whether a branch has, or will have, its trunk's state to go on from."""
    assert run.parent is not None
    if (known := run_directory(workdir, run.run_id).configuration()) is not None:
        return known.first_step > 0
    trunk = run_directory(workdir, run.parent.run)
    if (known := trunk.configuration()) is None:
        return True
    if Branch(run=run.run_id, step=run.parent.step) not in known.branches:
        return False
    point = trunk.checkpoints / str(run.parent.step)
    return trunk.result() is None or storage.exists(point / RECORD)


def begun(cells: Sequence[Cell], workdir: Path) -> dict[str, bool]:
    """The branches among the cells of a plan that were begun, and whether each is over."""
    branches = [c.run.run_id for c in cells if c.status == "planned" and c.run.parent]
    found = {run_id: run_directory(workdir, run_id) for run_id in branches}
    return {name: run.result() is not None for name, run in found.items() if run.begun()}


def as_it_began(run: RunConfig, directory: RunDirectory) -> RunConfig:
    """A branch, from its start where it began so since its trunk had lost the point by then."""
    known = directory.configuration()
    return trunks.from_start(run) if known is not None and not known.first_step else run


def prune(run: RunConfig, runs: Path) -> None:
    """Removes of a run's trunk, once it is over, the branch points of branches that are over.

    And of the run itself, which may have been a trunk before a longer one was planned.

    Args:
      runs: the folder of the runs.
    """
    if run.parent:
        _prune(RunDirectory(runs / run.parent.run), runs)
    if not run.first_step:
        _prune(RunDirectory(runs / run.run_id), runs)


def _prune(trunk: RunDirectory, runs: Path) -> None:
    try:
        known = trunk.configuration()
        if known is None or trunk.result() is None:
            return  # it may have to go on from one of them itself
        over = [b for b in known.branches if RunDirectory(runs / b.run).result() is not None]
        for step in {b.step for b in over} - {b.step for b in known.branches if b not in over}:
            point = trunk.checkpoints / str(step)
            storage.remove(point / RECORD)  # first, and what is left of it does not count
            storage.remove_folder(point)
    except UserError as fault:
        log.warning("%s keeps branch points that nobody needs: %s", trunk.path, fault)


def prune_left(planned: Iterable[RunConfig], runs: Path) -> None:
    """`prune` of the trunks among `planned` that have branch points still.

    A run may be killed between its result and its pruning, and those of a trunk that is none any
    more are nobody's but its own. A trunk costs one listing.
    """
    for run in planned:
        if run.first_step or not (run.parent or run.branches):
            continue
        kept = storage.names(RunDirectory(runs / run.run_id).checkpoints)
        # What it keeps as a run counts as a trunk's only where its own configuration says so.
        if kept & {str(branch.step) for branch in run.branches} if run.branches else kept:
            prune(run, runs)
