"""Farseer: what tokens bring depends on the size of the model, and so does the floor.

In the paper's letters L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1), with
a1, a3 and beta negative. Here all parameters are positive: k1 = -a1, k2 = a2, k3 = -a3,
beta = -beta, and d = exp(b1), B = exp(b2), E = exp(b3). N counts parameters without embeddings.
"""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values

_SIZE = 1e8  # of the model at which the search knows how large each part is


def _parts(p: Values, x: Values) -> tuple[Array, Array]:
    """What E and B are multiplied by."""
    n = x["params"]
    slope = p["d"] * np.exp(-p["k1"] * n ** p["alpha"])
    floor = np.exp(-p["k3"] * n ** p["gamma"])
    return floor, np.exp(p["k2"] * n ** -p["beta"] - slope * np.log(x["tokens"]))


def _form(p: Values, x: Values) -> Array:
    floor, data = _parts(p, x)
    return np.asarray(p["E"] * floor + p["B"] * data)


def _parameters(v: Values) -> dict[str, Array]:
    """From the sizes of the three exponents at a model of _SIZE, and of tokens' exponent there."""
    return {
        "k1": v["slope_size"] * _SIZE ** -v["alpha"],
        "alpha": v["alpha"],
        "d": v["slope"] * np.exp(v["slope_size"]),
        "k2": v["data_size"] * _SIZE ** v["beta"],
        "beta": v["beta"],
        "k3": v["floor_size"] * _SIZE ** -v["gamma"],
        "gamma": v["gamma"],
    }


def _linear(v: Values, x: Values) -> tuple[Sequence[Array], Array]:
    return _parts(_parameters(v), x), np.ones(())


def _natural(v: Values, c: Sequence[Array]) -> dict[str, Array]:
    return {"E": c[0], "B": c[1], **_parameters(v)}


FARSEER = Law(
    name="farseer",
    formula="L = E exp(-k3 N^gamma) + B exp(k2 N^-beta) D^-(d exp(-k1 N^alpha))",
    source="Li et al. 2025, arXiv 2506.10972, equation 3; N counts non-embedding parameters",
    columns=("params", "tokens"),
    parameters=("E", "k3", "gamma", "B", "k2", "beta", "d", "k1", "alpha"),
    form=_form,
    ranges={
        "slope": (0.15, 0.8),
        "slope_size": (0.1, 3.0),
        "alpha": (0.03, 0.4),
        "data_size": (0.3, 20.0),
        "beta": (0.03, 0.4),
        "floor_size": (0.1, 2.0),
        "gamma": (0.03, 0.4),
    },
    linear=_linear,
    natural=_natural,
)
