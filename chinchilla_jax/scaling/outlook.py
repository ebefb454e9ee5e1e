"""The sections of fits.json that look ahead: hold-out, forecasts, influence, conventions, draws."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.doubt.holdout import Forecaster, HeldOut, Score
from chinchilla_jax.scaling.doubt.uncertainty import Influence, SurfaceDraws
from chinchilla_jax.scaling.fitting.intervals import interval
from chinchilla_jax.scaling.fitting.isoflop import METHODS, PowerLaws
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import FlopsModel, SurfaceFit
from chinchilla_jax.scaling.prediction import MinimaForecast, Source, SurfaceForecast
from chinchilla_jax.scaling.prediction import forecast as one_forecast
from chinchilla_jax.scaling.table.runs import Runs

Section = dict[str, Any]

_SURFACE = ("E", "A", "B", "alpha", "beta")


def held_out(
    results: Sequence[HeldOut],
    ranking: Sequence[Score],
    chosen: Forecaster,
    why: str,
    method: str,
) -> Section:
    folds = {r.fitted_up_to: r.flops_H.tolist() for r in results}
    return {
        "status": "ok" if results else "refused",
        "reason": None if results else "fewer than four budgets have a minimum",
        "minima": method,
        "folds": [{"fitted_up_to": c, "held_out": h} for c, h in sorted(folds.items())],
        "errors": [_held_out(r) for r in results],
        "summary": [
            {
                **score.forecaster.as_dict(),
                "minima_rms": score.minima_rms,
                "minima_bias": score.minima_bias,
                "cells_rms": score.cells_rms,
                "forecasts": score.forecasts,
            }
            for score in ranking
        ],
        "best": {**chosen.as_dict(), "reason": why},
    }


def _rms(x: Floats) -> float | None:
    return float(np.sqrt(np.mean(x**2))) if len(x) else None


def _held_out(r: HeldOut) -> Section:
    columns = zip(r.flops_H, r.predicted_H, r.observed_H, r.minimum_error_H, strict=True)
    names = ("flops", "predicted", "observed", "error")
    return {
        **r.forecaster.as_dict(),
        "fitted_up_to": r.fitted_up_to,
        "runs": r.runs,
        "minima": [dict(zip(names, row, strict=True)) for row in columns],
        "params_rms": _rms(r.params_error_H),
        "cells_rms": _rms(r.cell_error_R),
        "cells_bias": float(np.mean(r.cell_error_R)) if len(r.cell_error_R) else None,
    }


def checked(results: Sequence[HeldOut]) -> list[Section]:
    return [
        {
            "flops": r.flops_H[i],
            **r.forecaster.as_dict(),
            "predicted": r.predicted_H[i],
            "observed": r.observed_H[i],
            "error": r.minimum_error_H[i],
            "params_error": r.params_error_H[i],
            "fitted_up_to": r.fitted_up_to,
            "runs": r.runs,
        }
        for r in results
        for i in range(len(r.flops_H))
    ]


def forecast(
    sources: Sequence[Source], flops: float, runs: Runs, rng: np.random.Generator
) -> Section:
    every = [one_forecast(source, flops, rng) for source in sources]
    nothing = ("form", "selection", "minima", "params", "tokens", "tokens_per_param", "loss")
    head = every[0] if every else {**dict.fromkeys(nothing), "interval": None}
    decades = diagnosis.decades_beyond(flops, runs)
    return {"flops": flops, **head, "decades": decades, "every": every}


def influences(variants: Sequence[Influence], cost: FlopsModel, at_flops: float) -> Section:
    section: Section = {"leave_one_budget_out": [], "drop_top": [], "delta": []}
    for variant in variants:
        a, _ = variant.surface.exponents(cost)
        params, tokens = variant.surface.optimum(at_flops, cost)
        section[variant.kind] = [
            {
                variant.key: variant.value_B[i],
                "a": a[i],
                "alpha": variant.surface[i].alpha,
                "beta": variant.surface[i].beta,
                "E": variant.surface[i].E,
                "objective": variant.objective_B[i],
                "params": params[i],
                "tokens_per_param": tokens[i] / params[i],
                "at_flops": at_flops,
            }
            for i in range(len(variant.value_B))
        ]
    return section


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
) -> Section:
    known = fit is not None and fit.identified
    a, b = fit.surface.exponents(cost) if fit is not None and known else (None, None)
    by_method = {m: None if (law := laws[m]) is None else law.a[0] for m in METHODS}
    return {
        "params": params,
        "flops": flops,
        "runs": len(runs),
        "status": "ok" if refusal is None else "refused",
        "reason": None if refusal is None else refusal.reason,
        "surface_a": a,
        "surface_b": b,
        "interval": {"a": interval(drawn.surface.exponents(cost)[0])}
        if drawn is not None and known
        else None,
        **{f"{method}_a": value for method, value in by_method.items()},
        "chosen": chosen,
    }


_MINIMA = ("a", "ln_params_at_1", "b", "ln_tokens_at_1", "E", "A", "exponent")


def _first(sources: Sequence[Source], kind: type) -> Any:
    return next((source for source in sources if isinstance(source, kind)), None)


def sources(found: Sequence[Source]) -> Section:
    """The fits behind `draws`: the surface that hold-out prefers, and the laws of the minima."""
    surface, minima = _first(found, SurfaceForecast), _first(found, MinimaForecast)
    section: Section = {"surface": None, "minima": None}
    if surface is not None:
        selection = surface.forecaster.selection
        noise = surface.noise
        section["surface"] = {"selection": selection, **asdict(surface.surface), "noise": noise}
    if minima is not None:
        laws, law = minima.fit.laws, minima.fit.loss_law
        values = (laws.a, laws.log_params_1, laws.b, laws.log_tokens_1, law.E, law.A, law.exponent)
        named = {name: value[0] for name, value in zip(_MINIMA, values, strict=True)}
        section["minima"] = {"method": minima.minima, **named, "noise": minima.noise}
    return section


def draws(found: Sequence[Source]) -> Section:
    surface, minima = _first(found, SurfaceForecast), _first(found, MinimaForecast)
    section: Section = {"surface": None, "minima": None}
    if surface is not None and surface.draws is not None:
        columns = [*surface.draws.surface.columns(), surface.draws.noise]
        rows = np.stack([np.asarray(x) for x in columns], axis=1)
        section["surface"] = {"columns": [*_SURFACE, "noise"], "rows": rows}
    if minima is not None and minima.fit.draws is not None:
        laws, law = minima.fit.draws.laws, minima.fit.draws.loss_law
        if law is not None:
            values = (laws.a, laws.log_params_1, laws.b, laws.log_tokens_1)
            rows = np.stack([*values, law.E, law.A, law.exponent], axis=1)
            section["minima"] = {"columns": list(_MINIMA), "rows": rows}
    return section
