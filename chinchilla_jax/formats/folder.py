"""A folder that is complete or absent."""

import contextlib
import filecmp
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError


def write(target: Path, fill: Callable[[Path], None]) -> bool:
    """Makes the folder `target` with what `fill` writes into an empty one beside it.

    Returns:
      Whether it was made; false where it is there with just these files.
    Raises:
      UserError: it is there and has others, is in an object store, or cannot be written.
    """
    if storage.is_remote(target):
        raise UserError(
            f"{target}: a model is exported to a local folder; copy it there afterwards"
        )
    target = target.absolute()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with storage.faults_of(target, "written"):
            beside.mkdir(parents=True)
        fill(beside)
        if storage.exists(target) or target.is_symlink():
            if difference := _difference(target, beside):
                raise UserError(
                    f"{target}: is there already, and {difference}; give another folder"
                )
            return False
        storage.move_folder(beside, target)
        return True
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(beside)


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
