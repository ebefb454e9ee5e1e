"""The Chinchilla surface: a floor, a term for finite size and a term for finite data."""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.fitting.surface import CHINCHILLA, Surface
from chinchilla_jax.techniques.law import Array, Law, Values, power_terms


def _form(p: Values, x: Values) -> Array:
    surface = Surface(*(p[name] for name in CHINCHILLA))
    return surface.loss(x["params"], x["tokens"])


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    terms = x["params"] ** -p["alpha"], x["tokens"] ** -p["beta"]
    return (np.ones_like(terms[0]), *terms), np.ones(())


SURFACE = Law(
    name="chinchilla",
    formula="L = E + A/N^alpha + B/D^beta",
    source="Hoffmann et al. 2022, arXiv 2203.15556, equation 2",
    columns=("params", "tokens"),
    parameters=CHINCHILLA,
    form=_form,
    ranges={"alpha": (0.05, 1.5), "beta": (0.05, 1.5)},
    linear=_linear,
    natural=power_terms("E", "A", "B"),
)
