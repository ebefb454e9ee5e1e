"""Kaplan's L(N, D): no floor; size and data combine under one outer power."""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values


def _form(p: Values, x: Values) -> Array:
    ratio = p["alpha_N"] / p["alpha_D"]
    return ((p["N_c"] / x["params"]) ** ratio + p["D_c"] / x["tokens"]) ** p["alpha_D"]


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    size = x["params"] ** -(p["alpha_N"] / p["alpha_D"])
    return (size, 1 / x["tokens"] + np.zeros_like(size)), p["alpha_D"]


def _natural(p: Values, c: Sequence[Array]) -> dict[str, Array]:
    return {**p, "N_c": c[0] ** (p["alpha_D"] / p["alpha_N"]), "D_c": c[1]}


KAPLAN = Law(
    name="kaplan",
    formula="L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
    source="Kaplan et al. 2020, arXiv 2001.08361, equation 1.5; N counts non-embedding parameters",
    columns=("params", "tokens"),
    parameters=("alpha_N", "alpha_D", "N_c", "D_c"),
    form=_form,
    ranges={"alpha_N": (0.02, 0.4), "alpha_D": (0.02, 0.6)},
    linear=_linear,
    natural=_natural,
)
