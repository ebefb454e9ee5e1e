"""Over-training: the loss as a function of compute and of tokens per parameter.

With C = 6 N D and M = D/N it is the Chinchilla surface with alpha = beta = 2 eta, A = a 6^-eta and
B = b 6^-eta, written so that a curve at fixed M is one power law in C.
"""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.techniques.law import Array, Law, Values, power_terms


def _terms(eta: Array, x: Values) -> tuple[Array, Array]:
    flops = SIX_ND.flops(x["params"], x["tokens"])
    ratio = x["tokens"] / x["params"]
    return (ratio / flops) ** eta, (ratio * flops) ** -eta


def _form(p: Values, x: Values) -> Array:
    size, data = _terms(p["eta"], x)
    return p["E"] + p["a"] * size + p["b"] * data


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    size, data = _terms(p["eta"], x)
    return (np.ones_like(size), size, data), np.ones(())


OVER_TRAINING = Law(
    name="over_training",
    formula="L = E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6 N D",
    source="Gadre et al. 2024, arXiv 2403.08540, equation 4",
    columns=("params", "tokens"),
    parameters=("E", "a", "b", "eta"),
    form=_form,
    ranges={"eta": (0.01, 0.8)},
    linear=_linear,
    natural=power_terms("E", "a", "b"),
)
