"""The loss surface and the iso-FLOP minima of one table of runs, with their draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.beside import beside
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.doubt.holdout import COUPLED
from chinchilla_jax.scaling.doubt.rolling import AVERAGED, fit_forms
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws, surface_draws
from chinchilla_jax.scaling.fitting.estimators import METHODS, Choice, Estimator, choose
from chinchilla_jax.scaling.fitting.isoflop import Profile, profiles
from chinchilla_jax.scaling.fitting.minima import MinimaFit, fit_minima
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.noise import (
    Noise,
    noise_model,
    run_weights,
    with_surface,
)
from chinchilla_jax.scaling.fitting.outlying import without_outlying
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import SurfaceFit, fit_surface
from chinchilla_jax.scaling.settings import CHOSEN, Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

_WHOLE = tuple(map(Estimator, METHODS))  # through all sizes
_FURTHER_DRAWS = 400  # of the estimators that do not head the report
Streams = Callable[[int], np.random.Generator]
"""Part of the work -> its random numbers, so that parts do not disturb each other."""


@dataclass(frozen=True)
class Fitted:
    """What all else rests on: budgets, noise and the surface; None where that was refused."""

    runs: Runs  # as counted under Settings.params and Settings.flops
    flops_model: FlopsModel
    profiles: tuple[Profile, ...]
    near: tuple[Profile, ...]  # without runs that pull a minimum below all: minima are theirs
    noise: Noise
    refusal: Refusal | None  # of the surface
    fit: SurfaceFit | None

    @property
    def residual_R(self) -> Floats | None:
        """ln(predicted) - ln(observed) of the surface, in the order of runs."""
        return None if self.fit is None else self.fit.residual_R


@dataclass(frozen=True)
class Approaches(Fitted):
    """What the runs of one condition give; None where a part was refused or not asked for."""

    surface_draws: SurfaceDraws | None
    forms: dict[str, SurfaceFit]  # every form of surface on all runs, `fit` among them
    minima: dict[str, MinimaFit]  # by method, through all sizes
    choice: Choice  # of the estimator of the minima
    head: MinimaFit  # by that estimator
    by_estimator: dict[Estimator, MinimaFit]  # by every one that was tried, without draws


def basis(runs: Runs, settings: Settings, cost: FlopsModel | None = None) -> Fitted:
    """The surface of `runs` and their noise; `cost` as of `approaches`."""
    cost = cost or FlopsModel.of(runs.params, runs.tokens, runs.flops)
    found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
    near = without_outlying(found)
    noise = noise_model(near, runs.cell_R(), runs.loss, runs.flops, runs.trunk_R())
    objective = Objective(settings.objective, settings.delta)
    weights_R = run_weights(
        noise, found, runs.flops, objective.loss == "squared", runs.columns.get("weight")
    )
    refusal = surface_refusal(runs, settings.tied)
    surface = None
    if refusal is None:
        columns = (runs.params, runs.tokens, runs.loss)
        surface = fit_surface(*columns, weights_R, objective, settings.tied)
        noise = with_surface(noise, near, surface.residual_R, parameters=4 if settings.tied else 5)
    return Fitted(runs, cost, tuple(found), tuple(near), noise, refusal, surface)


def approaches(
    runs: Runs,
    settings: Settings,
    streams: Streams,
    cost: FlopsModel | None = None,
    every: bool = True,
) -> Approaches:
    """Fits both to `runs`; parts 0, 1 and 2 of the streams are used.

    `cost` is what a run costs where that is known from more runs than these. Without `every` there
    are only those that a forecast of N* and L* rests on: the head, and COUPLED beside the surface.
    """
    rests = basis(runs, settings, cost)
    surface, near, noise = rests.fit, rests.near, rests.noise
    asked = [*zip(runs.flops.tolist(), runs.params.tolist(), strict=True)]
    draws = None

    def fitted() -> dict[str, Any]:
        if settings.minima == CHOSEN:
            choice = choose(near)
        else:
            choice = Choice.only(settings.minima, near, "asked for")
        tried = {trial.estimator: trial.curves for trial in choice.trials}
        few = min(settings.draws, _FURTHER_DRAWS)

        def fit(estimator: Estimator) -> MinimaFit:
            chosen, whole = estimator == choice.estimator, estimator.within is None
            return fit_minima(
                estimator, near, noise, settings.draws if chosen else few if whole else 0,
                streams(1 if chosen else 2), asked, choice.trials if chosen else (),
                tried.get(estimator), loss_law=chosen or whole,
            )  # fmt: skip

        wanted = {**tried, **dict.fromkeys(_WHOLE)} if every else [choice.estimator]
        forms = AVERAGED if every else tuple(COUPLED.values())
        fits = {estimator: fit(estimator) for estimator in wanted}
        return {
            "choice": choice,
            "head": fits[choice.estimator],
            "minima": {e.method: fits[e] for e in _WHOLE if e in fits},
            "by_estimator": fits,
            "forms": {} if surface is None else fit_forms(surface, runs, forms),
        }

    with beside(fitted) as others:
        if surface is not None and settings.draws:
            draws = surface_draws(surface, settings.draws, streams(0), trunk_R=runs.trunk_R())
        fits = others()
    return Approaches(**vars(rests), surface_draws=draws, **fits)
