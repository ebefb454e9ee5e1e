"""Where work folders live: a local or shared file system, or an object store (`gs://bucket/...`).

The only file that knows the difference. Both are handed around as `pathlib` paths; an object store
is an etils `epath` over fsspec and gcsfs, which has the same methods. What differs:

* A file is written under a temporary name and renamed. An object appears whole or not at all, so
  that one PUT is enough.
* A file grows by appending. An object cannot; it is written anew, at intervals and at `flush`.
* Reading and writing are tried again where the fault may pass (429, 503, a time-out, a stale NFS
  handle), and told in one line where it will not (no space, read-only, quota, forbidden).

Imported by the evaluator: nothing heavy here, epath only once a path is remote.
"""

import array
import contextlib
import errno
import importlib.util
import itertools
import json
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import IO, Any, TypeVar, cast

from chinchilla_jax.experiment.errors import UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

REWRITE_SECONDS = 30.0  # between two writings of an object that grows by lines
MOST_JSON = 1 << 30  # bytes of a plan or a report, which are the largest
DEEPEST = 100  # lists and objects within each other in JSON
PAUSES = (0.5, 2.0, 8.0)  # seconds before another attempt; gcsfs has tried six times in each

_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UP_AND_DOWN = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # 255 is -1
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


def path(text: str | PurePath) -> Path:
    """A local path, or that of an object for `gs://...`, which has the same methods.

    Raises:
      UserError: another scheme, gcsfs is not installed, or nothing: `--workdir=$UNSET`.
    """
    if not str(text):
        raise UserError("the path of a folder or file is empty; for the folder you are in, write .")
    if not is_remote(text):
        return text if isinstance(text, Path) else Path(text)
    if not str(text).startswith("gs://"):
        raise UserError(f"{text}: is neither a local path nor gs://bucket/folder")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{text}: needs gcsfs; pip install 'chinchilla_jax[gcs]'")
    import fsspec
    from etils import epath

    # Others write here too: a listing that is kept would hide what they have done.
    for scheme in ("gs", "gcs"):
        fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks; we tell the error
    return cast(Path, epath.Path(text))


def absolute(text: str | PurePath) -> Path:
    """`path`, a local one from the root; epath's own would set `gs://` below the working folder."""
    place = path(text)
    return place if is_remote(place) else place.absolute()


