"""What every parameter is: its dimensions, what it contracts, its part in muP and in the count.

One table, from which shapes, initial values, learning-rate multipliers (`training/optimizers.py`)
and shardings (`training/sharding.py`) derive. A parameter is known by the last name of its path;
under a scan over layers its array has one more axis, L, in front.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.models.layout import Layout


@dataclass(frozen=True)
class Role:
    """One kind of parameter.

    `dims` are logical: V vocabulary, D width, H heads, G key and value heads, K head size,
    F feed-forward. `fan_in` are those that a product with it sums over, "" for gains and biases.
    `kind` is the part it plays in muP (Yang et al. 2022, Table 3): `input`, `hidden` and `output`
    by which of its two sides grow with the width, `vector` for gains and biases.
    """

    dims: str
    fan_in: str
    kind: str
    group: str  # of `experiment.counting`
    initial: float | None = None  # the constant that vectors start from
    writes_residual: bool = False


ROLES = {
    "embedding": Role("VD", "", "input", "embedding"),
    "readout": Role("DV", "D", "output", "readout"),
    "query": Role("DHK", "D", "hidden", "attention"),
    "key": Role("DGK", "D", "hidden", "attention"),
    "value": Role("DGK", "D", "hidden", "attention"),
    "out": Role("HKD", "HK", "hidden", "attention", writes_residual=True),
    "positions": Role("DHK", "D", "hidden", "positions"),
    "content_bias": Role("HK", "", "vector", "positions", initial=0.0),
    "position_bias": Role("HK", "", "vector", "positions", initial=0.0),
    "query_norm": Role("K", "", "vector", "norms", initial=1.0),
    "key_norm": Role("K", "", "vector", "norms", initial=1.0),
    "gate": Role("DF", "D", "hidden", "feed_forward"),
    "up": Role("DF", "D", "hidden", "feed_forward"),
    "down": Role("FD", "F", "hidden", "feed_forward", writes_residual=True),
    "scale": Role("D", "", "vector", "norms", initial=1.0),
}


@dataclass(frozen=True)
class Scaling:
    """How sizes of weights and updates follow the width: muP, or the standard parametrization.

    The standard parametrization is muP whose base is the width itself, so that every
    multiplier below is 1.
    """

    base_width: int = 64
    parametrization: str = "mup"

    def base(self, config: ModelConfig) -> int:
        return self.base_width if self.parametrization == "mup" else config.width


def role(path: str) -> Role:
    """The role of the parameter at `path`, such as `layers_0/attention/query`.

    Raises:
      KeyError: a parameter that the table does not know.
    """
    return ROLES[path.rsplit("/", 1)[-1]]


def shape(dims: str, config: ModelConfig) -> tuple[int, ...]:
    """Sizes of logical dimensions, `DHK` for example."""
    sizes = {
        "V": config.vocab_size,
        "D": config.width,
        "H": config.heads,
        "G": config.kv_heads,
        "K": config.head_size,
        "F": config.ff_size,
    }
    return tuple(sizes[dim] for dim in dims)


def initial_std(role: Role, config: ModelConfig, scaling: Scaling) -> float:
    """Standard deviation of a matrix at the start.

    Hidden matrices: 1/sqrt(fan-in); those that write to the residual stream another 1/sqrt(2 L),
    so that its size does not grow with the depth (Radford et al. 2019, section 2.3).
    Readout: the standard 1/sqrt(D) up to the base width, sqrt(base) / D beyond (Yang et al. 2022,
    Table 3). Starting from equal chances instead, with 1 / D, costs .04 nats at width 64 and .07
    at 256 after 600 steps at the best rate, and .2 +- .2 % over whole runs of 1e11 and 3e11 FLOPs.
    Embedding: 1/sqrt(base). `Decoder` multiplies it by sqrt(base) on the way in (as Vaswani et al.
    2017, section 3.4), so that Adam moves what enters by sqrt(base) times its rate: from 1 and at
    its plain rate, whole runs of 1e11 and 3e11 FLOPs end 1.5 % higher. Tied, it is also the
    readout, times base/D on the way out.
    """
    base = scaling.base(config)
    if role.kind == "input":
        return base**-0.5
    if role.kind == "output":
        return min(base, config.width) ** 0.5 / config.width
    std = math.prod(shape(role.fan_in, config)) ** -0.5
    return std * (2 * config.depth) ** -0.5 if role.writes_residual else std


def learning_rate_multiplier(role: Role, config: ModelConfig, scaling: Scaling) -> float:
    """Adam's learning rate over that at the base width (Yang et al. 2022, Table 3)."""
    if role.kind in ("hidden", "output"):
        return scaling.base(config) / config.width
    return 1.0


def in_compute_dtype(role: Role, weight: jax.Array, dtype: Any) -> jax.Array:
    """What products take part with in `dtype`; the rest as it is.

    Embeddings are looked up, and gains and biases applied, in float32, so that their gradients
    add up over tokens in float32.
    """
    return weight.astype(dtype) if role.fan_in else weight


class RoleModule(nn.Module):
    """A module whose parameters are declared by their names in `ROLES`."""

    config: ModelConfig
    scaling: Scaling
    dtype: Any  # of activations and products
    layout: Layout  # where arrays lie while it computes

    def weight(self, name: str) -> jax.Array:
        """Declares the float32 parameter `name`; matrices of products come in `dtype`."""
        role = ROLES[name]
        if role.initial is None:
            init = nn.initializers.normal(initial_std(role, self.config, self.scaling))
        else:
            init = nn.initializers.constant(role.initial)
        weight = self.param(name, init, shape(role.dims, self.config), jnp.float32)
        return self.layout.place(in_compute_dtype(role, weight, self.dtype), role.dims)
