"""The run directory: its only reader and its only writer.

    <workdir>/plan.json                    the frozen grid
    <workdir>/runs/<run_id>/config.json    the resolved configuration
    <workdir>/runs/<run_id>/metrics.jsonl  a line per logged step
    <workdir>/runs/<run_id>/result.json    written once, at the end: done iff it exists
    <workdir>/runs/<run_id>/heartbeat.json how far it is, while it is under way
    <workdir>/runs/<run_id>/failure.json   why the last attempt failed; a new attempt removes it
    <workdir>/results.csv                  one row per run, see `results.py`

JSON and CSV only: nothing that is read here can run code.
"""

import copy
import dataclasses
import functools
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import claims, contents, earlier, lock, needs, storage
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.lock import Lock
from chinchilla_jax.experiment.needs import CHECKPOINTS, read_run
from chinchilla_jax.experiment.rows import checked, row_of
from chinchilla_jax.experiment.schema import from_json, list_from_json, to_json, typed
from chinchilla_jax.experiment.storage import LineFile, write_text_atomic
from chinchilla_jax.experiment.version import MODEL_VERSION

log = logging.getLogger(__name__)

PLAN_VERSION = 2  # plans of version 1 are read too, see `earlier`
HEARTBEAT_SECONDS = 10.0  # between two signs of life of a run under way
_FIRST_MODEL_VERSION = 2  # of plans that do not say theirs
_CORPORA = Mapping[str, Mapping[str, Any]]  # of a plan's facts
ANEW = "remove this file and the run is trained anew"


def _json_text(value: Any) -> str:
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
        write_text_atomic(self.path / "config.json", _json_text(run))

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
        write_text_atomic(self.path / "heartbeat.json", _json_text(_finite(state)))

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
        write_text_atomic(self.path / "result.json", _json_text(result))

    def amend(self, measured: Mapping[str, Any]) -> None:
        """Adds to `result.json` of a run that is over what was measured of it later."""
        result = self.result()
        assert result is not None, self.path
        write_text_atomic(self.path / "result.json", _json_text(result | _finite(measured)))

    def fail(self, reason: str) -> None:
        """Notes why an attempt failed; the next one tries again."""
        write_text_atomic(self.path / "failure.json", _json_text({"reason": reason}))

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


def write_plan(
    workdir: Path,
    experiment: Experiment,
    cells: Sequence[Cell],
    facts: Mapping[str, Any],
    then: Callable[[], object] = lambda: None,
) -> None:
    """Freezes the grid in `plan.json`.

    A plan may be extended at any time, by budgets or by values of what varies. Cells may go or
    change while none of them was begun and nobody works by the plan (`claims`).

    Of processes that do so at once each compares with what the one before has written.

    Args:
      facts: what else the plan stands on: the code version, and of each corpus, by the fingerprint
        of its `DataConfig`, its tokens and the fingerprints of text and tokenizer.
      then: called before any other process may replace the plan: to make a claim to it.
    Raises:
      UserError: a run begun under the old plan, or one of a process that works by it, would change
        or be lost, the text is another, or the runs that are there were trained as another model.
    """

    def text(model_version: int) -> str:
        versions = {"version": PLAN_VERSION, "model_version": model_version}
        head = _json_text({**versions, **facts, "experiment": experiment})
        rows = ",\n".join(f"  {json.dumps(to_json(cell), allow_nan=False)}" for cell in cells)
        return f'{head.removesuffix("}" + chr(10)).rstrip()},\n "cells": [\n{rows}\n ]\n}}\n'

    file = workdir / "plan.json"
    while True:
        before = storage.read_bytes(file) if has_plan(workdir) else None
        lost: dict[str, str] = {}
        forecast_late: list[str] = []
        version = MODEL_VERSION
        if before is not None:
            _, old_cells, old_facts = read_plan(workdir)
            lost, forecast_late = _lost(old_cells, cells), _forecast_late(old_cells, cells)
            _refuse_begun(workdir, lost, forecast_late)
            _refuse_other_text(workdir, old_facts, facts)
            version = _model_version(workdir, old_cells, old_facts, cells)
        now = text(version).encode()
        with claims.alone(workdir):
            if (storage.read_bytes(file) if has_plan(workdir) else None) != before:
                continue  # another one was written meanwhile: that is the one to compare with
            _refuse_begun(workdir, lost, forecast_late)  # meanwhile, by one who has ended since
            _refuse_claimed(workdir, lost)
            if now != before:
                storage.remove(workdir / "results.csv")  # it is of the plan before
                storage.write_bytes_atomic(file, now)
            then()
            return


def _lost(old: Sequence[Cell], new: Sequence[Cell]) -> dict[str, str]:
    """What becomes of the runs of an old plan that are not in the new one as they were."""
    planned = {c.run.run_id: c.run for c in new if c.status == "planned"}
    found = {}
    for run in (cell.run for cell in old if cell.status == "planned"):
        other = planned.get(run.run_id)
        if other is None:
            found[run.run_id] = "dropped"
        elif other != run and fingerprint(other) != fingerprint(run):
            found[run.run_id] = first_difference(to_json(run), to_json(other))
    return found


def _forecast_late(old: Sequence[Cell], new: Sequence[Cell]) -> list[str]:
    """The runs that are now to check a forecast, which is registered before they begin."""
    before = {cell.run.run_id: cell.run.forecast for cell in old}
    runs = (cell.run for cell in new if cell.run.run_id in before)
    return [run.run_id for run in runs if run.forecast not in ("", before[run.run_id])]


