"""Conditions side by side: each fitted by itself, asked for the same budgets.

    found, arrays = compare(read_runs("table.csv"), Settings(), by=["optimizer"])

`found` is what the report's fits.json holds instead of one `Fits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json, to_json
from chinchilla_jax.scaling import fits as record
from chinchilla_jax.scaling.analysis import Arrays, analyse, tuning
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fits import Choices, Fits
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import completed, fit_laws, spanned
from chinchilla_jax.scaling.ruler.league import Ruler, league
from chinchilla_jax.scaling.ruler.panel import panel
from chinchilla_jax.scaling.ruler.records import League, Versus
from chinchilla_jax.scaling.ruler.versus import versus
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table import conditions as table
from chinchilla_jax.scaling.table.columns import label
from chinchilla_jax.scaling.table.conditions import Condition, conditions, written
from chinchilla_jax.scaling.table.conventions import under
from chinchilla_jax.scaling.table.kinds import Column
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.techniques.law import Law


@dataclass(frozen=True)
class ConditionFits:
    """The runs of one condition fitted by themselves; `fits` is None where they are too few."""

    condition: dict[str, str]  # the values that tell it from the others, "" for an empty cell
    runs: int  # at the best settings of their cells
    status: str  # "ok" or "refused"
    reason: str | None
    fits: Fits | None

    @property
    def title(self) -> str:
        return written(self.condition)


@dataclass(frozen=True)
class ConditionLaw:
    """A further law fitted across the conditions that its columns make, inside all others."""

    condition: dict[str, str]
    law: str
    reason: str | None  # why there is no fit
    fit: LawFit | None


@dataclass(frozen=True)
class Comparison:
    """Every condition of a table; their forecasts are for the same budgets."""

    version: int
    settings: Choices
    source: str
    by: tuple[str, ...]  # the columns that tell the conditions apart
    choice: str | None  # the flags that choose, in a sentence, where nobody asked for a comparison
    columns: tuple[Column, ...]  # what each column of the file was taken for
    conditions: tuple[ConditionFits, ...]
    laws: tuple[ConditionLaw, ...]
    warnings: tuple[str, ...]  # about the table; those of a condition are in its fits
    league: League | None = field(default=None, metadata=UNLESS_DEFAULT)  # then of the dense alone
    versus: Versus | None = field(default=None, metadata=UNLESS_DEFAULT)  # then of two


@silent()
def compare(
    runs: Runs,
    settings: Settings | None = None,
    laws: Sequence[Law] = (),
    by: Sequence[str] = (),
    tuned: Sequence[str] = (),
) -> tuple[Comparison, tuple[Arrays, ...]]:
    """Fits every condition by itself; the arrays are those of the conditions that are "ok".

    Args:
      by: the columns that make the conditions; by default all that were taken for one.
    Raises:
      UserError: the runs of one such condition differ in another one, or a column lacks.
    """
    settings = settings or Settings()
    asked_for = table.by(runs, by) if by else runs
    every = conditions(asked_for, by)
    largest = max(_counted(one.runs.best(), settings).flops.max() for one in every)
    settings = replace(settings, budgets=settings.budgets or (10 * float(largest),))
    found, arrays = [], []
    for one in every:
        fitted, drawn = _fitted(one, settings, tuned)
        found.append(fitted)
        arrays += drawn
    comparison = Comparison(
        version=record.VERSION,
        settings=Choices(**vars(settings)),
        source=runs.source,
        by=tuple(by or table.distinguishing(runs)),
        choice=None if by else table.choice(runs),
        columns=tuple(asked_for.kinds.values()),
        conditions=tuple(found),
        laws=_laws(laws, asked_for, by, settings),
        warnings=runs.notes if arrays else asked_for.warnings,
    )
    return comparison, tuple(arrays)


@silent()
def rank(
    runs: Runs,
    settings: Settings | None = None,
    laws: Sequence[Law] = (),
    by: Sequence[str] = (),
    baseline: Mapping[str, str] | None = None,
    charge: str = "teacher_forward",
) -> tuple[Comparison, tuple[Arrays, ...], Ruler | None]:
    """The league table: the dense runs fitted, and every other condition measured by them.

    Args:
      by, baseline: as of `ruler.panel.panel`; charge: one of ruler.measures.CHARGES.

    Raises:
      UserError: no dense runs, runs that differ in something else, or a column lacks.
    """
    settings = settings or Settings()
    found = panel(runs, by, baseline)
    flops = _counted(found.dense.runs, settings).flops
    settings = replace(settings, budgets=settings.budgets or (10 * float(flops.max()),))
    dense, arrays = _fitted(found.dense, settings)
    table_of, ruler = league(found, settings, charge)
    comparison = Comparison(
        version=record.VERSION,
        settings=Choices(**vars(settings)),
        source=runs.source,
        by=found.by,
        choice=None,
        columns=tuple(found.runs.kinds.values()),
        conditions=(dense,),
        laws=_laws(laws, found.runs, found.by, settings),
        warnings=runs.notes,
        league=table_of,
    )
    return comparison, tuple(arrays), ruler


@silent()
def oppose(
    first: Condition, second: Condition, settings: Settings | None = None
) -> tuple[Comparison, tuple[Arrays, ...]]:
    """Two conditions, of one table or of two, each fitted, and the speed-up of the second.

    Raises:
      UserError: the losses or the FLOPs of the two are not of one unit.
    """
    settings = settings or Settings()
    sides = (first, second)
    flops = max(_counted(one.runs.best(), settings).flops.max() for one in sides)
    settings = replace(settings, budgets=settings.budgets or (10 * float(flops),))
    against = versus(first, second, settings)
    fitted = [_fitted(one, settings) for one in sides]
    sources = dict.fromkeys(one.runs.source for one in sides)
    comparison = Comparison(
        version=record.VERSION,
        settings=Choices(**vars(settings)),
        source=" and ".join(sources),
        by=tuple(dict.fromkeys(name for one in sides for name in one.values)),
        choice=None,
        columns=tuple(first.runs.kinds.values()),
        conditions=tuple(one for one, _ in fitted),
        laws=(),
        warnings=tuple(dict.fromkeys(text for one in sides for text in one.runs.notes)),
        versus=against,
    )
    return comparison, tuple(arrays for _, drawn in fitted for arrays in drawn)


def _fitted(
    one: Condition, settings: Settings, tuned: Sequence[str] = ()
) -> tuple[ConditionFits, list[Arrays]]:
    fits, drawn = analyse(one.runs, settings)
    try:
        fits = replace(fits, tuning=tuning(drawn.tried, settings, tuned))
    except UserError as error:  # of one condition among others
        fits = replace(fits, warnings=(*fits.warnings, str(error)))
    known = any(row.params is not None for row in fits.forecast)
    reason = "; ".join(f"{refusal.what}: {refusal.reason}" for refusal in fits.refusals)
    fitted = ConditionFits(
        condition=dict(one.values),
        runs=fits.table.fitted,
        status="ok" if known else "refused",
        reason=None if known else reason or "nothing was fitted",
        fits=fits if known else None,
    )
    return fitted, [drawn] if known else []


def _counted(runs: Runs, settings: Settings) -> Runs:
    return under(runs, settings.params, settings.flops)


def _laws(
    laws: Sequence[Law], runs: Runs, by: Sequence[str], settings: Settings
) -> tuple[ConditionLaw, ...]:
    """Raises UserError where a law fits under no condition at all."""
    objective = Objective(settings.objective, settings.delta)
    found = []
    for law in laws:
        fitted = []
        whole = completed(law, runs)  # before the partners of its runs are told apart from them
        for one in _apart_from(spanned(law, whole), whole, by):
            counted = _counted(one.runs, settings)
            try:
                (fit,) = fit_laws([law], counted, objective, settings.draws, settings.seed)
            except UserError as error:
                fitted.append(ConditionLaw(dict(one.values), law.name, str(error), None))
            else:
                fitted.append(ConditionLaw(dict(one.values), law.name, None, fit))
        if all(one.fit is None for one in fitted):
            raise UserError(fitted[0].reason)
        found += fitted
    return tuple(found)


def _apart_from(names: Sequence[str], runs: Runs, by: Sequence[str]) -> list[Condition]:
    """The conditions that the columns `names` do not make; cells still tell these apart."""
    kinds = {
        name: replace(column, kind="count" if name in names else column.kind)
        for name, column in runs.kinds.items()
    }
    first = [name for name in by if name not in names]
    return [
        replace(one, runs=replace(one.runs, kinds=runs.kinds))
        for one in conditions(replace(runs, kinds=kinds), first)
    ]


def write(path: Path | str, found: Comparison) -> None:
    """Writes the record, as `fits.write` does.

    Raises:
      UserError: the folder cannot be written.
    """
    storage.write_text_atomic(path, record.text(to_json(found)))


def read(path: Path | str, where: Mapping[str, str] | None = None) -> Fits:
    """The one fit of a fits.json, or that of the condition `where` of a comparison.

    Raises:
      UserError: `where` picks no condition or several, or the one that it picks was refused.
    """
    path, where = storage.path(path), where or {}
    data = json_data.read_json(path)
    if not isinstance(data, dict) or "conditions" not in data:
        fits = record.read(path)
        held = fits.table.condition
        if any(held.get(name) != label(value) for name, value in where.items()):
            raise UserError(
                f"--where={written(where, ',')}: {path} holds one fit and no comparison, "
                f"{f'that of {written(held)}' if held else 'of all runs of the table'}"
            )
        return fits
    found = _comparison(data, path)
    where = table.by_column(where, [name for one in found.conditions for name in one.condition])
    asked = {name: "" if value == "none" else label(value) for name, value in where.items()}
    picked = [one for one in found.conditions if asked.items() <= one.condition.items()]
    if len(picked) != 1:
        example = written((picked or found.conditions)[0].condition, ",")
        given = f"{len(picked) or 'none'} of them for --where={written(where, ',')}: " * bool(where)
        raise UserError(
            f"{path}: compares conditions, {given}pick one with --where={example}; there are "
            f"{'; '.join(one.title for one in found.conditions)}"
        )
    if picked[0].fits is None:
        raise UserError(f"{path}, {picked[0].title}: {picked[0].reason}")
    return picked[0].fits


def _comparison(data: dict[str, Any], path: Path) -> Comparison:
    record.check_version(data, path)
    try:
        return from_json(Comparison, data, "fits")
    except UserError as error:
        raise UserError(f"{path}: {error}; run evaluate again") from None
