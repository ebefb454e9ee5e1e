"""What a fit of hyper-parameters found: `tuning` in fits.json."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.scaling.fitting.intervals import Interval, Intervals


@dataclass(frozen=True)
class Lost:
    """The share of the loss that missing the best value costs, `factor` times above or under it."""

    factor: float
    share: float
    interval: Interval | None


@dataclass(frozen=True)
class SettingLaw:
    """The best value of a setting: coefficient x the product of powers of what it depends on.

    Attributes:
      setting: learning_rate, batch, weight_decay (its timescale, a share of the run); unit: its.
      formula: the law in one line; status: "ok" or "refused", and why.
      exponents: by what they are of: params, tokens, batch, tokens_per_param.
      curvature: ln loss rises by curvature x ln(value / best)^2.
      interval: 95 %, of `coefficient`, `curvature` and each exponent; empty without draws.
      lost: by the curvature.
      cells: of equal params and tokens, in which it was varied; outside: those whose best value
        lies beyond the values that were tried.
    """

    setting: str
    unit: str
    formula: str
    status: str
    reason: str | None
    coefficient: float | None
    exponents: dict[str, float]
    curvature: float | None
    interval: Intervals
    lost: tuple[Lost, ...]
    cells: int
    outside: int


@dataclass(frozen=True)
class TunedCell:
    """The best settings of one size and length by its own runs, with the curvatures of all.

    Settings by name; a setting is missing where the cell has too few runs for its own.
    `error` is the standard error of its logarithm; `tried` the values of its runs near the best.
    """

    params: float
    tokens: float
    runs: int
    loss: float  # of its best run
    best: dict[str, float]
    error: dict[str, float]
    law: dict[str, float]  # what the laws say there
    tried: dict[str, Interval]


@dataclass(frozen=True)
class HeldOutSettings:
    """The laws of all other cells against those left out, the largest by size or length.

    `error` is the rms of ln(law / own best) by setting, `expected` what the scatter of runs alone
    would make of it; `lost` the share of the loss that the laws' settings cost there, as the
    curvature has it, the scatter included.
    """

    largest: str  # "params" or "tokens"
    cells: int
    error: dict[str, float]
    expected: dict[str, float]
    lost: float


@dataclass(frozen=True)
class PublishedBeside:
    """A published law (or the recipe of this package) at the cells of the table.

    Attributes:
      law, title: its name and heading; policy: of the batch: "tuned", "fixed".
      exponents: as printed, by setting, then by what they are of.
      learning_rate, batch_tokens: at the largest cell; None where it says nothing of it.
      lost, worst: share of the loss that its settings cost, over cells; None without a coefficient.
      decades: how far the cells lie outside what it was fitted on; None where that is not known.
    """

    law: str
    title: str
    policy: str
    exponents: dict[str, dict[str, float]]
    learning_rate: float | None
    batch_tokens: float | None
    lost: float | None
    worst: float | None
    decades: float | None


@dataclass(frozen=True)
class Tuning:
    """Laws of hyper-parameters, and what they rest on.

    Attributes:
      asked: names of --laws; laws: theirs; those of others that vary too are fitted beside.
      policy: of the batch: "tuned" where it varies inside cells; "fixed", one for all; "followed",
        one a cell, with the exponent of tokens that it followed.
      followed: that exponent.
      at_tuned_batch: exponents of the best rate where the batch is the best one too; its interval.
      runs, near: within `near` of the lowest loss of their cell; the rows fitted.
      noise: standard deviation of ln loss around the fit.
      published: laws beside, the least lost first.
      warnings: sentences.
    """

    asked: tuple[str, ...]
    laws: tuple[SettingLaw, ...]
    policy: str
    followed: float | None
    at_tuned_batch: dict[str, float]
    at_tuned_batch_interval: Intervals
    runs: int
    near: float
    noise: float
    cells: tuple[TunedCell, ...]
    held_out: tuple[HeldOutSettings, ...]
    published: tuple[PublishedBeside, ...]
    warnings: tuple[str, ...]
