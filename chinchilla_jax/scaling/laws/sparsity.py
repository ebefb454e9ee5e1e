"""Sparse training: a power law in the non-zero parameters whose constant depends on sparsity."""

from collections.abc import Mapping, Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values


def _form(p: Values, x: Values) -> Array:
    constant = p["a_S"] * (1 - x["sparsity"]) ** p["b_S"] + p["c_S"]
    size = constant * x["nonzero_params"] ** -p["b_N"]
    return size + (p["a_D"] / x["tokens"]) ** p["b_D"] + p["c"]


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    size = x["nonzero_params"] ** -p["b_N"]
    data = x["tokens"] ** -p["b_D"]
    return ((1 - x["sparsity"]) ** p["b_S"] * size, size, data, np.ones_like(size)), np.ones(())


def _natural(p: Values, c: Sequence[Array]) -> dict[str, Array]:
    return {**p, "a_S": c[0], "c_S": c[1], "a_D": c[2] ** (1 / p["b_D"]), "c": c[3]}


def dense_size_multiplier(parameters: Mapping[str, float], sparsity: float) -> float:
    """How many times larger a dense model matches a sparse one with as many non-zero parameters.

    ((a_S (1-S)^b_S + c_S) / (a_S + c_S))^(-1/b_N): section 3 of the paper.
    """
    p = parameters
    ratio = (p["a_S"] * (1 - sparsity) ** p["b_S"] + p["c_S"]) / (p["a_S"] + p["c_S"])
    return float(ratio ** (-1 / p["b_N"]))


SPARSITY = Law(
    name="sparsity",
    formula="L = (a_S (1-S)^b_S + c_S) N^-b_N + (a_D/D)^b_D + c, N non-zero parameters",
    source="Frantar et al. 2023, arXiv 2309.08520, equation 1",
    columns=("sparsity", "nonzero_params", "tokens"),
    parameters=("a_S", "b_S", "c_S", "b_N", "a_D", "b_D", "c"),
    form=_form,
    ranges={"b_S": (0.1, 3.0), "b_N": (0.05, 0.8), "b_D": (0.05, 0.8)},
    linear=_linear,
    natural=_natural,
)
