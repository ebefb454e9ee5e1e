"""Accuracy on tasks: both laws, what they forecast, and how they fared on the largest runs.

An interval holds, in quadrature, what resamples of the runs say and the rms error of the same law
on larger runs that were held out, growing with the distance in ln FLOPs beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.fits import (
    AccuracyCheck,
    AccuracyFit,
    AccuracyForecast,
    Forecast,
    Task,
)
from chinchilla_jax.scaling.fitting.chance import resampled
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.laws.downstream import FORMS, AccuracyLaw, Predictor, TaskRows
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.accuracies import TaskColumns, tasks
from chinchilla_jax.scaling.table.runs import Runs

_DRAWS = 200
_LEAST = 8  # runs that a fit needs
_BEYOND = 10**0.5  # the largest runs: those of more FLOPs than the largest over this
_CUTS = 3
_SHOWN = 8  # of the runs held out, the largest
_TWO_SIGMA = 1.96


def downstream(
    runs: Runs, forecasts: Sequence[Forecast], settings: Settings, rng: np.random.Generator
) -> tuple[Task, ...]:
    """Every task of the table, empty where it has none."""
    return tuple(_task(runs, found, forecasts, settings, rng) for found in tasks(runs))


@dataclass(frozen=True)
class _HeldOut:
    """Errors of accuracy on larger runs over all cuts; `distance`: rms of ln FLOPs beyond."""

    rms: float
    bias: float
    distance: float
    count: int


@dataclass(frozen=True)
class _Chosen:
    """Both forms on the same rows, the one that hold-out prefers first."""

    rows: TaskRows
    laws: tuple[AccuracyLaw, ...]
    held: dict[str, _HeldOut | None]
    drawn: Predictor | None  # of the first form; None without draws

    def predicted(
        self, params: float, tokens: float, flops: float
    ) -> tuple[float, Interval | None]:
        """The first form's accuracy and its 95 % interval."""
        place = np.array([params]), np.array([tokens])
        value = float(self.laws[0].predict(*place)[0])
        drawn = None if self.drawn is None else interval(self.drawn(*place)[:, 0])
        if drawn is None:
            return value, None
        spread = _TWO_SIGMA * self.form_error(flops)
        low, high = (float(np.hypot(value - end, spread)) for end in drawn)
        return value, (max(0.0, value - low), min(1.0, value + high))

    def form_error(self, flops: float) -> float:
        """Standard deviation of what the form misses at `flops`."""
        held, beyond = self.held[self.laws[0].form], np.log(flops / self.rows.flops_R.max())
        scatter = self.scatter(self.laws[0])
        if held is None or beyond <= 0:
            return scatter
        return max(scatter, held.rms * max(1.0, float(beyond) / held.distance))

    def scatter(self, law: AccuracyLaw) -> float:
        """rms error of accuracy over the rows fitted."""
        miss = law.predict(self.rows.params_R, self.rows.tokens_R) - self.rows.accuracy_R
        return float(np.sqrt(np.mean(miss**2)))


def _task(
    runs: Runs,
    found: TaskColumns,
    forecasts: Sequence[Forecast],
    settings: Settings,
    rng: np.random.Generator,
) -> Task:
    loss_R = runs.loss if found.loss is None else runs.columns[found.loss]
    told_R = np.isfinite(loss_R) & np.isfinite(found.accuracy_R) & (loss_R > 0)
    rows = TaskRows(
        runs.params, runs.tokens, runs.flops, loss_R, found.accuracy_R,
        found.loss is not None, found.chance, runs.trunk_R(),
    ).select(told_R)  # fmt: skip
    names = [name for name, told in zip(runs.run_id_R, told_R, strict=True) if told]
    chosen, reason = _chosen(rows, settings, rng)
    refused = Task(
        name=found.name,
        accuracy=found.accuracy,
        error=found.error,
        loss=found.loss,
        chance=found.chance,
        runs=len(rows),
        range=_range(rows.accuracy_R),
        status="refused",
        reason=reason,
        best=None,
        forms=(),
        forecast=(),
        checked=(),
    )
    if chosen is None:
        return refused
    return replace(
        refused,
        status="ok",
        best=chosen.laws[0].form,
        forms=tuple(_fit(law, chosen) for law in chosen.laws),
        forecast=tuple(
            AccuracyForecast(
                at.flops, at.params, at.tokens, *chosen.predicted(at.params, at.tokens, at.flops)
            )
            for at in forecasts
            if at.params is not None and at.tokens is not None
        ),
        checked=_checked(rows, names, settings, rng),
    )


