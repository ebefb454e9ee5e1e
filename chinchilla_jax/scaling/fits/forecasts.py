"""The sections `holdout`, `forecast` and `forecast_check`."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.scaling.fitting.intervals import Intervals

FORMS = ("surface", "loss_law")


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
