"""Signs of life of a run: a small file for those who watch, a line in the log when it stalls.

A thread writes them, so that they go on while the loop waits in vain for a device. It judges by
the clock of its own process how long no step has ended; whoever reads the file judges only whether
it changes. No two clocks are compared.
"""

import logging
import statistics
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

from chinchilla_jax.experiment import lock
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.records import HEARTBEAT_SECONDS, RunDirectory

log = logging.getLogger(__name__)

STALL_FACTOR = 20.0  # times the usual time between steps, after which a run is said to stall
STALL_SECONDS = 60.0  # but no earlier: a machine that is busy otherwise is not a stall
_REMEMBERED = 50  # intervals that `usual` is the median of


class Heartbeat:
    """Tells how far a run is while the context lasts; several processes have one writer.

    Args:
      directory: of the run; None in a process that does not write, which only warns.
    """

    def __init__(self, run: RunConfig, directory: RunDirectory | None) -> None:
        self._run_id = run.run_id
        self._directory = directory
        self._about = {"owner": lock.myself(), "steps": run.steps}
        self._step: int | None = None
        self._facts: dict[str, Any] = {}
        self._doing = "compiling"
        self._last = time.monotonic()
        self._intervals: deque[float] = deque(maxlen=_REMEMBERED)
        self._warned = False
        self._count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._directory is not None:
            try:
                self._directory.end_heartbeat()
            except StorageError as fault:  # must not hide what ended the run
                log.warning("%s: %s", self._run_id, fault)

    def beat(self, step: int, **facts: Any) -> None:
        """A dispatch has ended: `step` updates are done."""
        now = time.monotonic()
        if self._doing == "training":  # else the interval held something else
            self._intervals.append(now - self._last)
        if self._warned:
            log.warning("%s: goes on at step %d after %.0f s", self._run_id, step, now - self._last)
        self._step, self._facts, self._doing = step, facts, "training"
        self._last, self._warned = now, False

    def doing(self, what: str) -> None:
        """What the run does until the next step ends, if not training: saving, evaluating."""
        self._doing, self._last = what, time.monotonic()

    def state(self) -> dict[str, Any]:
        """What the file says now."""
        silent = time.monotonic() - self._last
        return (
            self._about
            | self._facts
            | {
                "step": self._step,
                "doing": self._doing,
                "stalled": self._stalled(silent),
                "seconds_since_step": silent,
                "usual_seconds": self._usual(),
                "count": self._count,
            }
        )

    def _usual(self) -> float | None:
        intervals = self._intervals.copy()  # at once: the loop appends meanwhile
        return statistics.median(intervals) if intervals else None

    def _stalled(self, silent: float) -> bool:
        usual = self._usual()
        if self._doing != "training" or usual is None:
            return False
        return silent > max(STALL_SECONDS, STALL_FACTOR * usual)

    def _run(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS if self._count else 0.0):
            self._count += 1
            state = self.state()
            if state["stalled"] and not self._warned:
                self._warned = True
                log.warning(
                    "%s: no step has ended for %.0f s (usually %.2g s), at step %s: a device, the "
                    "data or another process may hang",
                    self._run_id, state["seconds_since_step"], state["usual_seconds"], self._step,
                )  # fmt: skip
            if self._directory is not None:
                try:
                    self._directory.heartbeat(state)
                except StorageError as fault:  # the run itself will tell, where it matters
                    log.warning("%s: %s", self._run_id, fault)
