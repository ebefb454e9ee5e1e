"""A trace of some updates of a run, for TensorBoard, XProf or Perfetto: --profile_steps=10:13."""

import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError

log = logging.getLogger(__name__)

NO_STEPS = range(0)


def steps_named(text: str, total: int) -> range:
    """The updates of `--profile_steps=FIRST:LAST`: FIRST + 1 to LAST of `total`; none for "".

    So 10:13 are the three updates after the tenth, numbers 10, 11 and 12 counted from 0.

    Raises:
      UserError: not of that form, or not within the run.
    """
    if not text:
        return NO_STEPS
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise UserError(f"--profile_steps={text}: is FIRST:LAST with FIRST < LAST, as 10:13")
    if int(found[2]) > total:
        raise UserError(f"--profile_steps={text}: the run has {total} steps")
    return range(int(found[1]), int(found[2]))


class Profiler:
    """Traces exactly `steps` into `folder`, each process what it sees.

    The loop asks `room` before it dispatches and calls `at` between dispatches.
    """

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __init__(self, steps: range, folder: Path) -> None:
        self._steps = steps
        self._folder = folder
        self._traced: Path | None = None  # where the trace under way is written

    def room(self, step: int) -> int:
        """Updates from `step` to the next beginning or end of the trace; a very large number."""
        edges = (self._steps.start, self._steps.stop) if self._steps else ()
        return min((edge - step for edge in edges if edge > step), default=1 << 62)

    def at(self, step: int, pending: Any) -> None:
        """Begins or ends the trace where `step` says so, once `pending` arrays are computed."""
        if not self._steps:
            return
        if self._traced is not None and step >= self._steps.stop:
            jax.block_until_ready(pending)
            self._close()
        elif self._traced is None and step == self._steps.start:
            jax.block_until_ready(pending)  # what came before is no part of the trace
            remote = storage.is_remote(self._folder)
            self._traced = Path(tempfile.mkdtemp()) if remote else self._folder
            jax.profiler.start_trace(str(self._traced))

    def begin_at(self, step: int) -> None:
        """Says so where a run that continues at `step` is past the beginning."""
        if self._steps and step > self._steps.start:
            log.warning("no profile of steps %s: the run is at step %d", _text(self._steps), step)

    def _close(self) -> None:
        """Ends a trace under way and writes it."""
        if self._traced is None:
            return
        jax.profiler.stop_trace()
        if self._traced != self._folder:
            for file in self._traced.rglob("*"):
                if file.is_file():
                    target = self._folder / file.relative_to(self._traced).as_posix()
                    storage.write_bytes_atomic(target, file.read_bytes())
        log.info("profile of steps %s: %s", _text(self._steps), self._folder)
        self._traced = None


def _text(steps: range) -> str:
    return f"{steps.start}:{steps.stop}"
