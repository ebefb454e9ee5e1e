"""Quantisation: weights of few bits, in training or after it.

A group of weights that share an output channel has a scale s, and a weight is one of the n levels
s (k - (n-1)/2), k = 0 .. n-1, that lie evenly around zero: `b` bits have n = 2^b, and 1.58 bits,
log2 of 3, have -s, 0 and s (Ma et al. 2024, arXiv 2402.17764). Levels of an even n have no zero
among them, so no code is lost at few bits. A weight that is 0 stays so: whoever set it to 0 keeps
a mask. 16 bits are bfloat16, which has an exponent of its own, and 32 the float32 of a dense run.

In training the forward pass meets quantised weights, and gradients go straight through to those in
float32 (Bengio et al. 2013, arXiv 1308.3432; Jacob et al. 2017, arXiv 1712.05877), from the start
or in the last part of a run, where less of it may be better (Dremov et al. 2025, arXiv 2509.22935:
`precision.best_share`). After training, `after` measures a finished run at other widths.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import OPERATION
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import (
    PARAMETERS,
    Parameter,
    copies,
    parameters,
    size,
)
from chinchilla_jax.experiment.schema import require
from chinchilla_jax.techniques import precision
from chinchilla_jax.techniques.technique import Facts, Ledger, Technique, Weights, listed

_WHERE = "techniques.quantisation"
TERNARY, BFLOAT16, FLOAT32 = 1.58, 16.0, 32.0  # bits
BITS = (1.0, TERNARY, *(float(b) for b in range(2, 9)), BFLOAT16, FLOAT32)
_SCALE_BYTES = 2  # bfloat16, so that they are as wide in range as the weights
_PER_BYTE = 5  # numbers of three levels that a byte holds: 3^5 = 243
TABLE_BITS = 8.0


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """How many bits a weight has, in training and as measured after it.

    Without `bits` the other fields of training say nothing: a run has those of a dense one then.
    """

    bits: float = field(default=FLOAT32, metadata={"short": "b"})  # of hidden matrices
    table_bits: float = field(default=TABLE_BITS, metadata={"short": "tb"})  # of embedding, readout
    group: int = field(
        default=0, metadata={"short": "g"}
    )  # weights of a scale; 0: all of a channel
    # Share of training that is over when quantisation begins; 1 is after it, in derived rows.
    start: float = field(default=0.0, metadata={"short": "from"})
    # Bits of hidden matrices at which a run that is trained without is measured at its end, by
    # each group. It changes no number of the run: set or changed, a run is the same.
    after: tuple[float, ...] = field(default=(), metadata=OPERATION)
    after_groups: tuple[int, ...] = field(default=(0,), metadata=OPERATION)

    def __post_init__(self) -> None:
        for name, bits in (("bits", self.bits), ("table_bits", self.table_bits)):
            _known(name, bits)
        for bits in self.after:
            _known("after", bits, BITS[:-1])
        for name, groups in (("group", (self.group,)), ("after_groups", self.after_groups)):
            for group in groups:
                require(group >= 0, f"{_WHERE}.{name}", group, "must be 0 (a channel) or more")
        for name in ("after", "after_groups"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{_WHERE}.{name}", values, "has one twice")
        require(0 <= self.start < 1, f"{_WHERE}.start", self.start, "must lie in [0, 1)")

    def bits_of(self, p: Parameter) -> float:
        """Bits of a parameter; gains, biases and routers are never quantised."""
        if p.kind in ("vector", "router") or self.bits == FLOAT32:
            return FLOAT32
        return self.bits if p.kind == "hidden" else self.table_bits

    def measured(self) -> Iterator["Quantisation"]:
        """What a run is measured at after it was trained: none where that was with few bits."""
        for bits in self.after if self.bits == FLOAT32 else ():
            for group in self.after_groups if bits < BFLOAT16 else (0,):
                yield Quantisation(bits=bits, table_bits=max(bits, TABLE_BITS), group=group)


def _known(name: str, bits: float, known: tuple[float, ...] = BITS) -> None:
    float32 = " or 32 (float32)" if FLOAT32 in known else ""
    rule = f"expected 1 to 8, 1.58 (three levels), 16 (bfloat16){float32}"
    require(bits in known, f"{_WHERE}.{name}", bits, rule)


def _reduced(config: Quantisation) -> Quantisation:
    if config.bits != FLOAT32:
        return config
    return Quantisation(after=config.after, after_groups=config.after_groups)


def levels(bits: float) -> int:
    """Values that a number of so many bits has."""
    return 3 if bits == TERNARY else 2 ** int(bits)


def input_dims(p: Parameter) -> str:
    """The dimensions that a scale is shared over: of a row of a table, all of the row."""
    return p.fan_in or "".join(dim for dim in p.dims if dim not in p.chosen)


@cache
def gaussian_step(n: int) -> float:
    """The step of n even levels with the least squared error on N(0, 1) (Max 1960, Table II)."""
    low, high = 0.0, 4.0
    for _ in range(100):
        left, right = low + (high - low) * 0.382, low + (high - low) * 0.618
        if gaussian_error(n, left) < gaussian_error(n, right):
            high = right
        else:
            low = left
    return (low + high) / 2


def gaussian_error(n: int, step: float) -> float:
    """Mean squared error of n levels of that step on N(0, 1), exactly."""
    inner = [step * (k - n / 2) for k in range(1, n)]
    edges = [-math.inf, *inner, math.inf]
    total = 0.0
    for k in range(n):
        low, high = edges[k], edges[k + 1]
        value = step * (k - (n - 1) / 2)
        mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
        first = _density(low) - _density(high)
        second = mass + _times_density(low) - _times_density(high)
        total += second - 2 * value * first + value**2 * mass
    return total


def _density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _times_density(x: float) -> float:
    return x * _density(x) if math.isfinite(x) else 0.0


def _scales(p: Parameter, group: int, model: ModelConfig) -> int:
    """How many scales all copies of a parameter have.

    Raises:
      UserError: the group does not divide the inputs of a channel.
    """
    inputs = size(input_dims(p), model)
    if group and inputs % group:
        raise UserError(
            f"{_WHERE}.group = {group}: does not divide the {inputs} inputs of {p.name} in a model "
            f"of {model.width}x{model.depth}"
        )
    return copies(p, model) * size(p.dims, model) // (group or inputs)


def checked(planned: ModelConfig, config: Quantisation) -> ModelConfig:
    """The same shape.

    Raises:
      UserError: a group that does not divide one of its matrices.
    """
    for each in (config, *config.measured()):
        for p in parameters(planned):
            if each.bits_of(p) < BFLOAT16:
                _scales(p, each.group, planned)
    return planned


def stored(ledger: Ledger, config: Quantisation, facts: Facts) -> Ledger:
    """The ledger with packed codes and their scales at rest. No product is cheaper for them."""

    def change(w: Weights) -> Weights:
        p = PARAMETERS[w.name]
        bits = config.bits_of(p)
        if bits == FLOAT32:
            return w
        if bits == BFLOAT16:
            return w.of_bits(16)
        if bits == TERNARY:  # of which one level is 0
            codes = -(-w.stored // _PER_BYTE)
        else:
            codes = -(-(w.nonzero * int(bits) + w.position_bits) // 8)
        scales = _SCALE_BYTES * _scales(p, config.group, facts.model)
        return dataclasses.replace(w, bytes_at_rest=codes + scales)

    return dataclasses.replace(ledger, weights=tuple(change(w) for w in ledger.weights))


def ending(measured: Quantisation) -> str:
    """What stands behind the columns of a measurement, and the run id of its row: b4g32."""
    return f"b{measured.bits:g}" + (f"g{measured.group}" if measured.group else "")


_OUTCOMES = ("loss", "loss_se", "bits_per_byte", "bytes_at_rest")  # of a measurement
_MEASURED = re.compile(rf"({'|'.join(_OUTCOMES)})_after_(b([\d.]+)(?:g(\d+))?)")


def columns_after(measured: Quantisation, outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a measurement: loss_after_b4 and more."""
    return {f"{name}_after_{ending(measured)}": outcomes[name] for name in _OUTCOMES}