def expanded(text: str) -> Path:
    """A local path with `~` and `~name` as the home that the system knows.

    Raises:
      UserError: it knows none, as for a user id without an entry.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such home; give the path from / on") from None


def is_remote(place: str | PurePath) -> bool:
    """Whether `place` is in an object store."""
    return "://" in str(place)


def read_bytes(place: Path, most: int | None = None) -> bytes:
    """The content of a file.

    Args:
      most: bytes; a file of ours has no more.
    Raises:
      FileNotFoundError: there is none.
      StorageError: it cannot be read.
      UserError: it is a device or a pipe, or has more than `most` bytes.
    """
    if is_remote(place):  # by epath it takes four requests
        filesystem, name = _filesystem(place)
        content = cast(bytes, attempt(place, "read", lambda: filesystem.cat_file(name)))
    else:
        content = attempt(place, "read", lambda: _read_file(place, most))
    _refuse_more(place, len(content), most)
    return content


def _refuse_more(place: Path, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise UserError(f"{place}: is no file of ours: it has more than {most:,} bytes")


def _read_file(place: Path, most: int | None) -> bytes:
    """A regular file, of which no more is read than it had; a pipe would be waited for for ever."""
    with _opened(place) as file:
        if most is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        _refuse_more(place, size, most)
        return file.read(size + 1)  # what may be read is allocated at once


def _opened(place: Path) -> IO[bytes]:
    file = open(place, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 (whoever asks does)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise UserError(f"{place}: is a device or a pipe, not a file")


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has none


def read_end(place: Path, size: int) -> bytes:
    """At most the last `size` bytes of a file; raises as `read_bytes` does."""

    def end() -> bytes:
        with place.open("rb") if is_remote(place) else _opened(place) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read()

    return attempt(place, "read", end)


def read_text(place: Path) -> str:
    """`read_bytes` of UTF-8 text."""
    return read_bytes(place).decode()


def read_json(place: Path, most: int = MOST_JSON) -> Any:
    """The content of a JSON file of at most `most` bytes.

    Raises:
      UserError: the file is absent, is not JSON or is larger.
    """
    try:
        return parse_json(place, read_bytes(place, most))
    except FileNotFoundError:
        raise UserError(f"{place}: cannot be read: no such file") from None


def parse_json(place: Path, content: bytes) -> Any:
    """The JSON that `content` of the file at `place` is.

    Raises:
      UserError: it is none.
    """
    try:
        return loads(content)
    except ValueError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None


def loads(content: bytes | str) -> Any:
    """JSON that is no more than data: what can be walked through and written again.

    Raises:
      ValueError: it is none, is nested deeper than `DEEPEST`, or has half of a surrogate pair.
    """
    content = content if isinstance(content, bytes) else content.encode()
    depth = content.count(b"[") + content.count(b"{")
    if depth > DEEPEST:
        brackets = content.translate(None, delete=_NO_BRACKETS).translate(_UP_AND_DOWN)
        depth = max(itertools.accumulate(array.array("b", brackets)))
    try:
        value = json.loads(content.decode())
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode()
        if depth > DEEPEST and _depth(value) > DEEPEST:  # there may be brackets in texts
            raise RecursionError
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST}") from None
    except UnicodeEncodeError:
        raise ValueError("a text of it has half of a surrogate pair") from None
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def exists(place: Path) -> bool:
    """Whether there is a file, or a folder, at `place`."""
    return attempt(place, "read", place.exists)


def children(folder: Path) -> list[Path]:
    """What is in `folder`, by name; nothing where there is no folder."""
    try:
        return sorted(attempt(folder, "read", lambda: list(folder.iterdir())))
    except FileNotFoundError:
        return []


def names(folder: Path) -> set[str]:
    """The names of what is in `folder`; none where there is no folder.

    Of an object store each thousand of them takes a request.
    """
    if is_remote(folder):
        return {child.name for child in children(folder)}
    try:
        return {entry.name for entry in attempt(folder, "read", lambda: list(os.scandir(folder)))}
    except FileNotFoundError:
        return set()


def files(folder: Path) -> list[str]:
    """Every file below `folder`, by its path in it."""
    if is_remote(folder):
        return sorted(_objects(folder))
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def digests(folder: Path, names: Sequence[str], of_file: Callable[[Path], str]) -> dict[str, str]:
    """Of the files of these names in `folder`; empty for one that cannot be read.

    A local file is read by `of_file`, on all cores. Of an object it is the checksum that the store
    keeps and has compared with every byte it took: nothing is downloaded.
    """
    if is_remote(folder):
        there = _objects(folder) if names else {}
        return {name: there.get(name, "") for name in names}

    def digest(name: str) -> str:
        try:
            return of_file(folder / name)
        except OSError:
            return ""

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _objects(folder: Path) -> dict[str, str]:
    """The checksum of every object below `folder`."""
    filesystem, name = _filesystem(folder)
    found = attempt(folder, "read", lambda: filesystem.find(name, detail=True))
    return {
        key.removeprefix(name).lstrip("/"): f"crc32c:{entry['crc32c']}"
        for key, entry in found.items()
    }


def move_folder(source: Path, target: Path) -> None:
    """Gives a folder another name; objects are copied and removed one by one."""
    if is_remote(source):
        filesystem, name = _filesystem(source)
        attempt(
            source, "moved", lambda: filesystem.mv(name, _filesystem(target)[1], recursive=True)
        )
    else:
        attempt(source, "moved", lambda: source.rename(target))


def remove(place: Path) -> None:
    """Removes a file; that there is none is no error."""
    attempt(place, "removed", lambda: place.unlink(missing_ok=True))


def remove_folder(folder: Path) -> None:
    """Removes a folder and all that is in it, or a link to one; that there is none is no error."""
    if not is_remote(folder) and folder.is_symlink():
        remove(folder)
        return
    with contextlib.suppress(FileNotFoundError):
        if not is_remote(folder):
            attempt(folder, "removed", lambda: shutil.rmtree(folder))
            return
        for name in files(folder):  # with what was in it it is gone
            remove(folder / name)


def write_bytes_atomic(place: Path | str, data: bytes) -> None:
    """Writes a file with its parent folders: all of `data` or nothing.

    Raises:
      StorageError: the folder cannot be written or the disk is full.
    """
    place = path(place)
    if is_remote(place):
        filesystem, name = _filesystem(place)
        attempt(place, "written", lambda: filesystem.pipe_file(name, data))
    else:
        attempt(place, "written", lambda: _write_and_rename(place, data))


def write_text_atomic(place: Path | str, text: str) -> None:
    """`write_bytes_atomic` for UTF-8 text."""
    write_bytes_atomic(place, text.encode())


def create(place: Path, data: bytes) -> bool:
    """Writes a file unless there is one: of several who try, one gets True.

    Atomic everywhere: a hard link on file systems, NFS included; a PUT with the precondition that
    no object is there on GCS.
    """
    if attempt(place, "written", lambda: _create(place, data)):
        return True
    # Ours after all, where only the answer was lost and we tried again.
    with contextlib.suppress(FileNotFoundError):
        return read_bytes(place) == data
    return False


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
        if is_remote(place):
            with contextlib.suppress(FileNotFoundError):
                self._parts.append(read_text(place))

    def append(self, lines: str) -> None:
        """Adds whole lines.

        Raises:
          StorageError: they cannot be written.
        """
        if not lines:
            return
        if not is_remote(self._place):
            attempt(self._place, "written", lambda: _append(self._place, lines))
            return
        self._parts.append(lines)
        self._changed = True
        if time.monotonic() - self._written > REWRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes all lines durable."""
        if self._changed:
            write_text_atomic(self._place, "".join(self._parts))
            self._changed, self._written = False, time.monotonic()


