"""What lies beyond the runs: hold-out, forecasts, and forecasts checked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from chinchilla_jax.scaling.approaches import Approaches, Streams, approaches
from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.doubt.diagnosis import decades_beyond
from chinchilla_jax.scaling.doubt.holdout import ALL, SELECTIONS, HeldOut
from chinchilla_jax.scaling.fits import (
    BestForecast,
    Check,
    Draws,
    Fold,
    FoldErrors,
    Forecast,
    ForecastScore,
    HeldOutMinimum,
    Holdout,
    MinimaSource,
    Prediction,
    Sources,
    SurfaceSource,
)
from chinchilla_jax.scaling.fitting.intervals import Interval, Intervals, interval
from chinchilla_jax.scaling.forecast.candidates import Candidates, candidates
from chinchilla_jax.scaling.forecast.frontier import from_source
from chinchilla_jax.scaling.forecast.questions import at_flops
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.sections.surfaces import Surfaces
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.runs import Runs


def held_out(found: Candidates, method: str) -> Holdout:
    """Every fold, every form's score, and the form that was chosen."""
    folds = {r.fitted_up_to: r.flops_H.tolist() for r in found.held}
    return Holdout(
        status="ok" if found.held else "refused",
        reason=None if found.held else "fewer than four budgets have a minimum",
        minima=method,
        folds=tuple(Fold(c, tuple(h)) for c, h in sorted(folds.items())),
        errors=tuple(map(_fold_errors, found.held)),
        summary=tuple(
            ForecastScore(
                **score.forecaster.as_dict(),
                minima_rms=known(score.minima_rms),
                minima_bias=known(score.minima_bias),
                cells_rms=score.cells_rms and known(score.cells_rms),
                forecasts=score.forecasts,
            )
            for score in found.ranking
        ),
        best=BestForecast(**found.chosen.as_dict(), reason=found.why),
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


def forecast(
    sources: Sequence[Source], flops: float, runs: Runs, rng: np.random.Generator
) -> Forecast:
    """What every source predicts for a budget, the first of them as the headline."""
    every = tuple(prediction(source, flops, rng) for source in sources)
    head = every[0] if every else Prediction(None, None, None, None, None, None, None, None)
    return Forecast(**vars(head), flops=flops, decades=decades_beyond(flops, runs), every=every)


def prediction(source: Source, flops: float, rng: np.random.Generator) -> Prediction:
    """The best run of a budget by one source, and where one more run would fall."""
    answer = at_flops(from_source(source), flops)
    spread: Intervals | None = None
    if source.drawn is not None:
        loss = source.drawn(np.array([flops])).loss
        assert loss is not None
        one_more = loss * np.exp(source.noise * rng.standard_normal(len(loss)))
        spread = answer.interval | {"new_run": _both(interval(one_more), answer.interval["loss"])}
    return Prediction(
        form=source.forecaster.form,
        selection=source.forecaster.selection,
        minima=source.minima,
        params=known(answer.params),
        tokens=known(answer.tokens),
        tokens_per_param=known(answer.tokens_per_param),
        loss=answer.loss,
        interval=spread,
    )


def _both(a: Interval | None, b: Interval | None) -> Interval | None:
    """The interval from the lower end to the upper."""
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def checked(each: Approaches, settings: Settings, streams: Streams) -> tuple[Check, ...]:
    """Forecasts by the runs up to Settings.holdout_above alone against the minima beyond.

    Everything is fitted, chosen and drawn anew on the early runs. Empty where no budget at or
    below it, or none beyond, has a minimum.
    """
    assert settings.holdout_above is not None
    flops_G = np.array([profile.flops for profile in each.profiles])
    early_G = each.head.good_G & (flops_G <= settings.holdout_above * (1 + 1e-9))
    late = np.flatnonzero(each.head.good_G & ~early_G)
    if not early_G.any():
        return ()
    cut = float(flops_G[early_G].max())
    early = each.runs.select(each.runs.flops <= cut * 1.1)
    fitted = approaches(early, settings, streams, each.flops_model)
    found = candidates(fitted, settings, streams(3), every=True)
    rows = []
    for source in found.sources:
        selection = SELECTIONS.get(source.forecaster.selection, SELECTIONS[ALL])
        count = selection(early).sum() if source.minima is None else early_G.sum()
        for g in late:
            row = prediction(source, float(flops_G[g]), streams(4))
            measured = {
                "params": float(each.head.params_G[g]),
                "tokens": float(each.head.tokens_G[g]),
                "loss": float(each.head.loss_G[g]),
            }
            spread = {name: (row.interval or {}).get(name) for name in measured}
            rows.append(
                Check(
                    flops=float(flops_G[g]),
                    **source.forecaster.as_dict(),
                    chosen=source.forecaster == found.chosen,
                    predicted=row.loss,
                    observed=measured["loss"],
                    error=_error(row.loss, measured["loss"]),
                    predicted_params=row.params,
                    observed_params=measured["params"],
                    params_error=_error(row.params, measured["params"]),
                    predicted_tokens=row.tokens,
                    observed_tokens=measured["tokens"],
                    tokens_error=_error(row.tokens, measured["tokens"]),
                    interval=None if row.interval is None else spread,
                    inside_interval={n: _inside(measured[n], spread[n]) for n in measured},
                    fitted_up_to=cut,
                    runs=int(count),
                )
            )
    return tuple(rows)


def _error(predicted: float | None, measured: float) -> float | None:
    return None if predicted is None else known(np.log(predicted / measured))


def _inside(value: float, ends: Interval | None) -> bool | None:
    return None if ends is None else ends[0] <= value <= ends[1]


def kept(found: Candidates, family: Surfaces) -> tuple[Sources, Draws]:
    """What `forecast` will rest on: of each form the one that hold-out prefers, with its draws."""
    surfaces: list[SurfaceSource] = []
    of_surface = minima = of_minima = None
    for source in found.sources:
        if isinstance(source.fit, MinimaSource):
            minima, of_minima = source.fit, source.draws
        elif surfaces:
            surfaces.append(replace(source.fit, held_out=None))
        else:
            surfaces, of_surface = [source.fit], source.draws
    surface, beside = next(iter(surfaces), None), tuple(surfaces[1:])
    sources = Sources(surface, minima, family.runs, beside)
    return sources, Draws(of_surface, of_minima, family.draws)
