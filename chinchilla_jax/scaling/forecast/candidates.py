"""Every forecast that a table of runs allows, and the one that hold-out prefers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.approaches import Approaches
from chinchilla_jax.scaling.doubt import holdout
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.doubt.form_error import held_out_error
from chinchilla_jax.scaling.doubt.holdout import COUPLED, SELECTIONS, Forecaster, HeldOut, Score
from chinchilla_jax.scaling.doubt.uncertainty import surface_draws
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.surface import SurfaceFit, fit_surface
from chinchilla_jax.scaling.forecast.source import Source, of_minima, of_surface
from chinchilla_jax.scaling.settings import Settings

_COUPLED_DRAWS = 1000  # which take longer each, and are enough for an interval


@dataclass(frozen=True)
class Candidates:
    """`sources` are what forecasts may rest on, the chosen one first, then as hold-out ranks them.

    `why` it was chosen.
    """

    held: tuple[HeldOut, ...]
    ranking: tuple[Score, ...]
    chosen: Forecaster
    why: str
    sources: tuple[Source, ...]


def candidates(
    each: Approaches, settings: Settings, rng: np.random.Generator, every: bool = False
) -> Candidates:
    """Draws are made for the chosen one, or for every one; all runs and minima have theirs."""
    held = holdout.hold_out(
        each.runs, each.fit, each.flops_model, each.profiles, each.head, each.forms
    )
    ranking = holdout.scores(held)
    parts, trunk_R = _parts(each, settings), each.runs.trunk_R()
    runs = (each.flops_model, float(each.runs.flops.max()))
    found = [of_minima(each.head, float(each.noise.at(runs[1])), *runs)]
    found += [of_surface(name, fit, None, *runs) for name, fit in parts.items()]
    known = [source for source in found if source is not None]
    # Hold-out may prefer what is refused on all runs, or a selection that keeps every run.
    chosen, why = holdout.best(
        ranking, _noise_of_minimum(each.head), [source.forecaster for source in known]
    )
    sources = []
    for source in known:
        name, draws = source.forecaster.selection, None
        if source.forecaster == Forecaster("surface", holdout.ALL):
            draws = each.surface_draws
        elif name in parts and settings.draws and (every or source.forecaster == chosen):
            count = min(settings.draws, _COUPLED_DRAWS) if name in COUPLED else settings.draws
            kept_R = SELECTIONS[name](each.runs) if name in SELECTIONS else slice(None)
            of_trunks = None if trunk_R is None else trunk_R[kept_R]
            draws = surface_draws(parts[name], count, rng, trunk_R=of_trunks)
        if draws is not None:
            source = of_surface(name, parts[name], draws, *runs)
        sources.append(source)
    order = {score.forecaster: place for place, score in enumerate(ranking)}
    sources.sort(key=lambda s: (s.forecaster != chosen, order.get(s.forecaster, len(order))))
    checked = [
        source.checked_by(
            held_out_error(held, source.forecaster, [s.forecaster for s in sources]),
            [s for s in sources if s is not source],
        )
        for source in sources
    ]
    return Candidates(tuple(held), tuple(ranking), chosen, why, tuple(checked))


def _parts(each: Approaches, settings: Settings) -> dict[str, SurfaceFit]:
    """The surface of every selection of runs, and form on all, that gives one with an optimum."""
    fit, found = each.fit, {}
    if fit is None or not fit.identified:
        return {}
    for name, select in SELECTIONS.items():
        keep_R = select(each.runs)
        part: SurfaceFit | None = fit if name == holdout.ALL else None
        kept = each.runs.select(keep_R)
        if part is None and not keep_R.all() and surface_refusal(kept, settings.tied) is None:
            part = fit_surface(
                kept.params, kept.tokens, kept.loss, fit.weights_R[keep_R], fit.objective, fit.tied
            )
        if part is not None and part.identified:
            found[name] = part
    coupled = {name: each.forms[form] for name, form in COUPLED.items() if form in each.forms}
    return found | {name: part for name, part in coupled.items() if part.identified}


def _noise_of_minimum(fit: MinimaFit) -> float:
    """Typical standard error of ln loss at a minimum; 0 where it is not known."""
    errors = fit.errors.log_loss_G[fit.good_G]
    return float(np.median(errors)) if len(errors) else 0.0
