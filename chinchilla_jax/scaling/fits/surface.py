"""The sections `parametric`, `lack_of_fit` and `forms`: surfaces on all runs."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.scaling.fits.bounds import surface_within
from chinchilla_jax.scaling.fitting.intervals import Intervals


@dataclass(frozen=True)
class RunnerUp:
    """Another local optimum of the surface."""

    objective: float
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    starts: float  # share of the starts that ended here, 0 to 1

    def __post_init__(self) -> None:
        surface_within("parametric.runner_up", (self.E, self.A, self.B), (self.alpha, self.beta))


@dataclass(frozen=True)
class Bootstrap:
    """Of the surface. Audited draws were fitted again from a grid of their own."""

    draws: int
    failed: int
    audited: int
    improved: float  # share of the audited whose own fit was not the best


@dataclass(frozen=True)
class Parametric:
    """Approach 3, the surface E + A/N^alpha + B/D^beta on all runs; all None when refused."""

    status: str  # "ok" or "refused"
    reason: str | None
    loss: str  # what the objective sums over runs
    delta: float | None  # Huber's, where the objective has one
    tied: bool  # alpha = beta
    objective: float | None
    E: float | None
    A: float | None
    B: float | None
    alpha: float | None
    beta: float | None
    a: float | None  # of N* ~ C^a; a, b and G are None too where A, B, alpha or beta is at a bound
    b: float | None
    G: float | None  # (alpha A / beta B)^(1 / (alpha + beta))
    gradient_norm: float | None
    starts: int | None
    starts_agreeing: float | None  # share, 0 to 1
    runner_up: tuple[RunnerUp, ...]
    at_bound: tuple[str, ...]  # of E, A, B, alpha, beta
    runs: int
    noise: float | None  # standard deviation of the log residuals
    correlation_ln_params_ln_tokens: float | None
    interval: Intervals  # of E, A, B, alpha, beta, and of a, b where they are given
    standard_error: dict[str, float | None]
    bootstrap: Bootstrap | None
    weights: str  # "equal", "noise" or "column"
    selection: str  # "all"

    def __post_init__(self) -> None:
        surface_within("parametric", (self.E, self.A, self.B), (self.alpha, self.beta))


@dataclass(frozen=True)
class MissedRegion:
    """Runs of a third of the sizes and a third of the tokens per parameter."""

    size: str  # small, middling, large
    length: str  # trained short, as usual, long
    missed: float  # mean of ln(predicted / observed)
    runs: int


@dataclass(frozen=True)
class LackOfFit:
    """How the residuals of `Parametric` follow size and tokens."""

    p: float  # of so much by chance
    missed: float  # rms of what a cubic in (ln N, ln D) explains of ln(predicted / observed)
    noise: float  # standard deviation of what it leaves
    regions: tuple[MissedRegion, ...]  # those missed most, low and high


@dataclass(frozen=True)
class FormFit:
    """A form of surface on all runs, and its certificate as in `Parametric`."""

    form: str
    formula: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float
    a: float | None  # of N* ~ C^a; None where A, B, alpha or beta is at a bound
    b: float | None
    objective: float
    noise: float | None  # standard deviation of the log residuals
    gradient_norm: float | None
    starts: int
    starts_agreeing: float
    at_bound: tuple[str, ...]
