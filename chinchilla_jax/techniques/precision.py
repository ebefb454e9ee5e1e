"""Laws of precision: what few bits cost, in training and after it, and when to begin with them.

Kumar et al. 2024 (arXiv 2411.04330) fit their offsets but leave them out of the displayed formulas.
With the sign used here the best precision at C = (6/16) N D P is 7.0 bits at every budget, as they
say (7 to 8); without offsets it would be 3.5, with the other sign under 3.2.
"""

import math
from collections.abc import Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values, power_terms

# Published constants: table 2 of Kumar et al. for weights, activations, keys and values.
KUMAR = {
    "E": 2.7648, "A": 4.299e3, "B": 1.806e4, "alpha": 0.4965,
    "gamma_w": 2.6745, "n_w": 0.3037, "gamma_a": 2.2102, "n_a": 1.4072,
    "gamma_kv": 0.9578, "n_kv": 2.4185,
}  # fmt: skip
KUMAR_AFTER = {"C_T": 0.0598, "gamma_D": 0.5068, "gamma_N": 0.3439, "gamma_post": 0.5907}
KUMAR_AFTER_OFFSET = 1.1277  # of bits over gamma_post; its sign is by analogy with the others
# Chen et al. 2025 (arXiv 2505.14302): weights and activations of 4 bits, weights alone,
# activations alone.
CHEN = {
    "w4a4": {"k": 0.1582, "gamma_N": 0.2186, "gamma_D": 0.0745, "gamma_G": 0.7779},
    "w4a16": {"k": 0.2522, "gamma_N": 0.3589, "gamma_D": 0.1610, "gamma_G": 0.3533},
    "w16a4": {"k": 0.1004, "gamma_N": 0.1816, "gamma_D": 0.0331, "gamma_G": 0.9812},
}
_DREMOV = 6.7297
_NOISE = 1e-3  # nats: what 8 bits raise or lower the loss by, and of no use for a power law


def kept(bits: Array | float, gamma: Array | float, offset: Array | float) -> Array:
    """The share of parameters that counts at so many bits, f = 1 - exp(n - P/gamma), from 0 on."""
    lost = np.exp(np.asarray(offset) - np.asarray(bits) / np.asarray(gamma))
    return np.asarray(np.maximum(0.0, 1 - lost))


def kumar_loss(
    params: Array | float,
    tokens: Array | float,
    weights: Array | float = np.inf,
    activations: Array | float = np.inf,
    cache: Array | float = np.inf,
) -> Array:
    """Nats per token when training with so many bits of weights, activations, keys and values.

    Without bits, in full precision.
    """
    p = KUMAR
    share = (
        kept(weights, p["gamma_w"], p["n_w"])
        * kept(activations, p["gamma_a"], p["n_a"])
        * kept(cache, p["gamma_kv"], p["n_kv"])
    )
    with np.errstate(divide="ignore"):
        size = p["A"] * (np.asarray(params) * share) ** -p["alpha"]
    return np.asarray(p["E"] + size + p["B"] * np.asarray(tokens) ** -p["alpha"])


def best_share(tokens_per_byte: float) -> float:
    """The share of training with few bits that ends lowest (Dremov et al. 2025, arXiv 2509.22935).

    Args:
      tokens_per_byte: training tokens over the bytes of the parameters at that width.
    """
    return math.exp(-_DREMOV / math.log(tokens_per_byte)) if tokens_per_byte > 1 else 0.0


def _training_form(p: Values, x: Values) -> Array:
    size = x["params"] * kept(x["bits"], p["gamma"], p["n"])
    with np.errstate(divide="ignore"):
        return p["E"] + p["A"] * size ** -p["alpha"] + p["B"] * x["tokens"] ** -p["beta"]


def _training_linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    share = np.maximum(1e-9, kept(x["bits"], p["gamma"], p["n"]))
    size = (x["params"] * share) ** -p["alpha"]
    return (np.ones_like(size), size, x["tokens"] ** -p["beta"]), np.ones(())


TRAINING = Law(
    name="precision",
    formula="L = E + A/(N f)^alpha + B/D^beta, f = 1 - exp(n - P/gamma), P bits of weights",
    source="Kumar et al. 2024, arXiv 2411.04330, equations 3 and 9, with alpha and beta apart",
    columns=("params", "tokens", "bits"),
    parameters=("E", "A", "B", "alpha", "beta", "gamma", "n"),
    form=_training_form,
    ranges={"alpha": (0.1, 1.2), "beta": (0.1, 1.2), "gamma": (0.3, 6.0), "n": (0.01, 2.0)},
    linear=_training_linear,
    natural=power_terms("E", "A", "B"),
    aliases={"bits": ("quantisation_bits",)},
    ordinary={"bits": 32.0},
)


def _after_form(p: Values, x: Values) -> Array:
    grown = x["tokens"] ** p["gamma_D"] / x["params"] ** p["gamma_N"]
    return p["C_T"] * grown * np.exp(-x["bits"] / p["gamma_post"])


def _after_linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    return (_after_form({**p, "C_T": np.ones(())}, x),), np.ones(())


AFTER = Law(
    name="post_training",
    formula="rise of L = C_T D^gamma_D / N^gamma_N exp(-P/gamma_post), P bits of weights",
    source="Kumar et al. 2024, arXiv 2411.04330, equation 2; its offset is part of C_T here",
    columns=("params", "tokens", "bits"),
    parameters=tuple(KUMAR_AFTER),
    form=_after_form,
    ranges={"gamma_D": (0.05, 1.5), "gamma_N": (0.05, 1.5), "gamma_post": (0.2, 3.0)},
    linear=_after_linear,
    natural=power_terms("C_T"),
    aliases={"bits": ("quantisation_bits",)},
    outcome="excess_loss",
    least=_NOISE,
    apart=("quantisation_group",),
)


def _group_form(p: Values, x: Values) -> Array:
    grown = x["tokens"] ** p["gamma_D"] / x["params"] ** p["gamma_N"]
    return p["k"] * grown * np.log2(x["group"]) ** p["gamma_G"]


def _group_linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    return (_group_form({**p, "k": np.ones(())}, x),), np.ones(())


GROUP = Law(
    name="group_precision",
    formula="rise of L = k D^gamma_D (log2 G)^gamma_G / N^gamma_N, G weights of a scale",
    source="Chen et al. 2025, arXiv 2505.14302, equation 6",
    columns=("params", "tokens", "group"),
    parameters=("k", "gamma_N", "gamma_D", "gamma_G"),
    form=_group_form,
    ranges={"gamma_N": (0.05, 1.5), "gamma_D": (0.01, 1.5), "gamma_G": (0.05, 2.0)},
    linear=_group_linear,
    natural=power_terms("k"),
    outcome="excess_loss",
)
