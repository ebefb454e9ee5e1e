"""Repeated data: tokens seen again count for less, and so do parameters beyond what they feed.

D' = U + U R_D* (1 - exp(-R_D/R_D*)), with U unique tokens and R_D = D/U - 1 repetitions; N'
likewise from U_N, the size that the surface holds optimal for U tokens, and R_N = N/U_N - 1. As in
the paper alpha = beta, so U_N = U (A/B)^(1/alpha).
"""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values


def _saturating(amount: Array, unique: Array, decay: Array) -> Array:
    """Effective amount when each further pass over `unique` is worth exp(-1/decay) of the last."""
    repeats = amount / unique - 1
    return np.asarray(unique * (1 + decay * (1 - np.exp(-repeats / decay))))


def effective(
    decay_D: Array, decay_N: Array, params_per_token: Array, x: Values
) -> tuple[Array, Array]:
    """Effective parameters N' and tokens D' (equations 5 and 6 of the paper)."""
    unique = np.minimum(x["unique_tokens"], x["tokens"])
    unique_params = np.minimum(unique * params_per_token, x["params"])
    return (
        _saturating(x["params"], unique_params, decay_N),
        _saturating(x["tokens"], unique, decay_D),
    )


def _form(p: Values, x: Values) -> Array:
    params_per_token = (p["A"] / p["B"]) ** (1 / p["alpha"])
    params, tokens = effective(p["R_D"], p["R_N"], params_per_token, x)
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["alpha"]


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    params, tokens = effective(p["R_D"], p["R_N"], p["params_per_token"], x)
    return (np.ones_like(params), params ** -p["alpha"], tokens ** -p["alpha"]), np.ones(())


def _natural(p: Values, c: Sequence[Array]) -> dict[str, Array]:
    # The search treats params_per_token as free; in the law A, B and alpha imply it.
    return {
        "E": c[0], "A": c[1], "B": c[2], "alpha": p["alpha"], "R_D": p["R_D"], "R_N": p["R_N"]
    }  # fmt: skip


REPETITION = Law(
    name="repetition",
    formula="L = E + A/N'^alpha + B/D'^alpha, D' = U + U R_D (1 - exp(-(D/U-1)/R_D)), N' likewise",
    source="Muennighoff et al. 2023, arXiv 2305.16264, equations 5 and 6",
    columns=("params", "tokens", "unique_tokens"),
    parameters=("E", "A", "B", "alpha", "R_D", "R_N"),
    form=_form,
    ranges={
        "alpha": (0.1, 0.8),
        "R_D": (1.0, 60.0),
        "R_N": (1.0, 60.0),
        "params_per_token": (0.005, 0.5),
    },
    linear=_linear,
    natural=_natural,
    ordinary={"unique_tokens": "tokens"},
    apart=("data_noise", "data_quality", "data_keep", "data_curated"),
)
