"""The same runs with something changed: left out, weighed otherwise, counted otherwise."""

from typing import Any

import numpy as np

from chinchilla_jax.scaling.approaches import Approaches
from chinchilla_jax.scaling.arrays import known
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.doubt.uncertainty import influence, surface_draws
from chinchilla_jax.scaling.fits import (
    BudgetLeftOut,
    Convention,
    Influences,
    OtherDelta,
    TopDropped,
)
from chinchilla_jax.scaling.fitting.estimators import METHODS, Estimator
from chinchilla_jax.scaling.fitting.intervals import interval
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.noise import noise_model
from chinchilla_jax.scaling.fitting.outlying import without_outlying
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conventions import available
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

_DRAWS = 400  # of another convention


def influences(each: Approaches, at_flops: float) -> Influences:
    """The surface when a budget is left out, the highest losses are, or delta is another."""
    runs, fit, cost = each.runs, each.fit, each.flops_model
    variants = [] if fit is None else influence(fit, runs.group_R, runs.budget_G)
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


def conventions(given: Runs, chosen: Approaches, settings: Settings) -> tuple[Convention, ...]:
    """The exponent a under every count of parameters and FLOPs that the table allows."""
    rng = np.random.default_rng([settings.seed, 6])
    return tuple(
        _convention(params, flops, runs, chosen, settings, rng)
        for params, flops, runs in available(given)
    )


def _convention(
    params: str,
    flops: str,
    runs: Runs,
    chosen: Approaches,
    settings: Settings,
    rng: np.random.Generator,
) -> Convention:
    same = np.array_equal(runs.params, chosen.runs.params)
    same &= np.array_equal(runs.flops, chosen.runs.flops)
    cost = FlopsModel.of(runs.params, runs.tokens, runs.flops)
    refusal = surface_refusal(runs, settings.tied)
    fit, drawn, minima = chosen.fit, chosen.surface_draws, chosen.minima
    if not same:
        fit = drawn = None
        if refusal is None:
            columns = (runs.params, runs.tokens, runs.loss)
            objective = Objective(settings.objective, settings.delta)
            fit = fit_surface(*columns, None, objective, settings.tied, count=8)
            count = min(settings.draws, _DRAWS)
            like, trunk_R = chosen.surface_draws, runs.trunk_R()
            drawn = surface_draws(fit, count, rng, like, trunk_R) if count else None
        found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
        found = without_outlying(found)
        noise = noise_model(found, runs.cell_R(), runs.loss, runs.flops, runs.trunk_R())
        minima = {method: fit_minima(Estimator(method), found, noise, 0, rng) for method in METHODS}
    laws = {method: each.laws for method, each in minima.items()}
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
        chosen=same,
    )
