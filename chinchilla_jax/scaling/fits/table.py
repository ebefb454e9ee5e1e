"""The section `table`: what was read, and what was taken for what."""

from __future__ import annotations

from dataclasses import dataclass, field

from chinchilla_jax.experiment.schema import UNLESS_DEFAULT
from chinchilla_jax.scaling.fits.bounds import MOST, within
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.kinds import Column
from chinchilla_jax.scaling.table.runs import Aside


@dataclass(frozen=True)
class Choices(Settings):
    """What the flags said, and the level of every interval."""

    level: float = LEVEL


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest of the runs fitted."""

    params: Interval
    tokens: Interval
    flops: Interval
    loss: Interval
    tokens_per_param: Interval

    def __post_init__(self) -> None:
        for name, (low, high) in vars(self).items():
            within("table.range", 1 / MOST, MOST, **{name: low})
            within("table.range", low, MOST, **{name: high})


@dataclass(frozen=True)
class Trunks:
    """Runs that share trunks, so that they scatter together and cost less than they are worth."""

    trunks: int  # that have branches among these runs
    branches: int
    flops: float | None  # spent, each trunk once; None where the table does not tell
    flops_apart: float  # of the same runs without trunks

    def __post_init__(self) -> None:
        within("table.trunks", 0.0, MOST, **vars(self) | {"flops": self.flops or 0.0})


@dataclass(frozen=True)
class RunTable:
    """The table of runs as it was read."""

    source: str  # its file or folder
    rows: int
    fitted: int
    beaten: int  # at worse settings of their cell: shown, not fitted
    aside: dict[str, int]  # rows not fitted, by status
    aside_rows: tuple[Aside, ...]  # the first 200 of them
    params_convention: str
    flops_convention: str
    budgets_from: str | None  # "column", "grouped", or None where there are no budgets
    axes: tuple[str, ...]  # numeric columns besides params, tokens, flops and loss that vary
    range: Ranges
    vocab_size: int | None  # that all runs share
    columns: tuple[Column, ...]  # what each column of the file was taken for
    condition: dict[str, str]  # values by which these runs were picked out of a larger table
    flops_model: FlopsModel  # flops = kappa params^exponent tokens; 6 and 1 when C = 6ND holds
    trunks: Trunks | None = None  # where some runs are branches
    # By which columns of ours were read, where a name or a person says a factor.
    scale: dict[str, float] = field(default_factory=dict, metadata=UNLESS_DEFAULT)