def asked(config: Quantisation) -> tuple[str, ...]:
    """The losses of all measurements."""
    return tuple(f"loss_after_{ending(measured)}" for measured in config.measured())


def derived(row: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """A row for each width that a run was measured at: of its own loss and bytes.

    `excess_loss` is what the loss rose by.

    Raises:
      UserError: a measurement at a width that there is not, or a loss that is no number.
    """
    found: dict[str, dict[str, Any]] = {}
    for match in filter(None, map(_MEASURED.fullmatch, row)):
        outcome, name, bits, group = match.groups()
        if row[match[0]] not in (None, ""):
            condition = TECHNIQUE.columns(_width(match[0], bits, group))
            at_width = found.setdefault(name, condition | {"quantisation_start": 1.0})
            at_width[outcome] = row[match[0]]
    kept = {name: value for name, value in row.items() if not _MEASURED.fullmatch(name)}
    return tuple(
        {
            **kept,
            **values,
            "run_id": f"{row['run_id']}-{name}",
            "excess_loss": _loss(f"loss_after_{name}", values["loss"]) - _loss("loss", row["loss"]),
        }
        for name, values in found.items()
        if "loss" in values and row.get("loss") not in (None, "")
    )


def _width(column: str, bits: str, group: str | None) -> Quantisation:
    """What a column was measured at."""
    known = {f"{width:g}": width for width in BITS[:-1]}
    if bits not in known:
        raise UserError(f"column '{column}': there are no {bits} bits; one of {', '.join(known)}")
    return Quantisation(
        bits=known[bits], table_bits=max(known[bits], TABLE_BITS), group=int(group or 0)
    )


def _loss(column: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"column '{column}': {value!r:.60} is not a number") from None


def words(fields: Mapping[str, str]) -> str:
    """`4 bits`, `4 bits after training`, `4 bits from 75 % on`, and what else differs."""
    rest = {name: value for name, value in fields.items() if name not in ("bits", "start")}
    if "bits" not in fields:
        return f"quantisation {listed(fields)}"
    start = float(fields.get("start") or 0)
    when = {0.0: "", 1.0: " after training"}.get(start, f" from {100 * start:g} % on")
    bits = "1 bit" if fields["bits"] == "1" else f"{fields['bits']} bits"
    return ", ".join(filter(None, [bits + when, listed(rest)]))


TECHNIQUE = Technique(
    name="quantisation",
    off=Quantisation(),
    reduced=_reduced,
    model=checked,
    ledger=stored,
    laws=(precision.TRAINING, precision.AFTER, precision.GROUP),
    words=words,
    by_length=lambda config: config.start > 0,
    asked=asked,
    derived=derived,
)
