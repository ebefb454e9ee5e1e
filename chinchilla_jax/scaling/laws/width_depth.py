"""Width and depth as separate axes, beside parameters and tokens."""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values, power_terms

_AXES = {"width": "alpha", "depth": "beta", "params": "gamma", "tokens": "zeta"}
_COEFFICIENTS = ("A", "B", "G", "Z")


def _terms(p: Values, x: Values) -> tuple[Array, ...]:
    return tuple(x[axis] ** -p[exponent] for axis, exponent in _AXES.items())


def _form(p: Values, x: Values) -> Array:
    terms = zip(_COEFFICIENTS, _terms(p, x), strict=True)
    return sum((p[name] * term for name, term in terms), start=p["E"])


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    terms = _terms(p, x)
    return (np.ones_like(terms[0]), *terms), np.ones(())


WIDTH_DEPTH = Law(
    name="width_depth",
    formula="L = E + A/width^alpha + B/depth^beta + G/N^gamma + Z/D^zeta",
    source="McLeish et al. 2025 (Gemstones), arXiv 2502.06857, approach 3 with width and depth",
    columns=("width", "depth", "params", "tokens"),
    parameters=("E", *_COEFFICIENTS, *_AXES.values()),
    form=_form,
    ranges=dict.fromkeys(_AXES.values(), (0.05, 1.2)),
    linear=_linear,
    natural=power_terms("E", *_COEFFICIENTS),
    layout=("width", "depth"),
)
