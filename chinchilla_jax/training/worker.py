"""One worker of a sweep: takes the cells that nobody has, one after the other.

A worker is one process, or several that train each cell together (`distributed`): then process 0
takes the locks and decides, and the others follow.
"""

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.data.store import Corpus, open_corpus
from chinchilla_jax.experiment import claims, needs, results, storage
from chinchilla_jax.experiment.config import DataConfig, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.lock import Lock, LockLost
from chinchilla_jax.experiment.plans import cells_of, has_plan, planned_text, read_plan
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.training import branch_points, distributed, threads

log = logging.getLogger(__name__)

Corpora = dict[DataConfig, Corpus]

ORPHAN_SECONDS = 6.0  # to save and end in, once the parent is gone
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def stop_requested() -> Callable[[], bool]:
    """A function that says whether SIGTERM or SIGINT came.

    A parent that is gone ends a worker (`supervise`), not a run that was begun from a shell.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: signals.append(received))
    return lambda: bool(signals)


def open_planned_corpus(workdir: Path, run: RunConfig) -> Corpus:
    """The corpus that the plan of `workdir` was made on; any, for a run without a plan.

    Raises:
      UserError: there is none, or that of another process is another.
    """

    def opened() -> Corpus:
        facts = read_plan(workdir)[2] if has_plan(workdir) else {}
        expected = planned_text(facts, run.data)
        return open_corpus(run.data, cache_folder(run.data.cache), expected)

    corpus = distributed.in_all_processes(opened)
    distributed.agree_that_same("the data fingerprint", corpus.data_fingerprint)
    return corpus


@contextlib.contextmanager
def locked(directory: RunDirectory, patient: bool) -> Iterator[Lock | None]:
    """`directory.lock` of process 0, whose outcome is that of all."""
    held: list[Lock | None] = []
    with contextlib.ExitStack() as stack:

        def take() -> bool:
            held.append(stack.enter_context(directory.lock(patient)))
            return held[0] is not None

        taken = distributed.on_writer(take)
        yield (held[0] if held else Lock()) if taken else None


def prepare_jax(cache: Path) -> None:
    """Turns on the persistent cache of compiled programs.

    They are cut for the threads of a process, which JAX's key of a program does not know.

    Raises:
      UserError: the devices that JAX is to use are not there.
    """
    import jax

    from chinchilla_jax.training import devices  # noqa: F401 (its flags, before XLA reads them)

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # its own words for a plugin that is not there
        asked = os.environ.get("JAX_PLATFORMS") or "not set"
        told = " ".join(str(error).split())[:200] or "no such backend"
        raise UserError(f"JAX has no device to use (JAX_PLATFORMS is {asked}): {told}") from None
    name = f"compiled-{threads.used()}" if threads.used() else "compiled"
    jax.config.update("jax_compilation_cache_dir", str(cache / name))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def work(workdir: Path, pinned_to: Sequence[int] = ()) -> None:
    """Runs cells of the plan, whose run ids the parent tells, each unless it is over or taken.

    A cell that fails leaves its reason in its folder and the next one begins. After a pass, cells
    that were taken by another process are tried again, until a pass finds nothing to do.

    Args:
      pinned_to: CPU cores of this process; set before JAX counts them.
    Raises:
      UserError: a run is not in the plan.
    """
    if pinned_to and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, pinned_to)
    stop_asked = stop_requested()
    run_ids = _told_by_parent()
    orphaned = _watch_parent()
    with contextlib.ExitStack() as stack:
        with claims.alone(workdir):
            stack.enter_context(claims.claim(workdir))
        runs = [cell.run for cell in cells_of(workdir, run_ids)]
        _work(workdir, runs, lambda: stop_asked() or orphaned.is_set())


def _told_by_parent() -> list[str]:
    """The run ids on standard input; ends this process where the parent is gone before."""
    line = b""
    while not line.endswith(b"\n"):
        if not (more := os.read(0, 1 << 16)):
            sys.exit(1)
        line += more
    run_ids: list[str] = json.loads(line)
    return run_ids


def _watch_parent() -> threading.Event:
    """An event that is set when the parent is gone, however it ended.

    The pipe from it, standard input, then ends. A process that does not come to an end by itself
    within `ORPHAN_SECONDS` is ended: a run then continues from its last checkpoint.
    """
    gone = threading.Event()
    if sys.platform == "linux":  # a process that is stopped reads no pipe: the kernel wakes it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)

    def watch() -> None:
        while os.read(0, 1 << 16):
            pass
        gone.set()
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    return gone


def work_jointly(workdir: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What `sweep.run` does, by the processes of one job that train each cell together.

    Raises:
      KeyboardInterrupt: after an orderly stop by a signal to any of them.
    """
    should_stop = stop_requested()

    def forget_failures() -> None:
        for cell in cells:
            run_directory(workdir, cell.run.run_id).forget_failure()

    distributed.on_writer(forget_failures)
    planned = [cell.run for cell in cells]
    distributed.on_writer(lambda: branch_points.prune_left(planned, workdir / "runs"))
    if cells:
        _work(workdir, planned, should_stop)
        distributed.on_writer(lambda: branch_points.prune_left(planned, workdir / "runs"))
    rows = distributed.on_writer(lambda: results.write_of(workdir, [c.run for c in cells]))
    if distributed.any_process(should_stop()):
        raise KeyboardInterrupt
    return rows


