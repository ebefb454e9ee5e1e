"""The league table as a typed record: `league` in the report's fits.json.

Numbers are unrounded; what is missing, refused or without bound is None, and a sentence says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chinchilla_jax.scaling.fitting.intervals import Interval


@dataclass(frozen=True)
class Trend:
    """ln m = constant + exponent ln x; over one of N, D and D/N at a time."""

    over: str  # "N", "D" or "D/N"
    exponent: float | None
    low: float | None
    high: float | None
    told: bool  # whether the runs tell it from none, at a third of 5 %
    reason: str | None  # why there is none


@dataclass(frozen=True)
class Multiplier:
    """How many times as much of a measure the dense runs need for the loss of the technique.

    `value` is None where it is refused or beyond all bounds; an end that is None is open.
    """

    measure: str
    value: float | None
    low: float | None
    high: float | None
    reason: str | None  # why value is None, or why an end is open
    ratio: float | None  # of the measure itself, technique over dense run, geometric mean of pairs
    telling: int  # runs whose loss twice as much of the measure would change by more than noise
    trends: tuple[Trend, ...]

    @property
    def pays(self) -> bool | None:
        """Whether it is above 1 or below; None where these runs cannot tell."""
        if self.low is not None and self.low > 1:
            return True
        if self.high is not None and self.high < 1:
            return False
        return None

    @property
    def resampled(self) -> bool:
        """Whether draws were asked for, so that there is an interval or a reason for none."""
        return not (self.reason is None and self.low is None and self.high is None)


@dataclass(frozen=True)
class Stack:
    """Several techniques at once beside each of them alone, in one measure, over the cells that
    all of them have."""

    measure: str
    product: float | None  # of the parts' multipliers
    low: float | None
    high: float | None
    excess: float | None  # the stack's multiplier in those cells over the product
    excess_low: float | None
    excess_high: float | None


@dataclass(frozen=True)
class Standing:
    """One condition of the league table."""

    condition: dict[str, str]
    label: str
    runs: int
    cells: int
    paired: int  # runs whose dense partner has their seed
    params: float | None  # of the dense run where the multiplier holds: the runs' middle
    tokens: float | None
    change: float | None  # mean of ln(loss / loss of the dense partner)
    change_interval: Interval | None
    correlation: float | None  # share of a dense partner's miss that is taken off
    scatter: float | None  # of ln loss about the multiplier, standard deviation
    multipliers: tuple[Multiplier, ...]
    parts: tuple[str, ...]  # labels of the conditions that it is a stack of
    stacks: tuple[Stack, ...]
    told: tuple[str, ...] = ()  # what else its runs have measured, in clauses


@dataclass(frozen=True)
class Measure:
    """What is counted: a column of the table, or training FLOPs or tokens."""

    name: str
    title: str
    axis: str  # "size", "compute" or "tokens"
    also: tuple[str, ...]  # other measures that are the same in these runs, up to a constant
    dense_per_param: float | None  # of the dense runs: bytes a parameter, FLOPs a parameter


@dataclass(frozen=True)
class League:
    """Every condition measured by the dense runs."""

    dense: dict[str, str]  # the condition that measures
    label: str  # of it
    dense_runs: int
    dense_noise: float | None  # standard deviation of ln loss about the dense law
    charge: str
    refusal: str | None  # why there are no multipliers at all
    measures: tuple[Measure, ...]
    standings: tuple[Standing, ...]
    warnings: tuple[str, ...]

    def ordered(self) -> list[Standing]:
        """The largest multiplier of the first measure first; those without bound before it."""

        def place(one: Standing) -> float:
            first = next(iter(one.multipliers), None)
            if first is None or (first.value is None and first.low is None):
                return math.inf
            return -math.inf if first.value is None else -first.value

        return sorted(self.standings, key=place)


@dataclass(frozen=True)
class SpeedUp:
    """At `flops` the second side has a loss for which the first needs `value` times as many."""

    flops: float
    value: float | None
    low: float | None
    high: float | None
    loss: float | None


@dataclass(frozen=True)
class Fitness:
    """How well a side's law fits; standard deviations of ln loss."""

    title: str
    runs: int
    noise: float  # about the law
    seeds: float | None  # between runs of one cell
    lack_of_fit: float | None  # p of F's test of the one against the other


@dataclass(frozen=True)
class Versus:
    """The compute-equivalent speed-up of the second side over the first."""

    first: str
    second: str
    refusal: str | None  # why there is none
    overall: Multiplier | None  # one for all runs, by the first side's law and the pairs
    at: tuple[SpeedUp, ...]  # by both laws, over the FLOPs that both sides have
    fitness: tuple[Fitness, ...]
    seconds: float | None  # FLOPs a second, second over first, where timed on one device
    warnings: tuple[str, ...]
