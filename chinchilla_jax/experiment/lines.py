"""Text files that grow by whole lines: a run's metrics, a ledger, the log of a lock.

A local file is appended to. An object of a store cannot be; it is written anew, at intervals and at
`flush`.
"""

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import IO

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError

REWRITE_SECONDS = 30.0  # between two writings of an object


class LineFile:
    """A text file that grows by whole lines.

    On a file system they are there at once. An object is written anew at most every
    `REWRITE_SECONDS`: call `flush` before anything that counts on them, a checkpoint say.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._parts: list[str] = []  # of an object: all of its text
        self._written = time.monotonic()
        self._changed = False
        if storage.is_remote(place):
            with contextlib.suppress(FileNotFoundError):
                self._parts.append(storage.read_text(place))

    def append(self, lines: str) -> None:
        """Adds whole lines.

        Raises:
          StorageError: they cannot be written.
        """
        if not lines:
            return
        if not storage.is_remote(self._place):
            storage.attempt(self._place, "written", lambda: _append(self._place, lines))
            return
        self._parts.append(lines)
        self._changed = True
        if time.monotonic() - self._written > REWRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes all lines durable."""
        if self._changed:
            storage.write_text_atomic(self._place, "".join(self._parts))
            self._changed, self._written = False, time.monotonic()


def opened_to_append(place: Path) -> IO[bytes]:
    """A local file that grows, made if it is not there.

    Raises:
      UserError: it is a link or a pipe. Others may write the folder, and lead us to any file of
        ours.
    """
    try:
        return open(place, "ab", buffering=0, opener=_where_it_is)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise UserError(f"{place}: is a link or a pipe, not a file; remove it") from None


def _where_it_is(name: str, flags: int) -> int:
    also = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
    return os.open(name, flags | also, 0o666)


def _append(place: Path, text: str) -> None:
    """All of `text` or, where the disk fills up on the way, nothing."""
    rest = memoryview(text.encode())
    with opened_to_append(place) as file:
        begin = file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(begin)
            raise
