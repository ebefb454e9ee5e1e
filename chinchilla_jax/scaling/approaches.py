"""The loss surface and the iso-FLOP minima of one table of runs, with their draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.beside import beside
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws, surface_draws
from chinchilla_jax.scaling.fitting.isoflop import METHODS, Profile, profiles
from chinchilla_jax.scaling.fitting.minima import MinimaFit, fit_minima
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.noise import Noise, noise_model, run_weights
from chinchilla_jax.scaling.fitting.outlying import without_outlying
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import SurfaceFit, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

Streams = Callable[[int], np.random.Generator]
"""Part of the work -> its random numbers, so that parts do not disturb each other."""


@dataclass(frozen=True)
class Approaches:
    """What the runs of one condition give; None where a part was refused or not asked for."""

    runs: Runs  # as counted under Settings.params and Settings.flops
    flops_model: FlopsModel
    profiles: tuple[Profile, ...]
    near: tuple[Profile, ...]  # without runs that pull a minimum below all: minima are theirs
    noise: Noise
    refusal: Refusal | None  # of the surface
    fit: SurfaceFit | None
    surface_draws: SurfaceDraws | None
    minima: dict[str, MinimaFit]  # by method
    head: MinimaFit  # the method of Settings.minima

    @property
    def residual_R(self) -> Floats | None:
        """ln(predicted) - ln(observed) of the surface, in the order of runs."""
        return None if self.fit is None else self.fit.residual_R


def approaches(
    runs: Runs, settings: Settings, streams: Streams, cost: FlopsModel | None = None
) -> Approaches:
    """Fits both to `runs`; parts 0, 1 and 2 of the streams are used.

    `cost` is what a run costs where that is known from more runs than these.
    """
    cost = cost or FlopsModel.of(runs.params, runs.tokens, runs.flops)
    found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
    near = without_outlying(found)
    noise = noise_model(near, runs.cell_R(), runs.loss)
    objective = Objective(settings.objective, settings.delta)
    weights_R = run_weights(
        noise, found, len(runs), objective.loss == "squared", runs.columns.get("weight")
    )
    tried = [*zip(runs.flops.tolist(), runs.params.tolist(), strict=True)]

    def minima_by_method() -> dict[str, MinimaFit]:
        return {
            method: fit_minima(method, near, noise, settings.draws, streams(1 + i), tried)
            for i, method in enumerate(METHODS)
        }

    refusal = surface_refusal(runs, settings.tied)
    fit = draws = None
    with beside(minima_by_method) as found_minima:
        if refusal is None:
            columns = (runs.params, runs.tokens, runs.loss)
            fit = fit_surface(*columns, weights_R, objective, settings.tied)
            draws = surface_draws(fit, settings.draws, streams(0)) if settings.draws else None
        minima = found_minima()
    return Approaches(
        runs=runs,
        flops_model=cost,
        profiles=tuple(found),
        near=tuple(near),
        noise=noise,
        refusal=refusal,
        fit=fit,
        surface_draws=draws,
        minima=minima,
        head=minima[settings.minima],
    )
