"""The sections of the record that look ahead: hold-out, forecasts, influence, conventions."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.doubt.holdout import Forecaster, HeldOut, Score
from chinchilla_jax.scaling.doubt.uncertainty import Influence, SurfaceDraws
from chinchilla_jax.scaling.fits import (
    BestForecast,
    BudgetLeftOut,
    Check,
    Convention,
    Draws,
    DrawTable,
    Fold,
    FoldErrors,
    Forecast,
    ForecastScore,
    HeldOutMinimum,
    Holdout,
    Influences,
    MinimaSource,
    OtherDelta,
    Prediction,
    Sources,
    SurfaceSource,
    TopDropped,
)
from chinchilla_jax.scaling.fitting.intervals import interval
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws
from chinchilla_jax.scaling.fitting.loss_law import LossLaw
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, FlopsModel, SurfaceFit
from chinchilla_jax.scaling.prediction import MinimaForecast, Source, SurfaceForecast
from chinchilla_jax.scaling.prediction import forecast as one_forecast
from chinchilla_jax.scaling.table.runs import Runs

T = TypeVar("T")


def held_out(
    results: Sequence[HeldOut],
    ranking: Sequence[Score],
    chosen: Forecaster,
    why: str,
    method: str,
) -> Holdout:
    folds = {r.fitted_up_to: r.flops_H.tolist() for r in results}
    return Holdout(
        status="ok" if results else "refused",
        reason=None if results else "fewer than four budgets have a minimum",
        minima=method,
        folds=tuple(Fold(c, tuple(h)) for c, h in sorted(folds.items())),
        errors=tuple(map(_fold_errors, results)),
        summary=tuple(
            ForecastScore(
                **score.forecaster.as_dict(),
                minima_rms=known(score.minima_rms),
                minima_bias=known(score.minima_bias),
                cells_rms=score.cells_rms and known(score.cells_rms),
                forecasts=score.forecasts,
            )
            for score in ranking
        ),
        best=BestForecast(**chosen.as_dict(), reason=why),
    )


def _rms(x: Floats) -> float | None:
    return known(np.sqrt(np.mean(x**2))) if len(x) else None


def _fold_errors(r: HeldOut) -> FoldErrors:
    columns = zip(r.flops_H, r.predicted_H, r.observed_H, r.minimum_error_H, strict=True)
    return FoldErrors(
        **r.forecaster.as_dict(),
        fitted_up_to=r.fitted_up_to,
        runs=r.runs,
        minima=tuple(
            HeldOutMinimum(float(c), known(predicted), float(observed), known(error))
            for c, predicted, observed, error in columns
        ),
        params_rms=_rms(r.params_error_H),
        cells_rms=_rms(r.cell_error_R),
        cells_bias=known(float(np.mean(r.cell_error_R))) if len(r.cell_error_R) else None,
    )


def checked(results: Sequence[HeldOut]) -> tuple[Check, ...]:
    return tuple(
        Check(
            flops=float(r.flops_H[i]),
            **r.forecaster.as_dict(),
            predicted=known(r.predicted_H[i]),
            observed=float(r.observed_H[i]),
            error=known(r.minimum_error_H[i]),
            params_error=known(r.params_error_H[i]),
            fitted_up_to=r.fitted_up_to,
            runs=r.runs,
        )
        for r in results
        for i in range(len(r.flops_H))
    )


_NOTHING = Prediction(None, None, None, None, None, None, None, None)


def forecast(
    sources: Sequence[Source], flops: float, runs: Runs, rng: np.random.Generator
) -> Forecast:
    every = tuple(one_forecast(source, flops, rng) for source in sources)
    head = every[0] if every else _NOTHING
    decades = diagnosis.decades_beyond(flops, runs)
    return Forecast(**vars(head), flops=flops, decades=decades, every=every)


def influences(variants: Sequence[Influence], cost: FlopsModel, at_flops: float) -> Influences:
    kinds: dict[str, Any] = {
        "leave_one_budget_out": BudgetLeftOut,
        "drop_top": TopDropped,
        "delta": OtherDelta,
    }
    found: dict[str, Any] = dict.fromkeys(kinds, ())
    for variant in variants:
        a, _ = variant.frontier.exponents(cost)
        params, tokens = variant.frontier.optimum(at_flops, cost)
        found[variant.kind] = tuple(
            kinds[variant.kind](
                **{variant.key: float(variant.value_B[i])},
                a=known(a[i]),
                alpha=float(variant.surface[i].alpha),
                beta=float(variant.surface[i].beta),
                E=float(variant.surface[i].E),
                objective=known(variant.objective_B[i]),
                params=known(params[i]),
                tokens_per_param=known(tokens[i] / params[i]),
                at_flops=at_flops,
                at_bound=tuple(np.array(PARAMETERS)[variant.bound_BxP[i]].tolist()),
            )
            for i in range(len(variant.value_B))
        )
    return Influences(**found)


def convention(
    params: str,
    flops: str,
    runs: Runs,
    refusal: Refusal | None,
    fit: SurfaceFit | None,
    drawn: SurfaceDraws | None,
    cost: FlopsModel,
    laws: dict[str, PowerLaws | None],
    chosen: bool,
) -> Convention:
    a = b = spread = None
    if fit is not None and fit.identified:
        a, b = (float(x) for x in fit.surface.exponents(cost))
        if drawn is not None:
            spread = {"a": interval(drawn.frontier.exponents(cost)[0])}
    return Convention(
        params=params,
        flops=flops,
        runs=len(runs),
        status="ok" if refusal is None else "refused",
        reason=None if refusal is None else refusal.reason,
        surface_a=a,
        surface_b=b,
        interval=spread,
        **{f"{m}_a": None if law is None else known(law.a[0]) for m, law in laws.items()},
        chosen=chosen,
    )


_MINIMA = ("a", "ln_params_at_1", "b", "ln_tokens_at_1", "E", "A", "exponent")


def _first(sources: Sequence[Source], kind: type[T]) -> T | None:
    return next((source for source in sources if isinstance(source, kind)), None)


def sources(found: Sequence[Source]) -> Sources:
    """The fits behind `draws`: the surface that hold-out prefers, and the laws of the minima."""
    surface, minima = _first(found, SurfaceForecast), _first(found, MinimaForecast)
    of_surface = of_minima = None
    if surface is not None:
        values = dict(zip(PARAMETERS, map(float, surface.surface.columns()), strict=True))
        of_surface = SurfaceSource(surface.forecaster.selection, **values, noise=surface.noise)
    if minima is not None:
        assert minima.fit.laws is not None and minima.fit.loss_law is not None
        columns = _minima_columns(minima.fit.laws, minima.fit.loss_law)
        values = {name: float(x[0]) for name, x in zip(_MINIMA, columns, strict=True)}
        of_minima = MinimaSource(minima.minima, **values, noise=minima.noise)
    return Sources(of_surface, of_minima)


def _minima_columns(laws: PowerLaws, law: LossLaw) -> tuple[Floats, ...]:
    return (laws.a, laws.log_params_1, laws.b, laws.log_tokens_1, law.E, law.A, law.exponent)


def draws(found: Sequence[Source]) -> Draws:
    surface, minima = _first(found, SurfaceForecast), _first(found, MinimaForecast)
    of_surface = of_minima = None
    if surface is not None and surface.draws is not None:
        columns = [*surface.draws.frontier.columns(), surface.draws.noise]
        rows = np.stack([np.asarray(x) for x in columns], axis=1)
        of_surface = DrawTable((*PARAMETERS, "noise"), rows)
    if minima is not None and minima.fit.draws is not None:
        drawn = minima.fit.draws
        if drawn.loss_law is not None:
            rows = np.stack(_minima_columns(drawn.laws, drawn.loss_law), axis=1)
            of_minima = DrawTable(_MINIMA, rows)
    return Draws(of_surface, of_minima)
