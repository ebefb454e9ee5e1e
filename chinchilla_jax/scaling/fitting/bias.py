"""What a way of finding minima would miss without noise, if the fitted surface were the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.fitting.estimators import curves
from chinchilla_jax.scaling.fitting.isoflop import Profile, power_laws
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel


@dataclass(frozen=True)
class BiasAt:
    """Relative errors of a method at one budget: -.05 is 5 % low."""

    flops: float
    params: float | None
    tokens: float | None


@dataclass(frozen=True)
class Bias:
    """What a method misses without noise: differences of exponents, and errors at budgets."""

    a: float | None
    b: float | None
    at: tuple[BiasAt, ...]


def expected_bias(
    method: str,
    found: Sequence[Profile],
    weights_G: Floats,
    surface: Surface,
    cost: FlopsModel,
    at_flops: Floats,
) -> Bias | None:
    """Errors that `method` makes on noise-free losses of `surface` at the very same runs."""
    log_flops, log_params, log_tokens, weights = [], [], [], []
    made = [
        replace(p, loss_S=surface.loss(np.exp(p.log_params_S), np.exp(p.log_tokens_S)))
        for p in found
    ]
    for profile, weight, lowest in zip(
        found, weights_G, curves(method, made).minima(), strict=True
    ):
        log_flops.append(np.log(profile.flops))
        log_params.append(lowest.log_params_B[0])
        log_tokens.append(float(np.log(profile.tokens_at(lowest.log_params_B)[0])))
        weights.append(weight if lowest.good_B[0] else 0.0)
    if np.count_nonzero(weights) < 2:
        return None
    laws = power_laws(
        np.array(log_flops), np.array([log_params]), np.array([log_tokens]), np.array([weights])
    )
    true_a, true_b = surface.exponents(cost)
    true_params, true_tokens = surface.optimum(at_flops, cost)
    params, tokens = laws.at(at_flops)
    errors = (params / true_params - 1, tokens / true_tokens - 1)
    return Bias(
        known(laws.a[0] - true_a),
        known(laws.b[0] - true_b),
        tuple(
            BiasAt(float(c), known(n), known(d)) for c, n, d in zip(at_flops, *errors, strict=True)
        ),
    )
