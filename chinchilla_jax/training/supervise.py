"""The parent of a sweep's workers: starts them, passes on signals, tells of those that die.

A worker is told by a pipe, its standard input, which runs are its own. The pipe stays open for as
long as the parent lives, whatever ends it: so a worker that reads the end of it is an orphan, and
ends (`worker.Parent`). No JAX here: the parent must leave the devices to its workers.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from chinchilla_jax.experiment import lines, lock, results, storage, tables
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.training import branch_points, placement, threads
from chinchilla_jax.training.placement import Group
from chinchilla_jax.training.progress import Progress, Watch
from chinchilla_jax.training.sweep import devices_for

POLL_SECONDS = 0.5
REMOTE_LOOK_SECONDS = 10.0  # between looks at an object store, where each costs requests
ANSWER_SECONDS = 5.0  # after a signal, before a worker that has not ended is named

Worker = subprocess.Popen[bytes]


def shown(
    workdir: Path, division: tuple[int, int, int], cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """`run` with its progress on standard error; a division as of `program.define_division`."""
    with tables.ProgressBar() as bar:

        def show(p: Progress) -> None:
            bar.show(p.flops, p.flops_total, f"{p.over} of {p.cells} cells")

        return run(workdir, cells, show, *division)


def run(
    workdir: Path,
    cells: Sequence[Cell],
    on_progress: Callable[[Progress], None],
    devices_per_cell: int = 0,
    cells_per_device: int = 1,
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Runs those of `cells` that are not over, and returns their result rows.

    Of the whole plan, its rejected cells too, where `cells` are all that it has.

    SIGTERM and SIGINT are passed on to the workers, which save their state. SIGINT after another
    signal ends them at once.

    Args:
      devices_per_cell: what a cell gets of this host, see `devices_for`.
      cells_per_device: at once, of the cells that get one device.
      workers: most processes at once; 0 for as many as there is place for.
    Raises:
      UserError: a cell that does not fit this host, or a division it does not know.
      KeyboardInterrupt: after a stop by a signal.
    """
    todo = [c for c in cells if not _is_over(run_directory(workdir, c.run.run_id))]
    branch_points.prune_left([cell.run for cell in cells], workdir / "runs")
    host = placement.this_host()

    def told(run: RunConfig, devices: int) -> dict[str, str]:
        if host.platform != "cpu" or devices > 1:
            return {}
        count = 1
        with _left_to_worker():
            count = threads.of_cell(run, run_directory(workdir, run.run_id))
        return threads.environment(count)

    def size(run: RunConfig) -> int:
        return devices_for(run, host, devices_per_cell)

    if host.platform == "cpu":
        one = [c.run for c in todo if size(c.run) == 1]
        if line := threads.advice(one, len(host.cores)):
            print(line, file=sys.stderr)
    groups = placement.groups(host, todo, size, cells_per_device, told)
    for cell in todo:
        run_directory(workdir, cell.run.run_id).forget_failure()
    with _signals() as received:
        complaint = _supervise(
            workdir, groups, cells, workers or len(groups), received, on_progress
        )
    branch_points.prune_left([cell.run for cell in cells], workdir / "runs")
    rows = results.write_of(workdir, [cell.run for cell in cells])
    if received:
        raise KeyboardInterrupt
    if complaint and any(row["status"] == "missing" for row in rows):
        raise UserError(complaint)
    return rows


def _is_over(directory: RunDirectory) -> bool:
    with _left_to_worker():
        return directory.result() is not None
    return False


@contextlib.contextmanager
def _left_to_worker() -> Iterator[None]:
    """A damaged file fails the cell that it is of, which its worker tells, and no other."""
    try:
        yield
    except StorageError:
        raise
    except UserError:
        pass


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals to stop that come while the context lasts."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, lambda number, frame: received.append(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(
    workdir: Path,
    groups: Sequence[Group],
    cells: Sequence[Cell],
    most: int,
    received: Sequence[int],
    on_progress: Callable[[Progress], None],
) -> str:
    """Keeps up to `most` workers at their places until all cells are over or a signal comes.

    Returns:
      What a worker said that ended without being at a cell; empty when none did.
    """
    waiting = dict(enumerate(groups))
    complaint = ""
    next_look, remote = 0.0, storage.is_remote(workdir)
    watch = Watch(workdir, cells)
    with _none_stays() as alive:
        stop = _Stop(workdir, groups, alive)
        while alive or waiting:
            for number, group in list(waiting.items()):
                before = [groups[n] for n in {*alive, *waiting} if n < number]
                if len(alive) < most and placement.may_start(group, before):
                    alive[number] = _spawn(workdir, group, number)
                    del waiting[number]
            time.sleep(POLL_SECONDS)
            if received:
                waiting.clear()
                stop.go_on(received)
            for number, process in list(alive.items()):
                status = process.poll()
                if status is None:
                    continue
                del alive[number]
                group = groups[number]
                if not status or received:
                    continue
                if _blame(workdir, group.cells, process.pid, status):
                    waiting[number] = group
                else:
                    complaint = _last_line(_log_file(workdir, number))
            if not alive or time.monotonic() >= next_look:
                # The bar can wait for the store to come back; of a file that is damaged the
                # worker tells, and others go on.
                with contextlib.suppress(UserError):
                    on_progress(watch.look())
                next_look = time.monotonic() + (REMOTE_LOOK_SECONDS if remote else 0.0)
    if remote:  # so far they lie on this host
        for log in storage.children(_logs(workdir)):
            storage.write_bytes_atomic(workdir / "logs" / log.name, log.read_bytes())
    return complaint


