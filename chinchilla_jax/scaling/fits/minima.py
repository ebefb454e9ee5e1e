"""The sections `isoflop` and `envelope`: minima of profiles, and curves' lower envelope."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.experiment.schema import one_of
from chinchilla_jax.scaling.fits.bounds import loss_law_within, within
from chinchilla_jax.scaling.fitting.bias import Bias
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.fitting.intervals import Intervals


@dataclass(frozen=True)
class MethodMinimum:
    """The minimum of one budget by one method; numbers are None when refused."""

    status: str
    reason: str | None
    params: float | None
    tokens: float | None
    loss: float | None
    curvature: float | None  # of the loss in ln params
    log_params_se: float | None  # standard error of ln params


@dataclass(frozen=True)
class LowestRun:
    """The best run of a budget as it is."""

    params: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class BudgetMinimum:
    """One iso-FLOP profile."""

    flops: float
    runs: int
    sizes: int
    status: str
    reason: str | None
    params: float | None  # the minimum by the chosen estimator
    tokens: float | None
    loss: float | None
    log_params_se: float | None  # standard error of ln params
    lowest: LowestRun
    grid_width: float  # largest over smallest params
    centre_drift: float | None  # ln(minimum / geometric middle of the grid)
    valley: MethodMinimum  # this and the others through all sizes
    parabola: MethodMinimum
    cubic: MethodMinimum
    akima: MethodMinimum


@dataclass(frozen=True)
class ComputeLaw:
    """loss = E + A / flops^exponent along the minima."""

    E: float
    A: float
    exponent: float

    def __post_init__(self) -> None:
        loss_law_within("isoflop.loss_law", self.E, self.A, self.exponent)


@dataclass(frozen=True)
class FrontierLaws:
    """params = params_at_1 flops^a and tokens = tokens_at_1 flops^b through one method's minima."""

    status: str
    reason: str | None
    a: float | None
    b: float | None
    params_at_1: float | None
    tokens_at_1: float | None
    loss_law: ComputeLaw | None
    budgets: int  # that the laws go through
    weights: str  # "equal" or "noise"
    interval: Intervals  # of a, b
    standard_error: dict[str, float | None]


@dataclass(frozen=True)
class MethodBias:
    """What each method would miss on the fitted surface; None where it has no exponents."""

    valley: Bias | None
    parabola: Bias | None
    cubic: Bias | None
    akima: Bias | None

    def by(self, method: str) -> Bias | None:
        """The bias of a method of METHODS."""
        found: Bias | None = getattr(self, method)
        return found


@dataclass(frozen=True)
class LossNoise:
    """How much ln loss scatters between runs that differ in nothing but chance."""

    log_loss: float  # standard deviation
    from_: str  # "seeds", "surface residuals", "curve residuals" or "none"
    freedom: int
    trend: float  # of ln of the standard deviation in ln FLOPs, at `flops` of which it is log_loss
    flops: float | None
    shared: float | None = None  # of its variance, by branches of one trunk
    # FLOPs of the replicates that tell the trend: outside it is level.
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        within("noise", 0.0, 1.0, shared=self.shared or 0.0)


@dataclass(frozen=True)
class TriedEstimator:
    """A way of finding minima: rms error of ln loss of sizes left out, and its exponents."""

    method: str
    sizes: str  # that the curve goes through
    left_out_rms: float | None
    votes: float  # share of the draws of a, b and forecasts that it makes
    a: float | None
    b: float | None

    def __post_init__(self) -> None:
        one_of("fits.isoflop.tried.method", self.method, METHODS)


@dataclass(frozen=True)
class IsoFlop:
    """Approach 2, the minima of iso-FLOP profiles; a, b, interval are the chosen estimator's."""

    status: str
    reason: str | None
    minima: str  # the method that was chosen, of METHODS
    sizes: str  # that its curves go through
    chosen_because: str
    left_out: int  # sizes near minima that were left out, each in turn
    tried: tuple[TriedEstimator, ...]  # in order of preference
    a: float | None
    b: float | None
    chosen: FrontierLaws
    valley: FrontierLaws  # this and the others through all sizes
    parabola: FrontierLaws
    cubic: FrontierLaws
    akima: FrontierLaws
    budgets: tuple[BudgetMinimum, ...]
    expected_bias: MethodBias | None
    noise: LossNoise
    interval: Intervals

    def __post_init__(self) -> None:
        one_of("fits.isoflop.minima", self.minima, METHODS)

    def by(self, method: str) -> FrontierLaws:
        """The laws of a method of METHODS, through all sizes."""
        found: FrontierLaws = getattr(self, method)
        return found


@dataclass(frozen=True)
class EnvelopeLaws:
    """Approach 1, the lower envelope of training curves."""

    status: str
    reason: str | None
    a: float | None
    b: float | None
    params_at_1: float | None
    tokens_at_1: float | None
    curves: int
    points: int  # fitted
    last_15_percent: float | None  # share of the points in the last 15 % of their run
    interval: Intervals  # of a, b
