"""Laws of experts: what a model is worth of which each token meets a part.

All saturate alike in the number of experts E: 1/Ê = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em, which runs
from Es at one expert to Em at endlessly many (Clark et al. 2022, arXiv 2202.01169, section 4.3 and
their code).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from chinchilla_jax.techniques.law import Array, Law, Values, power_terms

# Published constants: S-BASE of Clark et al., table 3; table 3 of Ludziejewski et al.; table 2 of
# Tian et al.
CLARK = {"A": 10**1.104, "alpha": 0.082, "beta": 0.108, "gamma": 0.009, "Es": 1.847, "Em": 314.478}
LUDZIEJEWSKI = {
    "a": 35.91, "alpha": 0.1889, "delta": 0.2285, "gamma": 0.0098, "b": 35.98, "beta": 0.1775,
    "omega": 0.5529, "zeta": 0.0259, "c": 1.3637, "Es": 2.0732, "Em": 290.4521,
}  # fmt: skip
TIAN = {
    "K": 1.0, "a": 1.23, "d": 7.61e-2, "gamma": 1.67e-2, "beta": 1.17e-1, "As": 1.63e-2,
    "Am": 5.28e16,
}  # fmt: skip
# Ludziejewski et al., table 4: L = m N^mu + n D^nu + c for each number of experts.
BY_EXPERTS = {
    1: (30.3640, -0.1817, 53.9838, -0.1965), 2: (27.7982, -0.1780, 66.8401, -0.2065),
    4: (24.8462, -0.1731, 87.7022, -0.2192), 8: (21.8330, -0.1676, 119.9126, -0.2338),
    16: (19.0159, -0.1617, 167.5073, -0.2494), 32: (16.5424, -0.1557, 234.6726, -0.2652),
}  # fmt: skip


def saturated(experts: Array, smallest: Array, largest: Array) -> Array:
    """Ê of so many experts."""
    grown = experts - 1 + 1 / (1 / smallest - 1 / largest)
    return np.asarray(1 / (1 / grown + 1 / largest))


def _clark(p: Values, x: Values) -> Array:
    """Without A: N^-alpha Ê^(-beta + gamma log10 N)."""
    size = x["params_active"]
    grown = saturated(x["experts"], p["Es"], p["Em"])
    exponent = -p["beta"] + p["gamma"] * np.log10(size)
    return np.asarray(size ** -p["alpha"] * grown**exponent)


def dense_size_multiplier(p: Mapping[str, float], params: Array, experts: Array) -> Array:
    """How many times larger a dense model does as well (Clark et al., equation 9, over N).

    Args:
      p: parameters of ROUTED; params: that a token meets, N.
    """
    grown, one = (saturated(np.asarray(e, float), p["Es"], p["Em"]) for e in (experts, 1.0))  # type: ignore[arg-type]

    def slope(value: Array) -> Array:
        return np.asarray(-p["alpha"] + p["gamma"] * np.log10(value))

    params = np.asarray(params, float)
    size = params ** (slope(grown) / slope(one)) * (grown / one) ** (-p["beta"] / slope(one))
    return np.asarray(size / params)


ROUTED = Law(
    name="routed",
    formula="log10 L = log10 A - alpha log10 N - beta log10 Ê + gamma log10 N log10 Ê, N active",
    source="Clark et al. 2022, arXiv 2202.01169, equation 6 with 7; at equal tokens",
    columns=("experts", "params_active"),
    parameters=tuple(CLARK),
    form=lambda p, x: p["A"] * _clark(p, x),
    ranges={
        "alpha": (0.02, 0.3), "beta": (0.02, 0.4), "gamma": (0.002, 0.05), "Es": (1.05, 6.0),
        "Em": (50.0, 2000.0),
    },
    linear=lambda p, x: ((_clark(p, x),), np.ones(())),
    natural=power_terms("A"),
    aliases={"experts": ("experts_routed",)},
    ordinary={"experts": 1.0, "params_active": "params"},
)  # fmt: skip


def _terms(p: Values, x: Values) -> tuple[Array, Array]:
    grown = saturated(x["experts"], p["Es"], p["Em"])
    log = np.log(grown)
    size = grown ** -p["delta"] * x["params_active"] ** (-p["alpha"] + p["gamma"] * log)
    data = grown ** p["omega"] * x["tokens"] ** (-p["beta"] - p["zeta"] * log)
    return np.asarray(size), np.asarray(data)


def _joint_form(p: Values, x: Values) -> Array:
    size, data = _terms(p, x)
    return p["a"] * size + p["b"] * data + p["c"]


def _joint_linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    size, data = _terms(p, x)
    return (size, data, np.ones_like(size)), np.ones(())


JOINT = Law(
    name="joint_experts",
    formula="L = a Ê^-delta N^(-alpha + gamma ln Ê) + b Ê^omega D^(-beta - zeta ln Ê) + c, N "
    "active",
    source="Ludziejewski et al. 2025, arXiv 2502.05172, equation 6",
    columns=("experts", "params_active", "tokens"),
    parameters=tuple(LUDZIEJEWSKI),
    form=_joint_form,
    ranges={
        "alpha": (0.05, 0.6), "delta": (0.05, 0.8), "gamma": (0.002, 0.06), "beta": (0.05, 0.6),
        "omega": (0.1, 1.5), "zeta": (0.003, 0.1), "Es": (1.1, 6.0), "Em": (50.0, 2000.0),
    },
    linear=_joint_linear,
    natural=power_terms("a", "b", "c"),
    aliases={"experts": ("experts_routed",)},
    ordinary={"experts": 1.0, "params_active": "params"},
)  # fmt: skip


def optimum(experts: int, flops: float) -> tuple[float, float]:
    """Active parameters and tokens of the lowest loss at 6 N D FLOPs, by `BY_EXPERTS`."""
    m, mu, n, nu = BY_EXPERTS[experts]
    ratio = (mu * m / (nu * n)) ** (-1 / (mu + nu))
    params = ratio * (flops / 6) ** (nu / (mu + nu))
    return params, flops / 6 / params


def _leverage(p: Values, x: Values) -> Array:
    """Without K. The paper names no bases; with log10 of FLOPs and log2 of the granularity its own
    figures come out: over 7 at 3.1 %, 12 and 1e22 FLOPs, best at a granularity of 8 to 12."""
    active = saturated_ratio(x["active_ratio"], p["As"], p["Am"])
    log = np.log2(x["granularity"])
    alpha = p["a"] - p["d"] * np.log10(x["flops"])
    return np.asarray(active ** (alpha + p["gamma"] * log**2 - p["beta"] * log))


def saturated_ratio(ratio: Array, smallest: Array, largest: Array) -> Array:
    """Â of a share of parameters that a token meets: as Ê, from As at none."""
    return np.asarray(1 / (1 / (ratio + 1 / (1 / smallest - 1 / largest)) + 1 / largest))


LEVERAGE = Law(
    name="leverage",
    formula="C_dense / C = K Â^(a - d log10 C + gamma (log2 G)^2 - beta log2 G) at equal loss",
    source="Tian et al. 2025, arXiv 2507.17702, equation 9, with K = 1",
    columns=("active_ratio", "granularity", "flops"),
    parameters=tuple(TIAN),
    form=lambda p, x: p["K"] * _leverage(p, x),
    ranges={
        "a": (0.3, 4.0), "d": (0.01, 0.3), "gamma": (0.002, 0.1), "beta": (0.02, 0.5),
        "As": (0.002, 0.1), "Am": (1.5, 1e3),
    },
    linear=lambda p, x: ((_leverage(p, x),), np.ones(())),
    natural=power_terms("K"),
    aliases={"granularity": ("experts_granularity",)},
    outcome="leverage",
)  # fmt: skip
