"""Faults of a file system or an object store: which may pass, and each in a few words."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.experiment.errors import UserError

log = logging.getLogger(__name__)

_HTTP_PASSING = {408, 429, 500, 502, 503, 504}
_ERRNO_PASSING = {errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET}
_ERRNO_TOLD = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
# Of aiohttp, requests, google-auth and TensorFlow, any of which may stand behind epath.
_NAMES_PASSING = {
    "AbortedError", "ClientConnectionError", "ClientPayloadError", "DeadlineExceededError",
    "ResourceExhaustedError", "TransportError", "UnavailableError",
}  # fmt: skip


class StorageError(UserError):
    """The place of the files failed us: no space, no right, no answer."""


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNO_PASSING:
        return True
    code = str(getattr(error, "code", ""))
    names = {kind.__name__ for kind in type(error).__mro__}
    return (code.isdecimal() and int(code) in _HTTP_PASSING) or bool(names & _NAMES_PASSING)


def reason(error: BaseException) -> str:
    """An error in a few words: what the system calls it, else its own text."""
    system = getattr(error, "strerror", None)
    if system:
        return str(system)
    text = " ".join(str(error).split())
    for number in _ERRNO_TOLD:  # TensorStore wraps the system's words in pages of its own
        if os.strerror(number) in text:
            return os.strerror(number)
    text = text.partition(" [source locations")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def translated(place: Path, done: str) -> Iterator[None]:
    """Whatever a library that writes or reads by itself raises, as a `StorageError`.

    Orbax logs the traceback of each of its threads through absl, and asyncio that of each future
    that nobody asked; the error tells it once.
    """
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # when they are collected, later
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        log.debug("%s", place, exc_info=True)
        raise StorageError(f"{place}: cannot be {done}: {reason(error)}") from error
    finally:
        absl.setLevel(level)
