"""Where a branch begins: see `experiment/trunks.py`."""

import logging
from pathlib import Path

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import distributed, verified
from chinchilla_jax.training.checkpoints import Checkpoints, Damaged, State, meta

log = logging.getLogger(__name__)


def checked(run: RunConfig, runs: Path) -> RunConfig:
    """The trunk of a branch, which is over or has come to the branch point.

    Args:
      runs: the folder of the runs.
    Raises:
      UserError: the trunk is not there, is another one, or has not come to the branch point yet.
    """
    assert run.parent is not None
    there, where = RunDirectory(runs / run.parent.run), _where(run)
    known = there.configuration()
    if known is None:
        raise UserError(f"{where}, which was not begun; run it first")
    if fingerprint(known) != run.parent.fingerprint:
        raise UserError(
            f"{where}, which is another run by now than it was planned with; plan anew in "
            "another --workdir"
        )
    lost = verified.read_record(there.checkpoints / str(run.parent.step))[1]
    if lost and there.result() is None:
        raise UserError(f"{where}, which is not over and has not kept it; run it first")
    return known


def _where(run: RunConfig) -> str:
    assert run.parent is not None
    return f"{run.run_id} is a branch of {run.parent.run} at step {run.parent.step}"


def begun(
    run: RunConfig, corpus: Corpus, runs: Path, abstract_state: State
) -> tuple[State, int] | None:
    """The state that a branch begins with, its trunk's, on the devices of the branch; its step.

    None where the trunk is over and its state is damaged or lost, which a line of the log tells:
    then the branch can be trained from its start, to the same numbers.

    Args:
      runs: the folder of the runs.
      abstract_state: as of `Checkpoints.restore_latest`.
    Raises:
      UserError: as `checked`.
    """
    assert run.parent is not None
    step, where = run.parent.step, _where(run)
    # Absolute, as Orbax wants a path to be.
    there = RunDirectory(storage.absolute(runs / run.parent.run))
    known = distributed.on_writer(lambda: checked(run, runs))
    with Checkpoints(there.checkpoints, 2, meta(known, corpus)) as points:
        try:
            return points.restore(step, abstract_state), step
        except Damaged as damage:
            log.warning(
                "%s, which has no sound checkpoint of it any more: %s; the branch is trained from "
                "its start, which takes the FLOPs of all its steps", where, damage
            )  # fmt: skip
            return None
