"""Sparsity: gradual magnitude pruning, whole matrices to a level or n of each m weights.

From `ramp_start` to `ramp_end` of training the smallest weights of each hidden matrix are set to
zero, more at each update of the masks, along the cubic of Zhu & Gupta 2017 (arXiv 1710.01878,
equation 1); what is zero stays so. The same level in every matrix of every layer, gains and biases
dense, as in Frantar et al. 2023 (arXiv 2309.08520, section 3). The vocabulary's tables are dense
unless `table_exponent` says otherwise; theirs is .5.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import PARAMETERS, Parameter, parameters, size, stored
from chinchilla_jax.experiment.schema import require, within
from chinchilla_jax.techniques.law import Array, Choice, Law, Values, power_terms
from chinchilla_jax.techniques.technique import Facts, Ledger, Technique, Weights, listed

_WHERE = "techniques.sparsity"


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """How many weights end as zeros, which may be so, and when they become it.

    Half of the weights in groups of 4 is 2:4, three quarters of them 1:4.
    """

    level: float = field(default=0.0, metadata={"short": "sp"})  # share of zeros in each matrix
    # Weights of one output, next to each other among its inputs, of which just this share are
    # zeros; 0: of the whole matrix.
    group_size: int = field(default=0, metadata={"short": "of"})
    table_exponent: float = 0.0  # embedding and readout keep (1 - level) ** this of their weights
    ramp_start: float = 0.25  # of training
    ramp_end: float = 0.75
    updates: int = 20  # of the masks along the ramp, the last at its end

    def __post_init__(self) -> None:
        require(
            0 <= self.level < 1, f"{_WHERE}.level", self.level, "must lie in [0, 1), 0 is dense"
        )
        require(
            self.table_exponent >= 0,
            f"{_WHERE}.table_exponent",
            self.table_exponent,
            "must be 0 (dense tables) or more; .5 is Frantar et al.'s, 1 as in hidden matrices",
        )
        require(
            0 <= self.ramp_start <= 1, f"{_WHERE}.ramp_start", self.ramp_start, "must lie in [0, 1]"
        )
        require(
            self.ramp_start <= self.ramp_end <= 1,
            f"{_WHERE}.ramp_end",
            self.ramp_end,
            f"must lie in [ramp_start, 1] = [{self.ramp_start:g}, 1]",
        )
        within(_WHERE, 1, 10_000, updates=self.updates)
        zeros = self.level * self.group_size
        require(
            self.group_size == 0 or (self.group_size > 1 and math.isclose(zeros, round(zeros))),
            f"{_WHERE}.group_size",
            self.group_size,
            "must be 0 (whole matrices) or more than 1 weights, of which "
            f"level = {self.level:g} makes a whole number zero; 2:4 is level .5 in groups of 4",
        )


def level_of(p: Parameter, config: Sparsity) -> float:
    """The share of zeros that each array of a parameter ends with."""
    if p.kind == "hidden":
        return config.level
    table = p.kind in ("input", "output")
    return 1 - (1 - config.level) ** config.table_exponent if table else 0.0


def matrix_dims(p: Parameter) -> str:
    """Dimensions of what is pruned at a time: a layer's matrix, an expert's, a whole table."""
    return p.fan_in + p.fan_out if p.fan_in else p.dims


def block_size(p: Parameter, model: ModelConfig, config: Sparsity) -> int:
    """Weights among which zeros are counted: a group of a hidden matrix, or all of an array."""
    grouped = p.kind == "hidden" and config.group_size
    return config.group_size if grouped else size(matrix_dims(p), model)


def zeros_of(p: Parameter, model: ModelConfig, config: Sparsity, share: float) -> int:
    """Zeros in each block, when this share of the final level is reached; to the nearest."""
    return math.floor(share * level_of(p, config) * block_size(p, model, config) + 0.5)


def pruned_rows(model: ModelConfig, config: Sparsity) -> tuple[Parameter, ...]:
    """The parameters of `model` of which some weights are pruned."""
    return tuple(p for p in parameters(model) if level_of(p, config) > 0)


def schedule(config: Sparsity, steps: int) -> tuple[tuple[int, float], ...]:
    """When masks are updated: (training steps done, share of the final level from then on).

    Evenly along the ramp, the last at its end with all of the level; fewer where the ramp has
    fewer steps. The share is 1 - (1 - x)^3 at x of the ramp.
    """
    first, last = (round(edge * steps) for edge in (config.ramp_start, config.ramp_end))
    last = max(1, last)
    first = min(first, last - 1)
    count = min(config.updates, last - first)
    places = (first + (last - first) * i / count for i in range(1, count + 1))
    at = tuple(round(place) for place in places)
    return tuple((step, 1 - (1 - (step - first) / (last - first)) ** 3) for step in at)


def possible(planned: ModelConfig, config: Sparsity) -> ModelConfig:
    """The shape as it is.

    Raises:
      UserError: a group that does not divide the inputs of a matrix, or a level that leaves no
        weight in one, or prunes none.
    """
    for p in pruned_rows(planned, config):
        inputs, block = size(p.fan_in, planned), block_size(p, planned, config)
        if p.kind == "hidden" and config.group_size and inputs % config.group_size:
            raise UserError(
                f"{_WHERE}.group_size = {config.group_size}: does not divide the {inputs} inputs "
                f"of {p.name} in a model of width {planned.width}"
            )
        zeros = zeros_of(p, planned, config, 1.0)
        if not 0 < zeros < block:
            raise UserError(
                f"{_WHERE}.level = {config.level:g}: of the {block} weights of {p.name} in a model "
                f"of width {planned.width} it prunes {zeros}; at least one must go and one stay"
            )
    return planned


def counted(ledger: Ledger, config: Sparsity, facts: Facts) -> Ledger:
    """With non-zeros at the end and on average, and what they take at rest and in inference.

    Training FLOPs stay those of dense products, which are carried out; `params_average` tells what
    a machine that skips zeros would have done.
    """
    rows = {p.name for p in pruned_rows(facts.model, config)}
    weights = tuple(_pruned(w, config, facts) if w.name in rows else w for w in ledger.weights)
    return replace(ledger, weights=weights)


def mask_bytes(config: Sparsity, facts: Facts) -> int:
    """A byte for each weight that may be pruned."""
    return sum(stored(p, facts.model) for p in pruned_rows(facts.model, config))


def _pruned(w: Weights, config: Sparsity, facts: Facts) -> Weights:
    p = PARAMETERS[w.name]
    block = block_size(p, facts.model, config)
    blocks, zero_steps, zeros, since = w.stored // block, 0, 0, 0
    for step, share in (*schedule(config, facts.steps), (facts.steps, 1.0)):
        zero_steps += zeros * (step - since)
        zeros, since = zeros_of(p, facts.model, config, share), step
    average = w.stored - blocks * zero_steps / facts.steps
    nonzero = w.stored - blocks * zeros
    return replace(w.pruned(nonzero, _position_bits(w.stored, nonzero, block)), average=average)


def _reduced(config: Sparsity) -> Sparsity:
    return config if config.level else Sparsity()


def _position_bits(stored: int, nonzero: int, block: int) -> int:
    """Bits that say where the non-zeros are: a bitmap, or a place in its block for each."""
    return min(stored, nonzero * (block - 1).bit_length())


_PRUNED = 0.625  # of the level is gone on average over training, by the ramp of the default


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


def _price(x: Values) -> Array:
    return (1 - _PRUNED * x["sparsity"]) / (1 - x["sparsity"])


def optimal_sparsity(p: Values, length: Array) -> Array:
    """The sparsity of lowest loss at equal non-zero parameters and training FLOPs, to a thousandth.

    Args:
      p: parameters of the law; length: training FLOPs over those of the compute-optimal dense
        run with as many non-zero parameters. They broadcast.
    The paper's section 4, figure 4: it rises with the length, whatever the size.
    """
    level_L = np.arange(0.0, 0.995, 0.001)
    a, b, c, b_N, b_D, k = (
        np.asarray(x)[..., None] for x in (p["a_S"], p["b_S"], p["c_S"], p["b_N"], p["b_D"], length)
    )
    # In units of the term for size of the dense run, whose term for data is b_N / b_D of it.
    size = (a * (1 - level_L) ** b + c) / (a + c)
    data = b_N / b_D * (_price({"sparsity": level_L}) / k) ** b_D
    loss = size + data
    best = np.asarray(level_L[np.argmin(loss, axis=-1)])
    return np.where(np.isfinite(loss).all(axis=-1), best, np.nan)


def _length(p: Values, x: Values) -> Array:
    """Of runs, as `optimal_sparsity` takes it."""
    size = (p["a_S"] + p["c_S"]) * x["nonzero_params"] ** -p["b_N"]
    tokens = p["a_D"] * (size * p["b_N"] / p["b_D"]) ** (-1 / p["b_D"])
    return np.asarray(x["tokens"] * _price(x) / tokens)


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
    aliases={"sparsity": ("sparsity_level",), "nonzero_params": ("params_nonzero",)},
    ordinary={"sparsity": 0.0, "nonzero_params": "params"},
    choice=Choice(
        column="sparsity",
        best=optimal_sparsity,
        length=_length,
        unit="training FLOPs over those of the compute-optimal dense run of as many non-zeros",
    ),
    price=_price,
)


def _average_form(p: Values, x: Values) -> Array:
    size, data = x["params_average"] ** -p["alpha"], x["tokens"] ** -p["beta"]
    return p["E"] + p["A"] * size + p["B"] * data


def _average_linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    terms = x["params_average"] ** -p["alpha"], x["tokens"] ** -p["beta"]
    return (np.ones_like(terms[0]), *terms), np.ones(())


AVERAGE_SIZE = Law(
    name="average_size",
    formula="L = E + A/N^alpha + B/D^beta, N non-zero parameters over the steps of training",
    source="Jin et al. 2025, arXiv 2501.12486, abstract",
    columns=("params_average", "tokens"),
    parameters=("E", "A", "B", "alpha", "beta"),
    form=_average_form,
    ranges={"alpha": (0.05, 1.5), "beta": (0.05, 1.5)},
    linear=_average_linear,
    natural=power_terms("E", "A", "B"),
    ordinary={"params_average": "params"},
)


def words(fields: Mapping[str, str]) -> str:
    """`75 % sparse`, `2:4 sparse`, with what else differs behind it."""
    rest = {name: value for name, value in fields.items() if name not in ("level", "group_size")}
    if "level" not in fields:
        return f"sparsity {listed(fields)}"
    level, group = float(fields["level"]), int(float(fields.get("group_size") or 0))
    share = f"{round((1 - level) * group)}:{group}" if group else f"{100 * level:g} %"
    return ", ".join(filter(None, [f"{share} sparse", listed(rest)]))


TECHNIQUE = Technique(
    name="sparsity",
    off=Sparsity(),
    reduced=_reduced,
    model=possible,
    ledger=counted,
    carried=mask_bytes,
    by_length=lambda config: True,  # masks are updated at shares of it
    laws=(SPARSITY, AVERAGE_SIZE),
    words=words,
)
