"""What an evaluation found, as one typed record: the report's `fits.json`.

    fits, arrays = analyse(read_runs("results.csv"), Settings())
    write("report/fits.json", fits)
    read("report/fits.json").parametric.alpha

A class is a section of the file and a field its key. Numbers are unrounded; what is missing or
refused is None (null), never NaN and never 0, and a sentence in `reason` says why. Units: params
(count), tokens (count), flops (FLOPs), loss (nats per token, or as given).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import (
    UNLESS_DEFAULT,
    from_json,
    one_of,
    require,
    to_json,
)
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.bias import Bias
from chinchilla_jax.scaling.fitting.coupled import EXPONENTS, GAMMAS
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.fitting.forms import FORMS as SURFACES
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval, Intervals
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.separable import EXPONENT_BOUNDS
from chinchilla_jax.scaling.fitting.surface import PARAMETERS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.kinds import Column
from chinchilla_jax.scaling.table.runs import Aside
from chinchilla_jax.scaling.tuning.records import Tuning

VERSION = 3
_MOST = 1e300  # of a coefficient, a loss, or a count of anything
_STEEPEST = 1e6  # exponent of a size or of tokens
FORMS = ("surface", "loss_law")


def _within(where: str, low: float, high: float, **values: float | None) -> None:
    """Raises UserError for the first number that no fit of runs gives: the file was changed."""
    for name, value in values.items():
        known = value is None or low <= value <= high
        require(known, f"fits.{where}.{name}", value, f"must lie between {low:g} and {high:g}")


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
            _within("table.range", 1 / _MOST, _MOST, **{name: low})
            _within("table.range", low, _MOST, **{name: high})


@dataclass(frozen=True)
class Trunks:
    """Runs that share trunks, so that they scatter together and cost less than they are worth."""

    trunks: int  # that have branches among these runs
    branches: int
    flops: float | None  # spent, each trunk once; None where the table does not tell
    flops_apart: float  # of the same runs without trunks

    def __post_init__(self) -> None:
        _within("table.trunks", 0.0, _MOST, **vars(self) | {"flops": self.flops or 0.0})


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
        _surface_within("parametric.runner_up", self)


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
        _surface_within("parametric", self)


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
        _loss_law_within("isoflop.loss_law", self)


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

    def __post_init__(self) -> None:
        _within("noise", 0.0, 1.0, shared=self.shared or 0.0)


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


@dataclass(frozen=True)
class Fold:
    """Fitted up to a budget; the minima of the others are predicted."""

    fitted_up_to: float  # FLOPs
    held_out: tuple[float, ...]  # FLOPs


@dataclass(frozen=True)
class HeldOutMinimum:
    """A predicted and an observed loss, and ln of their ratio; None where there is no optimum."""

    flops: float
    predicted: float | None
    observed: float
    error: float | None


@dataclass(frozen=True)
class FoldErrors:
    """One form on one selection of runs in one fold."""

    form: str  # "surface" or "loss_law"
    selection: str  # "all", "within 8 % of ...", "tokens per parameter ..."; "minima" of loss_law
    fitted_up_to: float  # FLOPs
    runs: int
    minima: tuple[HeldOutMinimum, ...]
    params_rms: float | None  # of ln params at the predicted optimum
    cells_rms: float | None  # errors of ln loss of runs beyond
    cells_bias: float | None


@dataclass(frozen=True)
class ForecastScore:
    """One form on one selection of runs over all folds; errors of ln loss."""

    form: str
    selection: str
    minima_rms: float | None
    minima_bias: float | None
    cells_rms: float | None
    forecasts: int  # minima predicted


@dataclass(frozen=True)
class BestForecast:
    """The form and the runs that forecasts rest on, and why."""

    form: str
    selection: str
    reason: str


@dataclass(frozen=True)
class Holdout:
    """Every form fitted up to a budget and compared with what lies beyond."""

    status: str
    reason: str | None
    minima: str  # whose minima were predicted, of METHODS
    folds: tuple[Fold, ...]
    errors: tuple[FoldErrors, ...]
    summary: tuple[ForecastScore, ...]  # best first
    best: BestForecast


@dataclass(frozen=True)
class Prediction:
    """The compute-optimal run of a budget by one form on one selection of runs."""

    form: str | None
    selection: str | None
    minima: str | None  # the method, of the form loss_law
    params: float | None
    tokens: float | None
    tokens_per_param: float | None
    loss: float | None
    # Of params, tokens, tokens_per_param, loss, and new_run: where the loss of one more run of that
    # size would fall. None without draws.
    interval: Intervals | None


@dataclass(frozen=True)
class Forecast(Prediction):
    """The prediction that hold-out prefers, and all others; all None where nothing predicts."""

    flops: float
    decades: float  # beyond the largest flops fitted; 0 or less inside
    every: tuple[Prediction, ...]


@dataclass(frozen=True)
class Check:
    """A forecast by the runs up to Settings.holdout_above alone against a minimum beyond it.

    Errors are ln(predicted / observed).
    """

    flops: float
    form: str
    selection: str
    chosen: bool  # whether hold-out within the early runs prefers it
    predicted: float | None  # loss
    observed: float
    error: float | None
    predicted_params: float | None
    observed_params: float
    params_error: float | None
    predicted_tokens: float | None
    observed_tokens: float
    tokens_error: float | None
    interval: Intervals | None  # of loss, params, tokens; of the forecast, without the scatter of
    # the measured minimum
    inside_interval: dict[str, bool | None]  # whether the observed one is; None without interval
    fitted_up_to: float  # FLOPs
    runs: int  # fitted, or minima of the form loss_law


@dataclass(frozen=True)
class Variant:
    """A surface of the same table with something changed, and its optimum at one budget."""

    a: float | None
    alpha: float
    beta: float
    E: float
    objective: float | None
    params: float | None
    tokens_per_param: float | None
    at_flops: float
    at_bound: tuple[str, ...]  # as in Parametric: beyond E, no exponent and no optimum


@dataclass(frozen=True)
class BudgetLeftOut(Variant):
    budget: float  # FLOPs


@dataclass(frozen=True)
class TopDropped(Variant):
    dropped: float  # runs of the highest losses


@dataclass(frozen=True)
class OtherDelta(Variant):
    delta: float  # Huber's


@dataclass(frozen=True)
class Influences:
    """What single budgets, high losses and delta do; a list is empty where it makes no sense."""

    leave_one_budget_out: tuple[BudgetLeftOut, ...]
    drop_top: tuple[TopDropped, ...]
    delta: tuple[OtherDelta, ...]


@dataclass(frozen=True)
class Convention:
    """The exponent a under one count of parameters and FLOPs."""

    params: str
    flops: str
    runs: int
    status: str  # of the surface
    reason: str | None
    surface_a: float | None
    surface_b: float | None
    interval: Intervals | None  # of a
    valley_a: float | None
    parabola_a: float | None
    cubic_a: float | None
    akima_a: float | None
    chosen: bool  # whether all else in the record is counted so


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


@dataclass(frozen=True)
class HeldOutError:
    """rms of ln(predicted / observed) over the budgets that a form had not seen.

    `nearest` and `distance` are the smallest and the rms of ln FLOPs beyond those fitted.
    """

    loss: float
    params: float
    nearest: float
    distance: float
    forecasts: int

    def __post_init__(self) -> None:
        _within("sources.held_out", 0.0, _MOST, loss=self.loss, params=self.params)
        _within("sources.held_out", 1 / _MOST, _MOST, nearest=self.nearest, distance=self.distance)


@dataclass(frozen=True)
class SurfaceSource:
    """The surface that `draws.surface` belongs to."""

    form: str  # of fitting.forms.FORMS
    selection: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float  # 1 of Chinchilla's form
    noise: float
    held_out: HeldOutError | None = None

    def __post_init__(self) -> None:
        one_of("fits.sources.surface.form", self.form, tuple(SURFACES))
        _surface_within("sources.surface", self)
        _within("sources.surface", 0.0, _MOST, noise=self.noise)
        _within("sources.surface", *GAMMAS, gamma=self.gamma)


@dataclass(frozen=True)
class MinimaSource:
    """The laws through the minima that `draws.minima` belongs to."""

    method: str
    a: float
    ln_params_at_1: float
    b: float
    ln_tokens_at_1: float
    E: float
    A: float
    exponent: float
    noise: float
    held_out: HeldOutError | None = None

    def __post_init__(self) -> None:
        _loss_law_within("sources.minima", self)
        _within("sources.minima", 0.0, _MOST, noise=self.noise)
        _within("sources.minima", -_STEEPEST, _STEEPEST, a=self.a, b=self.b)


def _surface_within(where: str, of: SurfaceSource | RunMember | RunnerUp | Parametric) -> None:
    _within(where, 0.0, _MOST, E=of.E, A=of.A, B=of.B)
    _within(where, *EXPONENTS, alpha=of.alpha, beta=of.beta)


def _loss_law_within(where: str, of: MinimaSource | ComputeLaw) -> None:
    _within(where, 0.0, _MOST, E=of.E, A=of.A)
    _within(where, *EXPONENT_BOUNDS, exponent=of.exponent)


@dataclass(frozen=True)
class RunMember:
    """A surface that forecasts of single runs average, and how it did on runs it had not seen."""

    form: str  # of fitting.forms.FORMS
    selection: str  # of the runs it was fitted on
    runs: int
    weight: float  # of ln loss; they sum to 1
    rms: float | None  # of ln(predicted / observed) of runs beyond the cuts; None: unchecked
    bias: float | None
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        where = "sources.runs.members"
        one_of(f"fits.{where}.form", self.form, tuple(SURFACES))
        _surface_within(where, self)
        _within(where, *GAMMAS, gamma=self.gamma)
        _within(where, 0.0, 1.0, weight=self.weight)


@dataclass(frozen=True)
class HeldOutRuns:
    """Errors of the average of surfaces at runs beyond those fitted, over all cuts."""

    loss: float  # rms of ln(predicted / observed)
    distance: float  # rms of ln FLOPs beyond those fitted
    cuts: int
    runs: int  # predicted

    def __post_init__(self) -> None:
        _within("sources.runs.held_out", 0.0, _MOST, loss=self.loss)
        _within("sources.runs.held_out", 1e-6, _MOST, distance=self.distance)


@dataclass(frozen=True)
class RunSource:
    """What forecasts of single runs rest on: the mean of ln loss over surfaces, by weight."""

    members: tuple[RunMember, ...]  # the heaviest first
    reason: str  # why these weights
    noise: float  # standard deviation of ln loss of a run around the average
    held_out: HeldOutRuns | None  # None where nothing could be held out

    def __post_init__(self) -> None:
        require(bool(self.members), "fits.sources.runs.members", [], "one at least is needed")
        _within("sources.runs", 0.0, _MOST, noise=self.noise)


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
class Sources:
    """The fits that forecasts rest on; None where they were refused."""

    surface: SurfaceSource | None
    minima: MinimaSource | None
    runs: RunSource | None = None


@dataclass(frozen=True, eq=False)
class DrawTable:
    """A row per bootstrap draw; NaN in memory, null in the file where a draw has no optimum."""

    columns: tuple[str, ...]
    rows: Floats  # [draws, columns]

    def to_json(self) -> dict[str, Any]:
        """At NumPy's speed: the rows are too many for one call an entry."""
        rows, missing = self.rows, ~np.isfinite(self.rows)
        if missing.any():
            rows = rows.astype(object)
            rows[missing] = None
        return {"columns": list(self.columns), "rows": rows.tolist()}

    @classmethod
    def from_json(cls, data: object, where: str) -> DrawTable:
        """The inverse of `to_json`.

        Raises:
          UserError: not a table of numbers and nulls under these columns.
        """
        if not isinstance(data, Mapping) or set(data) != {"columns", "rows"}:
            raise UserError(f"{where}: expected an object with the fields columns, rows")
        names, rows = data["columns"], data["rows"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{where}.columns: expected a list of texts")
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise UserError(f"{where}.rows: expected a list of lists")
        if set(map(len, rows)) - {len(names)}:
            raise UserError(f"{where}.rows: expected {len(names)} entries in every row")
        kinds = {kind for row in rows for kind in map(type, row)}
        if not kinds <= {float, int, type(None)}:
            raise UserError(f"{where}.rows: expected numbers and nulls")
        try:
            table = np.array(rows, float).reshape(-1, len(names))
        except OverflowError:
            raise UserError(f"{where}.rows: expected finite numbers") from None
        if np.isinf(table).any():
            raise UserError(f"{where}.rows: expected finite numbers")
        return cls(tuple(names), table)


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of `Sources`, from which `forecast` gives intervals at any budget.

    Columns are those of the source, the noise of `minima` and what is no number apart.
    """

    surface: DrawTable | None
    minima: DrawTable | None
    runs: DrawTable | None = None  # of all members, each as often as its weight says

    def __post_init__(self) -> None:
        for name, table, source, left in (
            ("surface", self.surface, SurfaceSource, ("form", "selection", "held_out")),
            ("minima", self.minima, MinimaSource, ("method", "noise", "held_out")),
        ):
            wanted = [each.name for each in fields(source) if each.name not in left]
            self._expect(name, table, wanted)
        self._expect("runs", self.runs, list(PARAMETERS))

    @staticmethod
    def _expect(name: str, table: DrawTable | None, wanted: list[str]) -> None:
        if table is not None and list(table.columns) != wanted:
            raise UserError(f"fits.draws.{name}: expected the columns {', '.join(wanted)}")


@dataclass(frozen=True)
class Fits:
    """All of it."""

    version: int
    settings: Choices
    table: RunTable
    parametric: Parametric
    lack_of_fit: LackOfFit | None  # None where there is no surface, or too few runs
    forms: tuple[FormFit, ...]  # of surface, Chinchilla's first; empty where it was refused
    isoflop: IsoFlop
    envelope: EnvelopeLaws
    holdout: Holdout
    forecast: tuple[Forecast, ...]  # one for each budget asked for
    forecast_check: tuple[Check, ...] | None  # None without Settings.holdout_above
    influence: Influences
    conventions: tuple[Convention, ...]
    laws: tuple[LawFit, ...]  # those of --laws
    sources: Sources
    draws: Draws
    warnings: tuple[str, ...]  # a sentence each, most important first
    refusals: tuple[Refusal, ...]  # what cannot be known, and which runs would tell it
    tasks: tuple[Task, ...] = ()  # accuracies, where the table has some
    # Laws of hyper-parameters, of --laws.
    tuning: Tuning | None = field(default=None, metadata=UNLESS_DEFAULT)


def write(path: Path | str, fits: Fits) -> None:
    """Writes the record; the bootstrap draws on one line, the rest indented for reading.

    Raises:
      UserError: the folder cannot be written.
    """
    storage.write_text_atomic(path, text(to_json(fits)))


def text(data: object) -> str:
    """JSON as it is read: an entry a line, `draws` on one."""
    return f"{''.join(_lines(data, 1))}\n"


def _lines(value: object, depth: int) -> Iterator[str]:
    if not isinstance(value, dict | list) or not value:
        missing = isinstance(value, float) and not math.isfinite(value)
        yield json.dumps(None if missing else value, allow_nan=False)
        return
    named = isinstance(value, dict)
    items = value.items() if isinstance(value, dict) else (("", item) for item in value)
    between = "{" if named else "["
    for name, item in items:
        yield f"{between}\n{' ' * depth}{json.dumps(name) + ': ' if named else ''}"
        if name == "draws" and isinstance(item, dict):
            yield json.dumps(item, allow_nan=False, separators=(",", ":"))
        else:
            yield from _lines(item, depth + 1)
        between = ","
    yield f"\n{' ' * (depth - 1)}{'}' if named else ']'}"


def read(path: Path | str) -> Fits:
    """The record as it was written.

    Raises:
      UserError: no such file, another version, or not what `write` writes.
    """
    path = storage.path(path)
    data = storage.read_json(path)
    check_version(data, path)
    try:
        return from_json(Fits, data, "fits")
    except UserError as error:
        raise UserError(f"{path}: {error}; run evaluate again") from None


def check_version(data: object, path: Path) -> None:
    """Raises UserError unless `data` is of this version."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        found = "no fits.json" if version is None else f"a fits.json of version {version!r:.20}"
        raise UserError(f"{path}: is {found}, and version {VERSION} is needed: run evaluate again")
