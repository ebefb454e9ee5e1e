"""Every parameter of a model: its dimensions, what multiplies it, how often a layer has it.

One table. From it derive counts and FLOPs (`counting.py`), what lies on each device and what
devices send (`meshes.py`, `memory.py`, `communication.py`), initial values and learning rates
(`mup.py`), arrays and their shardings (`models/module.py`, `training/sharding.py`) and the sides
of Muon's matrices (`training/optimizers.py`). A new kind of parameter is a row of PARAMETERS; a
dimension that it alone has is a row of DIMENSIONS.

A parameter is known by the last name of its path; under a scan over layers its array has one
more axis, L, in front.
"""

import functools
import math
from dataclasses import dataclass

from chinchilla_jax.experiment.model import DEFINITIONS, ModelConfig

FLOAT32 = 4  # bytes of a parameter, wherever it rests

TABLES = ("embedding", "readout")  # of the vocabulary
BODY = ("attention", "feed_forward", "norms", "positions")
GROUPS = TABLES + BODY


@dataclass(frozen=True)
class Dimension:
    """A logical dimension of parameters."""

    field: str  # of ModelConfig: its size
    axis: str | None = None  # of the mesh: what splits it wherever it stands
    # What splits it in a matrix, its gradient and its moments besides, until it is gathered.
    at_rest: str | None = None
    # The field with how many of it one token meets, where a parameter is `chosen` by it.
    met: str = ""


DIMENSIONS = {
    "V": Dimension("vocab_size", axis="tensor"),
    "D": Dimension("width", at_rest="fsdp"),
    "H": Dimension("heads", axis="tensor"),
    "G": Dimension("kv_heads", axis="tensor"),
    "K": Dimension("head_size"),
    "F": Dimension("ff_size", axis="tensor"),
    "E": Dimension("experts", axis="tensor", met="expert_picks"),
    "X": Dimension("expert_size"),
}


@dataclass(frozen=True)
class Parameter:
    """One kind of parameter.

    `fan_in` are the dimensions that a product with it sums over, "" where there is no product:
    gains and biases act on each number, and rows of a table are looked up. `kind` is its part in
    muP (Yang et al. 2022, Table 3): `input`, `hidden` and `output` by which of its two sides grow
    with the width, `vector` for gains and biases; `router` is an output, of choices.
    """

    name: str
    dims: str
    fan_in: str
    kind: str
    group: str  # one of GROUPS
    definitions: tuple[str, ...] = DEFINITIONS  # which have it
    per_layer: int = 1  # how many each layer has
    outside: int = 0  # how many there are outside of layers
    chosen: str = ""  # the dimension of which a token meets some only: rows of a table, experts
    product: str = "token"  # what is multiplied by it: each token, or each distance of a step
    initial: float | None = None  # the constant that vectors start from
    writes_residual: bool = False

    @property
    def fan_out(self) -> str:
        """The other side of its product."""
        return "".join(dim for dim in self.dims if dim not in self.fan_in + self.chosen)


CHINCHILLA, MODERN = (("chinchilla",), ("modern",))
PARAMETERS = {
    p.name: p
    for p in (
        Parameter("embedding", "VD", "", "input", "embedding", per_layer=0, outside=1, chosen="V"),
        Parameter("readout", "DV", "D", "output", "readout", MODERN, per_layer=0, outside=1),
        # the gain of each norm: before attention, before the feed-forward network, and the last
        Parameter("scale", "D", "", "vector", "norms", per_layer=2, outside=1, initial=1.0),
        Parameter("query", "DHK", "D", "hidden", "attention"),
        Parameter("key", "DGK", "D", "hidden", "attention"),
        Parameter("value", "DGK", "D", "hidden", "attention"),
        Parameter("query_norm", "K", "", "vector", "norms", MODERN, initial=1.0),
        Parameter("key_norm", "K", "", "vector", "norms", MODERN, initial=1.0),
        # of distances; Transformer-XL's u and v (Dai et al. 2019, section 3.3)
        Parameter("positions", "DHK", "D", "hidden", "positions", CHINCHILLA, product="distance"),
        Parameter("content_bias", "HK", "", "vector", "positions", CHINCHILLA, initial=0.0),
        Parameter("position_bias", "HK", "", "vector", "positions", CHINCHILLA, initial=0.0),
        Parameter("out", "HKD", "HK", "hidden", "attention", writes_residual=True),
        Parameter("gate", "DF", "D", "hidden", "feed_forward", MODERN),
        Parameter("up", "DF", "D", "hidden", "feed_forward"),
        Parameter("down", "FD", "F", "hidden", "feed_forward", writes_residual=True),
        Parameter("router", "DE", "D", "router", "feed_forward"),
        Parameter("expert_gate", "EDX", "D", "hidden", "feed_forward", MODERN, chosen="E"),
        Parameter("expert_up", "EDX", "D", "hidden", "feed_forward", chosen="E"),
        Parameter(
            "expert_down", "EXD", "X", "hidden", "feed_forward", chosen="E", writes_residual=True
        ),
    )
}


def parameter(path: str) -> Parameter:
    """The row of the parameter at `path`, such as `layers_0/attention/query`.

    Raises:
      KeyError: a parameter that the table does not know.
    """
    return PARAMETERS[path.rsplit("/", 1)[-1]]


@functools.lru_cache(maxsize=1024)
def parameters(model: ModelConfig) -> tuple[Parameter, ...]:
    """The parameters that `model` has: those of its definition that have a size."""
    rows = (p for p in PARAMETERS.values() if model.definition in p.definitions)
    return tuple(p for p in rows if size(p.dims, model))


def is_tied(model: ModelConfig) -> bool:
    """Whether the readout is the embedding."""
    return all(p.kind != "output" for p in parameters(model))


@functools.lru_cache(maxsize=1024)
def products(model: ModelConfig) -> tuple[Parameter, ...]:
    """Those that take part in matrix products: all with a fan-in, and an embedding that is tied."""
    tied = is_tied(model)
    return tuple(p for p in parameters(model) if p.fan_in or (tied and p.kind == "input"))


def shape(dims: str, model: ModelConfig) -> tuple[int, ...]:
    """Sizes of logical dimensions, `DHK` for example."""
    return tuple([getattr(model, DIMENSIONS[dim].field) for dim in dims])


def size(dims: str, model: ModelConfig) -> int:
    """Numbers in an array of these dimensions."""
    return math.prod(shape(dims, model))


def copies(p: Parameter, model: ModelConfig) -> int:
    """How many of it there are in all layers and outside of them."""
    return p.per_layer * model.depth + p.outside


def stored(p: Parameter, model: ModelConfig) -> int:
    """Numbers in all of it."""
    return copies(p, model) * size(p.dims, model)


def active(p: Parameter, model: ModelConfig) -> int:
    """Numbers in what one token meets of it. A table that it looks up a row of counts whole."""
    total, met = stored(p, model), DIMENSIONS[p.chosen].met if p.chosen else ""
    return total // size(p.chosen, model) * getattr(model, met) if met else total


def axes_at_rest(dims: str) -> tuple[str | None, ...]:
    """The mesh axis of each dimension of a parameter at rest; single vectors are whole everywhere.

    One table for `training/sharding.py`, which places arrays, and for what is counted of them.
    """
    matrix = len(dims) > 1
    return tuple((matrix and DIMENSIONS[dim].at_rest) or DIMENSIONS[dim].axis for dim in dims)
