"""The loss of the best run of each budget as a function of compute alone."""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.fitting.minima import LossLaw
from chinchilla_jax.techniques.law import Array, Law, Values, power_terms


def _form(p: Values, x: Values) -> Array:
    return LossLaw(p["E"], p["A"], p["a"]).loss(x["flops"])


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    term = x["flops"] ** -p["a"]
    return (np.ones_like(term), term), np.ones(())


COMPUTE = Law(
    name="compute",
    formula="L = E + A/C^a",
    source="Henighan et al. 2020, arXiv 2010.14701, equation 1.1, with x = compute",
    columns=("flops",),
    parameters=("E", "A", "a"),
    form=_form,
    ranges={"a": (0.01, 1.0)},
    linear=_linear,
    natural=power_terms("E", "A"),
    frontier=True,
)