def attempt(place: Path, done: str, action: Callable[[], Result]) -> Result:
    """`action()`, again while its fault may pass; another fault is told as a `StorageError`.

    That a file to read is absent is no fault of the storage: FileNotFoundError is raised as it is.

    Args:
      done: what is to be done with `place`: read, written, removed.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except FileNotFoundError as error:
            if done == "written":  # where no folder can be made, as under /proc
                raise StorageError(f"{place}: cannot be written: {reason(error)}") from error
            raise
        except Exception as error:
            if not isinstance(error, OSError) and not is_remote(place):
                raise
            if pause is None or not _may_pass(error):
                raise StorageError(f"{place}: cannot be {done}: {reason(error)}") from error
            log.warning("%s: %s; again in %g s", place, reason(error), pause)
            time.sleep(pause)
    raise AssertionError("not reached")


@contextlib.contextmanager
def faults_of(place: Path, done: str) -> Iterator[None]:
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


def _may_pass(error: BaseException) -> bool:
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


def _filesystem(place: Path) -> tuple[Any, str]:
    """fsspec's, which has what epath lacks, and the name of `place` in it."""
    import fsspec

    filesystem, name = fsspec.core.url_to_fs(str(place))
    return filesystem, str(name)


def _temporary(place: Path) -> Path:
    """A name beside `place` that no other process, of any host, uses."""
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")


def _write_durably(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_and_rename(place: Path, data: bytes) -> None:
    temporary = _temporary(place)
    try:
        _write_durably(temporary, data)
        temporary.replace(place)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _create(place: Path, data: bytes) -> bool:
    if is_remote(place):
        filesystem, name = _filesystem(place)
        try:
            filesystem.pipe_file(name, data, mode="create")  # epath has no exclusive mode
        except FileExistsError:
            return False
        return True
    temporary = _temporary(place)
    try:
        _write_durably(temporary, data)
        try:
            place.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
