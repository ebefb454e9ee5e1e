"""Where the steps of a run are shown besides `metrics.jsonl`: TensorBoard, Weights & Biases.

`metrics.jsonl` is the truth. A run that goes on behind a kill drops the lines after its checkpoint
and writes them anew, so a sink begins with the lines that are left and ends with every step once:
TensorBoard is told to forget what came after them, an offline run of W&B is written anew from them,
and one on a server is told what it lacks.
"""

import importlib.util
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from chinchilla_jax.experiment import faults, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.schema import to_json

_NO_CURVES = {"step", "tokens", "flops", "smoothed_loss", "seconds"}
Rows = Sequence[Mapping[str, Any]]


class Sink(Protocol):
    """Takes the rows of `metrics.jsonl` in the order of their steps."""

    def write(self, rows: Rows) -> None: ...

    def flush(self) -> None:
        """Before the checkpoint that the rows lead to."""

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        """The run is over, and this is measured of it; None of one that stopped and may go on."""


def check(run: RunConfig, directory: RunDirectory) -> None:
    """Raises UserError where the run asks for a sink whose package, or place, is not there."""
    for name, (package, _) in SINKS.items():
        asked = getattr(run.execution, name)
        if asked and not _is_installed(package):
            said = "true" if asked is True else asked
            raise UserError(
                f"execution.{name} = {said}: needs {package}; pip install 'chinchilla_jax[{name}]'"
            )
    if run.execution.wandb and storage.is_remote(directory.path) and "WANDB_DIR" not in os.environ:
        raise UserError(
            f"execution.wandb = {run.execution.wandb}: W&B keeps files on this machine, and "
            f"{directory.path} is in a bucket; name a folder for them by WANDB_DIR=FOLDER"
        )


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of W&B's runs is called wandb


def opened(run: RunConfig, directory: RunDirectory) -> list[Sink]:
    """The sinks that the run asks for, with the rows that its folder has."""
    return [make(run, directory) for name, (_, make) in SINKS.items()
            if getattr(run.execution, name)]  # fmt: skip


class TensorBoard:
    """Event files in `tensorboard` of the run's folder."""

    def __init__(self, run: RunConfig, directory: RunDirectory) -> None:
        from tensorboardX import SummaryWriter

        folder, rows = directory.path / "tensorboard", directory.metrics()
        begun = storage.exists(folder)
        following = rows[-1]["step"] + 1 if rows else 0
        self._board = SummaryWriter(str(folder), purge_step=following if begun else None)
        if not begun:
            self.write(rows)

    def write(self, rows: Rows) -> None:
        for row in rows:
            for name, value in row.items():
                if name not in _NO_CURVES and value is not None:
                    self._board.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        self._board.flush()

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        self._board.close()


class WandB:
    """A run of Weights & Biases, in `wandb` of the run's folder; of WANDB_DIR for one in a bucket.

    WANDB_MODE=offline keeps it there for `wandb sync`. Its id is kept in the folder too, so that a
    run that is resumed is the same one.
    """

    def __init__(self, run: RunConfig, directory: RunDirectory) -> None:
        import wandb

        identity = _identity(directory.path / "wandb_id")
        remote = storage.is_remote(directory.path)
        local = Path(os.environ["WANDB_DIR"]) if remote else directory.path
        for folder in local.glob(f"wandb/offline-run-*-{identity}"):
            shutil.rmtree(folder, ignore_errors=True)  # all of it is written anew below
        try:
            self._run = wandb.init(
                project=run.execution.wandb, group=run.experiment, name=run.run_id, id=identity,
                resume="allow", reinit="create_new", dir=str(local), config=to_json(run),
                settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            why = faults.reason(error)
            raise UserError(
                f"execution.wandb = {run.execution.wandb}: {why} (WANDB_MODE=offline keeps the run "
                "here for `wandb sync`)"
            ) from None
        self._following = self._run.starting_step  # of one on a server, behind its last step
        self.write(directory.metrics())

    def write(self, rows: Rows) -> None:
        for row in rows:
            if row["step"] >= self._following:
                self._run.log(_known(row), step=row["step"])
                self._following = row["step"] + 1

    def flush(self) -> None:
        """W&B writes when it likes; what a kill takes, it is told anew when the run goes on."""

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        outcome = outcome or {}
        # By names of their own: the summary's `loss` is that of the last step.
        self._run.summary.update({f"result/{k}": v for k, v in _known(outcome).items()})
        self._run.finish(exit_code=int(outcome.get("status") != "done"))


def _identity(file: Path) -> str:
    """The id in `file`, made where there is none.

    Raises:
      UserError: the file is damaged.
    """
    if not storage.exists(file):
        storage.write_text_atomic(file, secrets.token_hex(4))
    text = storage.read_text(file).strip()
    if not re.fullmatch(r"\w{1,64}", text):
        raise UserError(f"{file}: {text[:40]!r} is no id of a W&B run; remove this file")
    return text


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says: no step, nothing missing and no number that is not finite."""
    return {
        name: value
        for name, value in row.items()
        if name != "step" and value is not None
        and not (isinstance(value, float) and not math.isfinite(value))
    }  # fmt: skip


# Field of `execution` -> its package and what opens it.
SINKS: dict[str, tuple[str, Callable[[RunConfig, RunDirectory], Sink]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WandB),
}
