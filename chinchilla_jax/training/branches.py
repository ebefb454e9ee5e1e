"""Where a branch begins: see `experiment/trunks.py`."""

from pathlib import Path

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import distributed, verified
from chinchilla_jax.training.checkpoints import Checkpoints, State, meta


def begun(run: RunConfig, corpus: Corpus, runs: Path, abstract_state: State) -> tuple[State, int]:
    """The state that a branch begins with, its trunk's, on the devices of the branch; its step.

    Args:
      runs: the folder of the runs.
      abstract_state: as of `Checkpoints.restore_latest`.
    Raises:
      UserError: the trunk is not there, is another one or lacks the checkpoint, whatever it is.
    """
    assert run.parent is not None
    trunk, step, planned = run.parent.run, run.parent.step, run.parent.fingerprint
    # Absolute, as Orbax wants a path to be.
    there = RunDirectory(storage.absolute(runs / trunk))
    where = f"{run.run_id} is a branch of {trunk} at step {step}"

    def checked() -> RunConfig:
        known = there.configuration()
        if known is None:
            raise UserError(f"{where}, which was not begun; run it first")
        if fingerprint(known) != planned:
            raise UserError(
                f"{where}, which is another run by now than it was planned with; plan anew in "
                "another --workdir"
            )
        _, damage = verified.read_record(there.checkpoints / str(step))
        if damage:
            if (result := there.result()) is None:
                raise UserError(f"{where}, which is not over and has not kept it; run it first")
            why = f" ({result['reason']})" if result["reason"] else ""
            raise UserError(
                f"{where}, of which it has no sound checkpoint though it is {result['status']}"
                f"{why}: {there.checkpoints / str(step)}: {damage}; where it got so far, remove "
                f"{there.path} and it is trained anew"
            )
        return known

    known = distributed.on_writer(checked)
    with Checkpoints(there.checkpoints, 2, meta(known, corpus)) as points:
        return points.restore(step, abstract_state), step