def _refuse_begun(workdir: Path, lost: Mapping[str, str], forecast_late: Sequence[str]) -> None:
    for run_id in forecast_late:
        if run_directory(workdir, run_id).begun():
            raise UserError(
                f"{workdir}: run {run_id} was begun before the forecast that it is to "
                "check was registered; use another --workdir"
            )
    for run_id, change in lost.items():
        if run_directory(workdir, run_id).begun():
            raise UserError(
                f"{workdir}: run {run_id} was begun under another plan ({change}); "
                "use another --workdir"
            )


def _refuse_claimed(workdir: Path, lost: Mapping[str, str]) -> None:
    if lost and (others := claims.claimants(workdir)):
        run_id, change = next(iter(lost.items()))
        raise UserError(
            f"{workdir}: another plan is being carried out here, by {others[0]}, which has run "
            f"{run_id} ({change} in this one); wait until that has ended, or use another --workdir"
        )


def _refuse_other_text(
    workdir: Path, old_facts: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    for key, corpus in facts.get("corpora", {}).items():
        new_text = corpus["data_fingerprint"]
        old_text = old_facts.get("corpora", {}).get(key, {}).get("data_fingerprint")
        if old_text not in (None, new_text):
            raise UserError(
                f"{workdir}: was planned on text of the data fingerprint {old_text}, and here it "
                f"is {new_text}; give all hosts the same files or packages, or use another "
                "--workdir"
            )


def continued_plan(workdir: Path) -> tuple[Experiment, list[Cell]]:
    """The experiment and the cells of a plan of which cells are to be run.

    Raises:
      UserError: as `read_plan`, or the runs that are there were trained as another model.
    """
    experiment, cells, facts = read_plan(workdir)
    _model_version(workdir, cells, facts, cells)
    return experiment, cells


def _model_version(
    workdir: Path, old: Sequence[Cell], facts: Mapping[str, Any], cells: Sequence[Cell]
) -> int:
    """Of the model that the runs of a plan are trained as: one sweep has one.

    A plan whose runs are all over keeps its own, to be evaluated.

    Args:
      old: the cells of the plan that is there, and `facts` of it.
      cells: those of the plan that is to be carried out.
    Raises:
      UserError: runs were begun as another model than would be trained now.
    """
    version: int = facts.get("model_version") or _FIRST_MODEL_VERSION
    if version == MODEL_VERSION:
        return version
    names = [cell.run.run_id for cell in old]
    begun = [n for n in names if storage.exists(run_directory(workdir, n).path / "config.json")]
    if not begun:
        return MODEL_VERSION
    planned = [run_directory(workdir, c.run.run_id) for c in cells if c.status == "planned"]
    if any(directory.result() is None for directory in planned):
        raise UserError(
            f"{workdir}: run {begun[0]} was begun by an earlier version of chinchilla_jax, which "
            f"trains another model (model_version {version}, here {MODEL_VERSION}: CHANGELOG.md "
            "says what changed); use another --workdir, or finish this one with that version"
        )
    return version


def has_plan(workdir: Path) -> bool:
    """Whether a grid is frozen in `workdir`."""
    return storage.exists(workdir / "plan.json")


def read_plan(workdir: Path) -> tuple[Experiment, list[Cell], dict[str, Any]]:
    """The experiment, the cells and the other facts of `plan.json`.

    Raises:
      UserError: no plan, one of another version, or one that was damaged.
    """
    file = workdir / "plan.json"
    try:
        content = storage.read_bytes(file, storage.MOST_JSON)
    except FileNotFoundError:
        raise UserError(
            f"{workdir}: holds no plan.json; make one with the plan or sweep program"
        ) from None
    experiment, cells, facts = _plan_of(content, file)
    return experiment, list(cells), copy.deepcopy(facts)


@functools.lru_cache(maxsize=1)  # each step of a program reads it, and a large one takes a second
def _plan_of(content: bytes, file: Path) -> tuple[Experiment, tuple[Cell, ...], dict[str, Any]]:
    plan = storage.parse_json(file, content)
    version = plan.pop("version", None) if isinstance(plan, dict) else None
    if version not in (1, PLAN_VERSION):
        raise UserError(f"{file}: is not a plan of version 1 or {PLAN_VERSION}")
    if version == 1:
        try:
            plan = earlier.plan(plan)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{file}: is not the plan of version 1 that it says it is") from None
    experiment = from_json(Experiment, plan.pop("experiment", None), f"{file}: experiment")
    cells = list_from_json(Cell, plan.pop("cells", None), f"{file}: cells")
    runs = [cell.run for cell in cells if cell.status == "planned"]
    for run_id, count in Counter(run.run_id for run in runs).items():
        if count > 1:
            raise UserError(f"{file}: run {run_id} is planned {count} times: remove the copies")
    needs.check(runs, str(file))
    typed(int | None, plan.get("model_version"), f"{file}: model_version")
    corpora = typed(_CORPORA, plan.get("corpora", {}), f"{file}: corpora")
    for key, corpus in corpora.items():
        typed(str | None, corpus.get("data_fingerprint"), f"{file}: corpora.{key}.data_fingerprint")
    return experiment, cells, plan


def cells_of(workdir: Path, run_ids: Sequence[str]) -> list[Cell]:
    """The cells of these runs, in this order; raises UserError as `read_plan`, or one is none."""
    cells = {cell.run.run_id: cell for cell in read_plan(workdir)[1] if cell.status == "planned"}
    if gone := [run_id for run_id in run_ids if run_id not in cells]:
        raise UserError(f"{workdir}: run {gone[0]} has left the plan")
    return [cells[run_id] for run_id in run_ids]


def planned_text(facts: Mapping[str, Any], data: DataConfig) -> str | None:
    """The fingerprint of the text of `data` that a plan with these facts was made on."""
    corpus = facts.get("corpora", {}).get(fingerprint(data), {})
    text: str | None = corpus.get("data_fingerprint")
    return text


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
