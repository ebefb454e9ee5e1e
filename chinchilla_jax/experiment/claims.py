"""Who works by the plan of a work folder: as long as somebody does, it loses no cell.

    <workdir>/claims/lock          held by whoever compares and replaces the plan, or makes a claim
    <workdir>/claims/<name>/lock   held by a process for as long as it works by the plan

Each is a lock of `lock.lock`: it ends with its process, and it holds over hosts and in object
stores. Who has a claim may read the plan at leisure. It may only grow meanwhile, which takes
nothing from anybody.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.experiment import lock, storage
from chinchilla_jax.experiment.faults import StorageError

WAIT_SECONDS = 300.0  # for others who replace the plan, each of which takes far less than a second


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Nobody else replaces the plan of `workdir`, or makes a claim, while the context lasts.

    Raises:
      UserError: another process does not come to an end with it.
    """
    with lock.waited_for(_folder(workdir), WAIT_SECONDS):
        yield


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes a claim, which lasts as the context does; to be called `alone`."""
    folder = _folder(workdir) / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with lock.lock(folder):
            yield
    finally:
        with contextlib.suppress(StorageError):  # the next who asks removes it
            storage.remove_folder(folder)


def claimants(workdir: Path) -> list[str]:
    """Who has a claim, as `host pid`; to be called `alone`. Removes claims of the dead."""
    found = []
    for folder in storage.children(_folder(workdir)):
        if folder.name == "lock" or folder.name.startswith("lease-"):
            continue
        if lock.is_held(folder):
            found.append(lock.owner(folder))
        else:
            storage.remove_folder(folder)
    return found


def is_worked(workdir: Path) -> bool:
    """Whether somebody has a claim, for one who only looks; of a dead lease it takes a minute."""
    folders = (f for f in storage.children(_folder(workdir)) if f.name != "lock")
    return any(lock.is_held(f) for f in folders if not f.name.startswith("lease-"))


def _folder(workdir: Path) -> Path:
    return workdir / "claims"
