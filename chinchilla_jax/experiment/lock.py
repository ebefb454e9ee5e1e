"""Who has a run: one process at a time, over hosts.

On a file system it is `flock`, which the system frees when the process dies. An object store has
none, and on some shared file systems it holds on one host only (CHINCHILLA_JAX_LOCK=lease is for
those). There it is a lease: the object `lease-<n>`, made by the n-th owner, which a thread renews
by counting up in it.

Taking is safe between any number of takers, since `lease-<n+1>` can be created once. No two clocks
are ever compared: a watcher looks at the lease once per period of the owner, by its own monotonic
clock, and takes over what did not change over `LOOKS` looks in a row. What remains: an owner that
was stopped for that long (a suspended machine, a store that only it cannot reach) and comes back
goes on for up to a period until it sees the higher lease, then stops with `LockLost`.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from chinchilla_jax.experiment import faults, json_data, lines, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.storage import is_remote

LOOKS = 6  # at an unchanged lease, one per period, before it is taken over
_VARIABLE = "CHINCHILLA_JAX_LOCK"
_PERIOD = "CHINCHILLA_JAX_LEASE_SECONDS"
_PATIENCE = 10.0  # seconds after which one who waits looks whether the owner is alive
_USUAL, _LONGEST = 10.0, 600.0  # seconds of a period
_GLANCE_SECONDS = 0.01  # that one who only looks has a lock, or less
_LENGTH = 2000  # bytes that a lease or a name has at most


class LockLost(UserError):
    """Another process has taken the run over; what this one knows of it is out of date."""


class Lock:
    """A lock that this process has."""

    def check(self) -> None:
        """Raises LockLost where another process has it by now."""

    def guard(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """`should_stop` that checks the lock first."""

        def guarded() -> bool:
            self.check()
            return should_stop()

        return guarded


@contextlib.contextmanager
def lock(folder: Path, patient: bool = False) -> Iterator[Lock | None]:
    """The lock of `folder` while the context lasts, None if another process has it.

    Args:
      patient: watch a lease until its owner renews it (None) or is taken for dead, which takes up
        to a minute; otherwise a lease is respected whatever its age.
    Raises:
      UserError: the file system has no locks.
      StorageError: the folder cannot be written.
    """
    kind = os.environ.get(_VARIABLE, "lease" if is_remote(folder) else "flock")
    if kind not in ("flock", "lease") or (kind == "flock" and is_remote(folder)):
        raise UserError(f"{_VARIABLE}={kind}: is flock or lease, and lease for an object store")
    with _leased(folder, patient) if kind == "lease" else _flocked(folder) as held:
        yield held


def flock(file: IO[Any] | int, exclusive: bool = True, wait: bool = False) -> None:
    """Takes the lock of an open file or folder, which the system frees when this process ends.

    Raises:
      BlockingIOError: another process has it, and `wait` is not asked for.
      OSError: its file system has none, or this is Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOSYS, "Windows has no flock") from None
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)


