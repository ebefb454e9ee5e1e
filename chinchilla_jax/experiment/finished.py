"""Runs that are over, as others take them: which folder is meant, and how a run came out."""

from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.experiment.schema import nearest


def folder_of(place: Path) -> Path:
    """The folder of the run at `place`: itself, WORKDIR/RUN for WORKDIR/runs/RUN, or of WORKDIR the
    finished run of the lowest loss.

    Raises:
      UserError: there is no run; names those that there are.
    """
    for folder in (place, run_directory(place.parent, place.name).path):
        if RunDirectory(folder).begun():
            return folder
    if losses := {folder: row["loss"] for folder, row in _done(place).items()}:
        return min(losses, key=lambda folder: losses[folder])
    for runs in (place / "runs", place.parent / "runs", place.parent):
        if there := sorted(n for n in storage.names(runs) if RunDirectory(runs / n).begun()):
            few = ", ".join(there[:8]) + ", ..." * (len(there) > 8)
            what = "has no finished run" if runs.parent == place else "is no run"
            raise UserError(f"{place}: {what}{nearest(place.name, there)} ({runs} has {few})")
    raise UserError(f"{place}: there is no run; give the folder of one, as WORKDIR/runs/RUN")


def folders_of(place: Path) -> list[Path]:
    """That of `folder_of`, or of a WORKDIR all finished runs."""
    return sorted(_done(place)) or [folder_of(place)]


def _done(workdir: Path) -> dict[Path, dict[str, Any]]:
    """Results of the finished runs in a work folder; raises UserError where one is damaged."""
    folders = [workdir / "runs" / name for name in storage.names(workdir / "runs")]
    results = {folder: RunDirectory(folder).result() for folder in folders}
    return {folder: row for folder, row in results.items() if row and row["status"] == "done"}


def at_end(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The run in a folder, which is done, and its result.

    Raises:
      UserError: it is not there or not done.
    """
    there = RunDirectory(folder)
    run = there.configuration()
    if run is None:
        raise UserError(f"{folder}: there is no run; give the folder of one, as WORKDIR/runs/RUN")
    result = there.result()
    if result is None:
        raise UserError(f"{folder}: is not finished; the sweep or `train` continues it")
    if result["status"] != "done":
        raise UserError(f"{folder}: has {result['status']}: {result.get('reason')}")
    return run, result


def done_at(place: Path) -> Path:
    """`folder_of` of a run that is done; raises UserError where there is none."""
    folder = folder_of(place)
    at_end(folder)
    return folder