def _work(workdir: Path, runs: Sequence[RunConfig], should_stop: Callable[[], bool]) -> None:
    corpora: Corpora = {}
    for run in runs:
        if run.data not in corpora:
            corpora[run.data] = open_planned_corpus(workdir, run)
    prepare_jax(cache_folder(runs[0].data.cache))
    patient = False  # in a last pass: are the owners of what is left still alive?
    while True:
        became = [_attempt(run, corpora[run.data], workdir, should_stop, patient) for run in runs]
        ended = became.count(_ENDED)
        if ended or not patient:
            log.info("a pass over %d cells is over", len(runs))
        waiting = [run for run, what in zip(runs, became, strict=True) if what == _WAITS]
        if not ended and patient and not _awaited(waiting, workdir, should_stop):
            return
        patient = not ended


# What becomes of an attempt: it came to an end, or was none since the run is over, taken or to be
# stopped, or since it waits for another one.
_ENDED, _LEFT, _WAITS = "ended", "left", "waits"


def _note(workdir: Path, run: RunConfig) -> None:
    """The run's line in results.csv, which the end of the sweep writes again."""
    try:
        results.note(workdir, [run])
    except UserError as error:
        log.warning("%s: results.csv is not up to date: %s", run.run_id, error)


def _standing(run: RunConfig, workdir: Path) -> tuple[str, str]:
    """Before an attempt: (what becomes of it, why it fails where that is known)."""
    directory = run_directory(workdir, run.run_id)
    try:
        if directory.failure() or directory.result():
            return _LEFT, ""
        for name in needs.of_grid(run):
            other = run_directory(workdir, name)
            result, failure = other.result(), other.failure()
            # Of a trunk only the branch point counts.
            of_trunk = run.parent is not None and name == run.parent.run
            if result is not None and result["status"] != "done" and not of_trunk:
                failure = f"{result['status']}: {result.get('reason')}"
            if failure is not None:
                return _ENDED, f"needs {name}, which did not end well: {failure}"
            if result is None:
                return _WAITS, ""
    except StorageError:
        raise
    except UserError as damage:
        return _ENDED, str(damage)
    return _ENDED, ""


def _awaited(waiting: Sequence[RunConfig], workdir: Path, should_stop: Callable[[], bool]) -> bool:
    """Waits a little for runs that others need: whether they may have come, or may come yet."""

    def expected() -> bool:
        folders = {run_directory(workdir, name) for run in waiting for name in needs.of_grid(run)}
        try:
            return any(d.result() or d.failure() or d.is_held() for d in folders)
        except UserError:  # it has come to an end, of which the next attempt tells
            return True

    if not distributed.on_writer(expected):
        return False
    time.sleep(10.0 if storage.is_remote(workdir) else 0.5)
    return not distributed.any_process(should_stop())


def _attempt(
    run: RunConfig,
    corpus: Corpus,
    workdir: Path,
    should_stop: Callable[[], bool],
    patient: bool,
) -> str:
    """Trains one cell if it is free and not over, and the runs that it needs are done."""
    directory = run_directory(workdir, run.run_id)
    becomes, failure = distributed.on_writer(lambda: _standing(run, workdir))
    if distributed.any_process(should_stop()):
        return _LEFT
    if becomes != _ENDED:
        return str(becomes)
    with locked(directory, patient) as lock:
        if lock is None:
            log.info("%s: is being run by %s; left alone", run.run_id, directory.owner())
            return _LEFT
        ended = True
        if not failure:
            # Each process has its own view of a failure; that of process 0 counts.
            ended, failure = distributed.agree(
                _outcome(run, corpus, directory, lock.guard(should_stop))
            )
        if failure:
            distributed.on_writer(lambda: directory.fail(failure))
        if ended:
            distributed.on_writer(lambda: _note(workdir, run))
    return _ENDED if ended else _LEFT


def _outcome(
    run: RunConfig, corpus: Corpus, directory: RunDirectory, should_stop: Callable[[], bool]
) -> tuple[bool, str]:
    """(whether the attempt came to an end, why it failed) of training one cell."""
    from chinchilla_jax.training.loop import Interrupted, train

    try:
        distributed.in_all_processes(lambda: train(run, corpus, directory, should_stop))
    except Interrupted:
        log.info("%s: interrupted; its state is saved", run.run_id)
        return False, ""
    except LockLost as lost:
        log.warning("%s", lost)
        return False, ""
    except UserError as error:
        return True, str(error)
    except Exception as error:  # one cell's failure must not stop the others
        log.exception("%s: failed", run.run_id)
        return True, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return True, ""
