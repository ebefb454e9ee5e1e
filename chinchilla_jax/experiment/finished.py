"""Runs that are over, as others take them: which folder is meant, and how a run came out."""

import logging
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import faults, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.experiment.schema import nearest

log = logging.getLogger(__name__)


def folder_of(place: Path) -> Path:
    """The folder of the run at `place`: itself, WORKDIR/RUN for WORKDIR/runs/RUN, or of WORKDIR the
    finished run of the lowest loss. One whose result is damaged is left out, with a warning.

    Raises:
      UserError: there is no run; names those that there are. Or all that is finished is damaged.
    """
    for folder in (place, run_directory(place.parent, place.name).path):
        if RunDirectory(folder).begun():
            return folder
    done, damaged = _done(place)
    if damaged and not done:
        raise next(iter(damaged.values()))
    for damage in damaged.values():
        log.warning("left out: %s", damage)
    if done:
        return min(done, key=lambda folder: done[folder]["loss"])
    for runs in (place / "runs", place.parent / "runs", place.parent):
        if there := sorted(n for n in storage.names(runs) if RunDirectory(runs / n).begun()):
            few = ", ".join(there[:8]) + ", ..." * (len(there) > 8)
            what = "has no finished run" if runs.parent == place else "is no run"
            raise UserError(f"{place}: {what}{nearest(place.name, there)} ({runs} has {few})")
    raise UserError(f"{place}: there is no run; give the folder of one, as WORKDIR/runs/RUN")


def folders_of(place: Path) -> list[Path]:
    """That of `folder_of`, or of a WORKDIR all finished runs and those whose result is damaged."""
    done, damaged = _done(place)
    return sorted([*done, *damaged]) or [folder_of(place)]


def _done(workdir: Path) -> tuple[dict[Path, dict[str, Any]], dict[Path, UserError]]:
    """Results of the finished runs in a work folder, and what is wrong with the damaged ones."""
    done: dict[Path, dict[str, Any]] = {}
    damaged: dict[Path, UserError] = {}
    for name in sorted(storage.names(workdir / "runs")):
        folder = workdir / "runs" / name
        try:
            row = RunDirectory(folder).result()
        except faults.StorageError:
            raise
        except UserError as damage:
            damaged[folder] = damage
        else:
            if row and row["status"] == "done":
                done[folder] = row
    return done, damaged


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
