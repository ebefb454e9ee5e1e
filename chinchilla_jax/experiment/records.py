"""The run directory: its only reader and its only writer, but for the plan, which is `plans.py`.

    <workdir>/plan.json                    the frozen grid
    <workdir>/runs/<run_id>/config.json    the resolved configuration
    <workdir>/runs/<run_id>/metrics.jsonl  a line per logged step
    <workdir>/runs/<run_id>/result.json    written once, at the end: done iff it exists
    <workdir>/runs/<run_id>/heartbeat.json how far it is, while it is under way
    <workdir>/runs/<run_id>/failure.json   why the last attempt failed; a new attempt removes it
    <workdir>/results.csv                  one row per run, see `results.py`

JSON and CSV only: nothing that is read here can run code.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import contents, lock, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.lines import LineFile
from chinchilla_jax.experiment.lock import Lock
from chinchilla_jax.experiment.needs import CHECKPOINTS, read_run
from chinchilla_jax.experiment.rows import checked, row_of
from chinchilla_jax.experiment.schema import to_json, typed
from chinchilla_jax.experiment.storage import write_text_atomic

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0  # between two signs of life of a run under way
ANEW = "remove this file and the run is trained anew"


def json_text(value: Any) -> str:
    """A record as it stands in a file."""
    return json.dumps(to_json(value), indent=1, allow_nan=False) + "\n"


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The folder of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are kept."""
        return self.path / CHECKPOINTS

    def begun(self) -> bool:
        """Whether a run has its configuration here."""
        return storage.exists(self.path / "config.json")

    def configuration(self) -> RunConfig | None:
        """That of a run which was begun here; raises UserError where it is damaged."""
        with contents.remedy(f"remove {self.path} and the run is trained anew"):
            return read_run(self.path / "config.json") if self.begun() else None

    def start(self, run: RunConfig) -> None:
        """Records the configuration; a folder begun under another one is refused.

        Raises:
          UserError: the folder holds a run of other numbers.
        """
        if (begun := self.configuration()) is not None:
            if fingerprint(begun) != fingerprint(run):
                raise UserError(
                    f"{self.path}: was begun under another configuration "
                    f"({first_difference(to_json(begun), to_json(run))}); "
                    "use another --workdir or delete this folder"
                )
            before, now = begun.execution.threads, run.execution.threads
            if before not in (0, now):
                log.warning(
                    "%s: begun on %d threads, goes on on %d and differs in its last digits",
                    self.path,
                    before,
                    now,
                )
        write_text_atomic(self.path / "config.json", json_text(run))

    def lock(self, patient: bool = False) -> AbstractContextManager[Lock | None]:
        """This process's lock of the run, None if another one has it: `lock.lock`."""
        return lock.lock(self.path, patient)

    def is_held(self) -> bool:
        """Whether a process has the run's lock: `lock.is_held`."""
        return lock.is_held(self.path)

    def owner(self) -> str:
        """Host and process of the last owner, for a message: `lock.owner`."""
        return lock.owner(self.path)

    def rewind_metrics(self, step: int, log_every: int = 1, first_step: int = 0) -> None:
        """Drops the lines of `metrics.jsonl` after `step`: a run resumed there writes them anew.

        In the place of a line that is lost, damaged or with the whole file, `null` stands from
        then on.

        Args:
          log_every: steps between lines.
          first_step: after which the first line comes, of a branch.
        """
        file = self.path / "metrics.jsonl"
        lines = [line for line in self._logged() if line is None or line["step"] <= step]
        damaged = 0
        while lines and lines[-1] is None:  # of these steps or of later ones, written anew
            lines.pop()
            damaged += 1
        end = lines[-1] if lines else None
        due = int(step // log_every - (end["step"] if end else first_step) // log_every)
        lines += [None] * (min(due, damaged) if end else due)
        if lost := lines.count(None):
            log.warning("%s: damaged or gone, lines that are lost: %d", file, lost)
        if lines or storage.exists(file):
            write_text_atomic(file, "".join(json.dumps(line) + "\n" for line in lines))

    def metrics_writer(self) -> "MetricsFile":
        """Appends to `metrics.jsonl`; one at a time."""
        return MetricsFile(LineFile(self.path / "metrics.jsonl"))

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps; see `metrics_and_damage`."""
        return self.metrics_and_damage()[0]

    def metrics_and_damage(self) -> tuple[list[dict[str, Any]], int]:
        """The logged steps, and how many lines are none: no object of a step and numbers.

        A last line cut off by a kill is neither.
        """
        lines = self._logged()
        return [row for row in lines if row is not None], lines.count(None)

    def _logged(self) -> list[dict[str, Any] | None]:
        """The lines of `metrics.jsonl` in order, None for one that is damaged."""
        try:
            content = storage.read_bytes(self.path / "metrics.jsonl")
        except FileNotFoundError:
            return []
        *lines, last = content.split(b"\n")
        found = contents.logged_lines(lines)
        end = contents.logged(last)
        return found if end is None else [*found, end]

    def last_flops(self) -> float:
        """FLOPs up to the last logged step, from the end of the file alone."""
        try:
            end = storage.read_end(self.path / "metrics.jsonl", 1000)
        except FileNotFoundError:
            return 0.0
        row = contents.logged(end.rstrip().rpartition(b"\n")[2]) or {}  # none, or half a line
        return float(row.get("flops") or 0.0)

    def heartbeat(self, state: Mapping[str, Any]) -> None:
        """Says that the run is under way, and how far, in `heartbeat.json`."""
        write_text_atomic(self.path / "heartbeat.json", json_text(_finite(state)))

    def end_heartbeat(self) -> None:
        """The run is under way no more."""
        storage.remove(self.path / "heartbeat.json")

    def last_heartbeat(self) -> dict[str, Any] | None:
        """What a run under way, or one that was killed, has said last; raises as `failure`."""
        file = self.path / "heartbeat.json"
        with contents.remedy("remove this file"):
            if (state := contents.object_if_there(file)) is None:
                return None
            for name in ("step", "seconds_since_step", "usual_seconds"):
                typed(float | None, contents.field(state, name, file), f"{file}: {name}")
            for name in ("owner", "doing", "stalled"):
                contents.field(state, name, file)
            return state

    def finish(self, run: RunConfig, status: str, reason: str, measured: Mapping[str, Any]) -> None:
        """Writes `result.json`, once: from now on the run is over."""
        result = row_of(run) | _finite(measured) | {"status": status, "reason": reason}
        write_text_atomic(self.path / "result.json", json_text(result))

    def amend(self, measured: Mapping[str, Any]) -> None:
        """Adds to `result.json` of a run that is over what was measured of it later."""
        result = self.result()
        assert result is not None, self.path
        write_text_atomic(self.path / "result.json", json_text(result | _finite(measured)))

    def fail(self, reason: str) -> None:
        """Notes why an attempt failed; the next one tries again."""
        write_text_atomic(self.path / "failure.json", json_text({"reason": reason}))

    def forget_failure(self) -> None:
        """Before another attempt."""
        storage.remove(self.path / "failure.json")

    def result(self) -> dict[str, Any] | None:
        """The row of a run that is over (done or diverged), else None.

        Raises:
          UserError: it is damaged, so that nobody knows whether the run is over.
        """
        file = self.path / "result.json"
        with contents.remedy(ANEW):
            row = contents.object_if_there(file)
            return None if row is None else checked(row, str(file))

    def failure(self) -> str | None:
        """Why the last attempt failed, if it did; a UserError where the file is damaged."""
        file = self.path / "failure.json"
        with contents.remedy("remove this file"):
            failure = contents.object_if_there(file)
            return None if failure is None else str(contents.field(failure, "reason", file))


@dataclasses.dataclass(frozen=True)
class MetricsFile:
    """`metrics.jsonl` while it grows."""

    lines: LineFile

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends whole lines, a JSON object each; what is not finite is written as null."""
        self.lines.append("".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows))

    def flush(self) -> None:
        """Makes what was appended durable."""
        self.lines.flush()


def run_directory(workdir: Path, run_id: str) -> RunDirectory:
    """The folder of run `run_id`."""
    return RunDirectory(workdir / "runs" / run_id)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with what is not finite as None: missing stays missing."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """Where two JSON values differ first, as `path: old, now new`; empty when they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            found = first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
            if found and key not in ("run_id", "experiment"):
                return found
        return ""
    return "" if old == new else f"{where} was {old!r}, now {new!r}"