def _range(accuracy_R: Floats) -> Interval | None:
    return (float(accuracy_R.min()), float(accuracy_R.max())) if len(accuracy_R) else None


def _chosen(
    rows: TaskRows, settings: Settings, rng: np.random.Generator
) -> tuple[_Chosen | None, str]:
    """The forms in the order of their held-out error, and why; None with the reason."""
    if len(rows) < _LEAST:
        return None, f"{len(rows)} runs have it, {_LEAST} or more are needed"
    if np.ptp(rows.accuracy_R) == 0:
        return None, "it is the same in all runs"
    try:
        laws = [form(rows) for form in FORMS.values()]
    except UserError as error:
        return None, str(error)
    held = {form: _held_out(rows, form) for form in FORMS}
    known_of = {form: of for form, of in held.items() if of is not None}
    laws.sort(key=lambda law: known_of[law.form].rms if law.form in known_of else np.inf)
    why = "no larger runs to check it on: the interval is of chance alone"
    if known_of:
        other = known_of[laws[1].form].rms if laws[1].form in known_of else None
        why = f"held out, rms {known_of[laws[0].form].rms:.3f}"
        why += f" against {other:.3f}" if other is not None else ""
    drawn = None
    if draws := min(settings.draws, _DRAWS):
        count_BxR = resampled(rows.trunk_R, len(rows), draws, rng)
        drawn = laws[0].redrawn(count_BxR.astype(float))
    return _Chosen(rows, tuple(laws), held, drawn), why


def _held_out(rows: TaskRows, form: str) -> _HeldOut | None:
    """The errors of a form over `_CUTS` cuts, half a decade apart from the largest run down."""
    errors, distances = [], []
    for k in range(1, _CUTS + 1):
        cut = rows.flops_R.max() / _BEYOND**k
        early_R = rows.flops_R <= cut
        if early_R.sum() < _LEAST:
            break
        late = rows.select(~early_R)
        try:
            law = FORMS[form](rows.select(early_R))
        except UserError:
            break
        errors.append(law.predict(late.params_R, late.tokens_R) - late.accuracy_R)
        distances.append(np.log(late.flops_R / rows.flops_R[early_R].max()))
    if not errors:
        return None
    error, distance = np.concatenate(errors), np.concatenate(distances)
    rms = [float(np.sqrt(np.mean(x**2))) for x in (error, distance)]
    return _HeldOut(rms[0], float(np.mean(error)), rms[1], len(error))


def _fit(law: AccuracyLaw, chosen: _Chosen) -> AccuracyFit:
    held = chosen.held[law.form]
    return AccuracyFit(
        form=law.form,
        surface={name: float(value) for name, value in vars(law.surface.surface).items()},
        link=law.link,
        rms=known(chosen.scatter(law)),
        held_out_rms=held.rms if held else None,
        held_out_bias=held.bias if held else None,
        held_out=held.count if held else 0,
    )


def _checked(
    rows: TaskRows, names: Sequence[str], settings: Settings, rng: np.random.Generator
) -> tuple[AccuracyCheck, ...]:
    """All of it by the smaller runs alone, against what the largest measured."""
    cut = rows.flops_R.max() / _BEYOND if settings.holdout_above is None else settings.holdout_above
    early_R = rows.flops_R <= cut * (1 + 1e-9)
    chosen, _ = _chosen(rows.select(early_R), settings, rng)
    late = np.flatnonzero(~early_R)
    if chosen is None or not len(late):
        return ()
    late = late[np.argsort(rows.flops_R[late], kind="stable")][-_SHOWN:]
    found = []
    for i in map(int, late):
        at = [float(x[i]) for x in (rows.params_R, rows.tokens_R, rows.flops_R)]
        value, ends = chosen.predicted(*at)
        observed = float(rows.accuracy_R[i])
        inside = None if ends is None else ends[0] <= observed <= ends[1]
        found.append(
            AccuracyCheck(names[i], at[2], at[0], at[1], chosen.laws[0].form, value, ends,
                          observed, inside, float(chosen.rows.flops_R.max()))
        )  # fmt: skip
    return tuple(found)
