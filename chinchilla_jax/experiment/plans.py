"""plan.json, the frozen grid of a work folder: its only reader and its only writer."""

import copy
import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import claims, earlier, json_data, needs, storage
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.records import first_difference, json_text, run_directory
from chinchilla_jax.experiment.schema import from_json, list_from_json, to_json, typed
from chinchilla_jax.experiment.version import MODEL_VERSION

PLAN_VERSION = 2  # plans of version 1 are read too, see `earlier`
_FIRST_MODEL_VERSION = 2  # of plans that do not say theirs
_CORPORA = Mapping[str, Mapping[str, Any]]  # of a plan's facts


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
        head = json_text({**versions, **facts, "experiment": experiment})
        rows = ",\n".join(f"  {json.dumps(to_json(cell), allow_nan=False)}" for cell in cells)
        return f'{head.removesuffix("}" + chr(10)).rstrip()},\n "cells": [\n{rows}\n ]\n}}\n'

    file = workdir / "plan.json"
    while True:
        before = storage.read_bytes(file) if has_plan(workdir) else None
        lost: dict[str, str] = {}
        forecast_late: list[str] = []
        version = MODEL_VERSION
        if before is not None:
            old, old_cells, old_facts = read_plan(workdir)
            branches = old.ladder.branches, experiment.ladder.branches
            lost = _lost(old_cells, cells, branches)
            forecast_late = _forecast_late(old_cells, cells)
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


def _lost(old: Sequence[Cell], new: Sequence[Cell], branches: tuple[bool, bool]) -> dict[str, str]:
    """What becomes of the runs of an old plan that are not in the new one as they were.

    Args:
      branches: `ladder.branches` of the old plan and of the new one.
    """
    planned = {c.run.run_id: c.run for c in new if c.status == "planned"}
    found = {}
    for run in (cell.run for cell in old if cell.status == "planned"):
        other = planned.get(run.run_id)
        if other is None:
            found[run.run_id] = "dropped"
        elif other != run and fingerprint(other) != fingerprint(run):
            found[run.run_id] = _difference(run, other, branches)
    return found


def _difference(run: RunConfig, other: RunConfig, branches: tuple[bool, bool]) -> str:
    """Between two runs of one id, and why where it is the work of other budgets of their size."""
    found = first_difference(to_json(run), to_json(other))
    if (run.batch_size, run.optimizer) == (other.batch_size, other.optimizer):
        return found
    if branches[0] != branches[1]:
        found += (
            f"; ladder.branches was {branches[0]}, now {branches[1]}, and runs of a size that "
            "share a trunk have its batch and warm-up"
        )
    elif any(one.parent or one.branches for one in (run, other)):
        found += (
            "; the runs of a size share a trunk, with the batch and the warm-up by the shortest "
            "and the longest of them, so that a budget which is added changes them all"
        )
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
        content = storage.read_bytes(file, json_data.MOST_JSON)
    except FileNotFoundError:
        raise UserError(
            f"{workdir}: holds no plan.json; make one with the plan or sweep program"
        ) from None
    experiment, cells, facts = _plan_of(content, file)
    return experiment, list(cells), copy.deepcopy(facts)


@functools.lru_cache(maxsize=1)  # each step of a program reads it, and a large one takes a second
def _plan_of(content: bytes, file: Path) -> tuple[Experiment, tuple[Cell, ...], dict[str, Any]]:
    plan = json_data.parse_json(file, content)
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
