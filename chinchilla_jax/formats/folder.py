"""A folder that is complete or absent."""

import contextlib
import filecmp
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from chinchilla_jax.experiment import faults, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.lock import flock

log = logging.getLogger(__name__)


def write(target: Path, fill: Callable[[Path], None]) -> bool:
    """Makes the folder `target` with what `fill` writes into an empty one beside it.

    What a process that was killed on the way left there is removed.

    Returns:
      Whether it was made; false where it is there with just these files.
    Raises:
      UserError: it is there and has others, is in an object store, or cannot be written.
    """
    refuse_remote(target)
    target = target.absolute()
    _remove_left(target)
    with _unfinished(target) as beside:
        with _faults_of(target, beside):
            fill(beside)
        if storage.exists(target) or target.is_symlink():
            if difference := _difference(target, beside):
                raise UserError(
                    f"{target}: is there already, and {difference}; give another folder"
                )
            return False
        storage.move_folder(beside, target)
        return True


def refuse_remote(target: Path) -> None:
    """Raises UserError for a folder in an object store, where none appears all at once."""
    if storage.is_remote(target):
        raise UserError(
            f"{target}: a model is exported to a local folder; copy it there afterwards"
        )


@contextlib.contextmanager
def _faults_of(target: Path, beside: Path) -> Iterator[None]:
    """What keeps `beside` from being filled, told of the folder that it would have been."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {faults.reason(error)}") from error
    except UserError as error:
        raise type(error)(str(error).replace(str(beside), str(target))) from error


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, gone at the end unless it was renamed.

    It is locked, which the system ends with the process: so others know one that was left.
    """
    while True:
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
        with faults.translated(target, "written"):
            beside.mkdir(parents=True)
        with _locked(beside, wait=True):
            if not beside.exists():  # taken for left before it was locked
                continue
            try:
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            return


def _remove_left(target: Path) -> None:
    """Removes unfinished folders of `target` that no process has."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.unfinished")
    for left in storage.children(target.parent):
        if name.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            with _locked(left) as free:
                if free:
                    shutil.rmtree(left, ignore_errors=True)
                    log.warning("%s: removed: an export that was killed left it", left)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process has the lock of an open folder, while the context lasts."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # removed meanwhile
        yield False
        return
    try:
        try:
            flock(number, wait=wait)
        except OSError:  # another process has it, or the file system has no locks
            yield False
        else:
            yield True
    finally:
        os.close(number)


def _difference(target: Path, made: Path) -> str:
    """How the folder that is there differs from the one that was made."""
    if not target.is_dir():
        return "is a file"
    there, ours = storage.files(target), storage.files(made)
    if there != ours:
        return f"has {len(there)} files, of which some are others than the {len(ours)} of this run"
    _, unequal, unread = filecmp.cmpfiles(target, made, ours, shallow=False)
    found = [*unequal, *unread]
    return f"its {found[0]} is another than this run's" if found else ""
