"""Where work folders live: a local or shared file system, or an object store (`gs://bucket/...`).

The only file that knows the difference, with `lines.py`. Both are handed around as `pathlib` paths;
an object store is an etils `epath` over fsspec and gcsfs, which has the same methods. What differs:

* A file is written under a temporary name and renamed. An object appears whole or not at all, so
  that one PUT is enough.
* Reading and writing are tried again where the fault may pass (429, 503, a time-out, a stale NFS
  handle), and told in one line where it will not (no space, read-only, quota, forbidden).

Imported by the evaluator: nothing heavy here, epath only once a path is remote.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import IO, Any, TypeVar, cast

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError, may_pass, reason

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PAUSES = (0.5, 2.0, 8.0)  # seconds before another attempt; gcsfs has tried six times in each


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
    """Every file below `folder`, by its path in it, in order."""
    return sorted(each_file(folder))


def each_file(folder: Path) -> Iterable[str]:
    """Those of `files` as they are found, of which there may be very many."""
    if is_remote(folder):
        return _objects(folder)
    return (str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


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
            if pause is None or not may_pass(error):
                raise StorageError(f"{place}: cannot be {done}: {reason(error)}") from error
            log.warning("%s: %s; again in %g s", place, reason(error), pause)
            time.sleep(pause)
    raise AssertionError("not reached")


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