@contextlib.contextmanager
def _none_stays() -> Iterator[dict[int, Worker]]:
    """Workers by their places; those that are there when the context ends are ended."""
    alive: dict[int, Worker] = {}
    try:
        yield alive
    finally:
        for process in alive.values():
            _kill(process)


class _Stop:
    """What is done about workers once a signal came."""

    def __init__(self, workdir: Path, groups: Sequence[Group], alive: dict[int, Worker]) -> None:
        self._workdir = workdir
        self._groups = groups
        self._alive = alive
        self._asked: float | None = None  # when, to end
        self._told = False

    def go_on(self, received: Sequence[int]) -> None:
        """Asks them to end, names those that do not, ends them at once after another SIGINT."""
        if self._asked is None:
            self._asked = time.monotonic()
            for process in self._alive.values():
                process.terminate()
        if signal.SIGINT in received[1:]:
            for process in self._alive.values():
                _kill(process)
        elif not self._told and time.monotonic() - self._asked > ANSWER_SECONDS:
            self._told = True
            for number, process in self._alive.items():
                self._tell(number, process)

    def _tell(self, number: int, process: Worker) -> None:
        if process.poll() is None:
            cell = _cell_of(self._workdir, self._groups[number].cells, process.pid)
            at = f", at {cell.run.run_id}," if cell else ""
            print(
                f"\nwaiting for worker {process.pid}{at} to save and end (see "
                f"{_log_file(self._workdir, number)}); Ctrl-C ends it at once, and the same "
                "command continues from what was saved before",
                file=sys.stderr,
                flush=True,
            )


def _kill(process: Worker) -> None:
    """Ends a worker, also one that is stopped, and what it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(workdir: Path, group: Group) -> list[str]:
    cores = ",".join(map(str, group.place.cores))
    program = [sys.executable, "-m", "chinchilla_jax.sweep"]
    return [*program, f"--workdir={workdir}", f"--pin={cores}", "--worker"]


def _spawn(workdir: Path, group: Group, number: int) -> Worker:
    file = _log_file(workdir, number)

    def opened() -> IO[bytes]:
        file.parent.mkdir(parents=True, exist_ok=True)
        return lines.opened_to_append(file)

    with storage.attempt(file, "written", opened) as log:
        # A session of its own: Ctrl-C reaches the workers once, through us.
        process = subprocess.Popen(
            _command(workdir, group),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=placement.environment(group.place, os.environ),
        )
    runs = json.dumps([cell.run.run_id for cell in group.cells]).encode() + b"\n"
    # They may be more than a pipe holds, and a worker may not read them, now or ever.
    threading.Thread(target=_hold, args=(process, runs), daemon=True).start()
    return process


def _hold(process: Worker, runs: bytes) -> None:
    """Tells a worker its runs, and holds the pipe to it open until it has ended."""
    assert process.stdin is not None
    with process.stdin as pipe, contextlib.suppress(BrokenPipeError):
        rest = memoryview(runs)
        while rest:
            rest = rest[pipe.write(rest) :]
        process.wait()


def _logs(workdir: Path) -> Path:
    """Where workers write what they say: beside the runs, or on this host until the sweep ends."""
    if not storage.is_remote(workdir):
        return workdir / "logs"
    here = f"chinchilla_jax-{os.getuid()}-{workdir.name}-{os.getpid()}"
    return Path(tempfile.gettempdir()) / here


def _log_file(workdir: Path, number: int) -> Path:
    return _logs(workdir) / f"{socket.gethostname()}-{number}.log"


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1].removeprefix('error: ') if lines else 'a worker ended'} (see {file})"


def _cell_of(workdir: Path, cells: Sequence[Cell], pid: int) -> Cell | None:
    """The cell that a worker is at, or was when it died."""
    for cell in cells:
        directory = run_directory(workdir, cell.run.run_id)
        with contextlib.suppress(UserError):  # what is damaged is no longer worked at
            mine = directory.owner() == lock.process(pid)
            if mine and directory.result() is None and directory.failure() is None:
                return cell
    return None


def _blame(workdir: Path, cells: Sequence[Cell], pid: int, status: int) -> bool:
    """Notes the death of a worker in the cell it was at; whether there was one."""
    cell = _cell_of(workdir, cells, pid)
    if cell is None:
        return False
    what = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    if status == -signal.SIGKILL:
        what += ", as where memory runs out (--config.execution.microbatch=1 takes least)"
    directory = run_directory(workdir, cell.run.run_id)
    directory.fail(f"its process ended {what}; see {_logs(workdir)}")
    return True
