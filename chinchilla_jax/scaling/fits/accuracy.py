"""The section `tasks`: accuracies by size and tokens."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.laws.fit import LawFit


@dataclass(frozen=True)
class AccuracyFit:
    """A law from size and tokens to accuracy; see laws/downstream.py."""

    form: str  # "two_step" or "direct"
    surface: dict[str, float]  # E, A, ... of the task's loss, or of -ln accuracy
    link: LawFit | None  # accuracy by the loss, of two steps
    rms: float | None  # error of accuracy over the runs fitted
    held_out_rms: float | None  # and over larger runs held out
    held_out_bias: float | None
    held_out: int


@dataclass(frozen=True)
class AccuracyForecast:
    """Accuracy at a forecast of `Fits.forecast`."""

    flops: float
    params: float
    tokens: float
    accuracy: float
    interval: Interval | None


@dataclass(frozen=True)
class AccuracyCheck:
    """A large run's accuracy by the smaller runs alone, and as it was measured."""

    run_id: str
    flops: float
    params: float
    tokens: float
    form: str
    predicted: float
    interval: Interval | None
    observed: float
    inside: bool | None
    fitted_up_to: float  # FLOPs


@dataclass(frozen=True)
class Task:
    """Accuracy on a task, a share of 1, by size and tokens; `forms` has the better first."""

    name: str
    accuracy: str  # the column
    error: bool  # whether that holds the share that is wrong
    loss: str | None  # the task's own loss; None where the run's stands for it
    chance: float  # of guessing; 0 where it is not known
    runs: int
    range: Interval | None
    status: str
    reason: str  # why this form, or why none
    best: str | None
    forms: tuple[AccuracyFit, ...]
    forecast: tuple[AccuracyForecast, ...]
    checked: tuple[AccuracyCheck, ...]  # the largest runs
