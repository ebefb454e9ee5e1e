"""Checkpoints that a trunk keeps for its branches, and when they go: see `experiment/trunks.py`.

No JAX here: a sweep with nothing to train looks after them too.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.needs import RECORD
from chinchilla_jax.experiment.records import RunDirectory

log = logging.getLogger(__name__)


def prune(run: RunConfig, runs: Path) -> None:
    """Removes of a run's trunk, once it is over, the branch points of branches that are over.

    Args:
      runs: the folder of the runs.
    """
    trunk = RunDirectory(runs / (run.parent.run if run.parent else run.run_id))
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

    A run may be killed between its result and its pruning. A trunk costs one listing.
    """
    for run in planned:
        points = {str(branch.step) for branch in run.branches}
        if points and points & storage.names(RunDirectory(runs / run.run_id).checkpoints):
            prune(run, runs)