def unlock(file: IO[Any]) -> None:
    """Gives back what `flock` took; closing the file does too."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def waited_for(folder: Path, seconds: float) -> Iterator[Lock]:
    """The lock of `folder` while the context lasts, waited for while others have it.

    Raises:
      UserError: as `lock`, or one process has it for `seconds`.
    """
    begun, last = time.monotonic(), ""
    while True:
        now = time.monotonic()
        with lock(folder, patient=now - begun > _PATIENCE) as held:
            if held is not None:
                yield held
                return
        if (name := owner(folder)) != last:
            begun, last = now, name
        elif now - begun > seconds:
            raise UserError(f"{folder}: process {name} has it for {seconds:g} s and does not end")
        time.sleep(0.02 + 0.06 * secrets.randbelow(1000) / 1000)


def is_held(folder: Path) -> bool:
    """Whether a process that lives has the lock of `folder`; may take a minute for a lease."""
    latest = _latest(folder)
    if latest is not None:
        return not latest.free and not _is_dead(folder, latest)
    try:
        with (folder / "lock").open("rb") as file:
            flock(file, exclusive=False)
    except BlockingIOError:
        return True
    except OSError:  # nobody ever had it, or there are no locks here
        return False
    return False


def owner(folder: Path) -> str:
    """Host and process id of the last owner, as `host pid`; empty where there was none."""
    latest = _latest(folder)
    if latest is not None:
        return str(latest.content.get("owner", ""))
    with contextlib.suppress(OSError):
        return storage.read_end(folder / "lock", _LENGTH).decode(errors="replace").strip()
    return ""


def myself() -> str:
    """What `owner` says of this process."""
    return process(os.getpid())


def process(pid: int) -> str:
    """What `owner` says of a process of this host."""
    return f"{socket.gethostname()} {pid}"


@contextlib.contextmanager
def _flocked(folder: Path) -> Iterator[Lock | None]:
    def opened() -> IO[bytes]:
        folder.mkdir(parents=True, exist_ok=True)
        return lines.opened_to_append(folder / "lock")

    with storage.attempt(folder / "lock", "written", opened) as file:
        try:
            taken = _taken(file)
        except OSError as error:
            raise UserError(
                f"{folder}: its file system has no locks ({faults.reason(error)}); "
                f"set {_VARIABLE}=lease on every host"
            ) from None
        if not taken:
            yield None
            return
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name in it
            file.truncate(0)
            file.write(f"{myself()}\n".encode())
        yield Lock()


def _taken(file: IO[Any]) -> bool:
    """Whether the lock is ours now; one who only looks, by `is_held`, is no owner."""
    while True:
        with contextlib.suppress(BlockingIOError):
            flock(file)
            return True
        try:
            flock(file, exclusive=False)
        except OSError:  # it has an owner; or this is NFS, which has no such look
            return False
        unlock(file)
        time.sleep(_GLANCE_SECONDS * (1 + secrets.randbelow(1000) / 1000))


@dataclass(frozen=True)
class _Seen:
    """A lease as it stood when somebody looked."""

    number: int
    content: dict[str, Any] = field(compare=False)
    text: str

    @property
    def free(self) -> bool:
        """Whether its owner gave it back, or was a process of this machine that is gone."""
        if self.content.get("released"):
            return True
        if self.content.get("machine") != _machine():
            return False
        try:
            os.kill(int(self.content["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


@contextlib.contextmanager
def _leased(folder: Path, patient: bool) -> Iterator[Lock | None]:
    latest = _latest(folder)
    if latest is not None and not latest.free and not (patient and _is_dead(folder, latest)):
        yield None
        return
    lease = _Lease(folder, 1 if latest is None else latest.number + 1)
    if not lease.take():
        yield None
        return
    try:
        yield lease
    finally:
        lease.release()


class _Lease(Lock):
    """The lease `number` of a folder, renewed by a thread."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._period = _period()
        self._token = secrets.token_hex(8)
        self._count = 0
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, daemon=True)

    def take(self) -> bool:
        """Whether the lease is now ours."""
        file = _file(self._folder, self._number)
        if not storage.create(file, self._text().encode()):
            return False
        numbers = _numbers(self._folder)
        if max(numbers) > self._number:  # ours had been removed as an old one when we made it
            storage.remove(file)
            return False
        for number in numbers:
            if number < self._number:
                storage.remove(_file(self._folder, number))
        self._thread.start()
        return True

    def check(self) -> None:
        if self._lost:
            raise LockLost(f"{self._folder}: was taken over by {owner(self._folder)}")

    def release(self) -> None:
        """Gives it back, so that nobody has to wait."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(StorageError):  # it goes stale by itself
                storage.write_text_atomic(
                    _file(self._folder, self._number), self._text(released=True)
                )

    def _renew_for_ever(self) -> None:
        while not self._ended.wait(self._period):
            with contextlib.suppress(StorageError):  # the next renewal may get through
                if max(_numbers(self._folder), default=0) > self._number:
                    self._lost = True
                    return
                self._count += 1
                storage.write_text_atomic(_file(self._folder, self._number), self._text())

    def _text(self, released: bool = False) -> str:
        content = {
            "owner": myself(),
            "pid": os.getpid(),
            "machine": _machine(),
            "token": self._token,
            "count": self._count,
            "period": self._period,
            "released": released,
        }
        return json.dumps(content) + "\n"


def _period() -> float:
    """Seconds between two renewals of a lease."""
    text = os.environ.get(_PERIOD, str(_USUAL))
    try:
        period = float(text)
    except ValueError:
        period = 0.0
    if not 0 < period <= _LONGEST:
        raise UserError(f"{_PERIOD}={text}: seconds are expected, above 0 and up to {_LONGEST:g}")
    return period


def _is_dead(folder: Path, seen: _Seen) -> bool:
    """Whether a lease does not change over `LOOKS` periods of its owner."""
    for _ in range(LOOKS):
        time.sleep(seen.content.get("period", _USUAL))
        if (now := _latest(folder)) != seen:
            return now is None or now.free
    return True


def _file(folder: Path, number: int) -> Path:
    return folder / f"lease-{number:06d}"


def _numbers(folder: Path) -> list[int]:
    names = (child.name for child in storage.children(folder))
    return [int(name[6:]) for name in names if name.startswith("lease-") and name[6:].isdecimal()]


def _latest(folder: Path) -> _Seen | None:
    """The lease of the highest number."""
    for number in sorted(_numbers(folder), reverse=True):
        with contextlib.suppress(FileNotFoundError):
            text = storage.read_end(_file(folder, number), _LENGTH).decode(errors="replace")
            return _Seen(number, _content(text), text)
    return None


def _content(text: str) -> dict[str, Any]:
    """What a lease says; of one that was damaged nothing, so that it goes stale like any other."""
    with contextlib.suppress(ValueError):
        content = json_data.loads(text)
        types = {"owner": str, "pid": int, "machine": str, "period": float, "released": bool}
        whole = isinstance(content, dict) and all(type(content.get(n)) is types[n] for n in types)
        if whole and 0 < content["pid"] < 2**31 and 0 < content["period"] <= _LONGEST:
            return dict(content)
    return {}


def _machine() -> str:
    """The kernel and the process namespace in which our process ids mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: no short cut, a dead owner's lease goes stale
        return secrets.token_hex(8)
