"""Work beside work: `with beside(work) as result: ...; result()`, in a forked copy of the process.

NumPy's small calls and Matplotlib hold Python's lock, so threads do not help there. Only a process
of one thread may be forked (a lock that another thread holds is never released in the copy): in a
notebook, or with JAX loaded, the work is done when its result is asked for, with the same result.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begins `work()` in a copy of this process; gives what waits for its result.

    Where there can be no copy, or it failed, that does the work here: an error is seen here too.
    """
    if not _may_fork():
        yield work
        return
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(here, there, work), daemon=True)
    # A signal to the copy ends it without a word: none may come before it is ready for one.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    there.close()

    def result() -> T:
        try:
            found: T = here.recv()
        except EOFError:
            return work()
        return found

    try:
        yield result
    finally:
        process.terminate()
        process.join()
        here.close()


def _send(here: Connection, there: Connection, work: Callable[[], object]) -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    here.close()  # or this process would wait for a reader that is gone
    try:
        there.send(work())
    except BaseException:  # the first process says what there is to say
        os._exit(1)


def _may_fork() -> bool:
    """Whether this process has one thread, as only Linux says exactly, and two processors."""
    try:
        threads = list(Path("/proc/self/task").iterdir())
    except OSError:
        return False
    return len(threads) == 1 and len(os.sched_getaffinity(0)) > 1
