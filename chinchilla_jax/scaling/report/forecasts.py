"""What is forecast, as a sentence and tables, and how such forecasts did where it was seen."""

from __future__ import annotations

from collections.abc import Callable

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import count, loss, percent, ratio
from chinchilla_jax.scaling.fits import Check, Fits, Forecast
from chinchilla_jax.scaling.fitting.estimators import TITLES
from chinchilla_jax.scaling.report.table import Rows, Table, estimate

FORMS = {"surface": "surface", "loss_law": "L(C) through the minima"}


def sentence(row: Forecast) -> str:
    spread = row.interval
    text = (
        f"For {numbers.flops(row.flops)} FLOPs train "
        f"{estimate(row.params, spread, 'params', count)} parameters on "
        f"{estimate(row.tokens, spread, 'tokens', count)} tokens, "
        f"{ratio(row.tokens_per_param)} tokens per parameter; expect a loss of "
        f"{estimate(row.loss, spread, 'loss', loss)}"
    )
    return text + (f", {row.decades:.1f} decades beyond the runs." if row.decades > 0.05 else ".")


def every(fits: Fits) -> Table | str:
    """Every form and selection at every asked budget."""
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits.forecast:
        for other in row.every:
            if (other.form, other.selection) == (row.form, row.selection):
                marks[len(rows)] = "forecast"
            spread = other.interval
            method = f", {TITLES[other.minima]}" if other.minima else ""
            rows.append(
                (
                    numbers.flops(row.flops),
                    f"{FORMS[other.form or 'surface']}{method}",
                    other.selection or "",
                    estimate(other.params, spread, "params", count),
                    ratio(other.tokens_per_param),
                    estimate(other.loss, spread, "loss", loss),
                )
            )
    head = ("FLOPs C", "form", "runs", "N*", "D*/N*", "loss")
    table = Table("Every forecast", head, rows, "", marks)
    return table if rows else "No forecast: neither the surface nor the minima give an optimum."


def holdout(fits: Fits) -> Table | str:
    """Error of every forecast on minima and cells that it had not seen."""
    best = fits.holdout.best
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits.holdout.summary:
        if (row.form, row.selection) == (best.form, best.selection):
            marks[len(rows)] = "forecast"
        rows.append(
            (
                FORMS[row.form], row.selection, str(row.forecasts),
                percent(row.minima_bias), percent(row.minima_rms).lstrip("+"),
                percent(row.cells_rms).lstrip("+"),
            )
        )  # fmt: skip
    head = ("form", "runs", "held-out minima", "bias", "rms", "rms of single runs")
    note = (
        "Fitted up to a budget, compared with the minima and the runs beyond it; errors of ln loss."
    )
    if not rows:
        return f"No forecast was checked on budgets that were held out: {fits.holdout.reason}."
    return Table("Which forecast to believe", head, rows, note, marks)


def check(fits: Fits) -> Table | None:
    """Forecasts by the runs up to --holdout_above alone beside what was measured beyond."""
    shown = fits.forecast_check
    if not shown:
        return None
    rows = [
        (
            numbers.flops(row.flops), FORMS[row.form] + ", preferred" * row.chosen, row.selection,
            estimate(row.predicted, row.interval, "loss", loss),
            _measured(row, "loss", row.observed, loss), percent(row.error),
            estimate(row.predicted_params, row.interval, "params", count),
            _measured(row, "params", row.observed_params, count),
            estimate(row.predicted_tokens, row.interval, "tokens", count),
            _measured(row, "tokens", row.observed_tokens, count),
        )
        for row in shown
    ]  # fmt: skip
    marks = {i: "forecast" for i, row in enumerate(shown) if row.chosen}
    head = (
        "FLOPs C", "form", "runs", "loss L*", "measured", "error", "parameters N*", "measured",
        "tokens D*", "measured",
    )  # fmt: skip
    note = (
        f"Fitted to the runs up to {numbers.flops(shown[0].fitted_up_to)} FLOPs alone. Intervals "
        "are those of the forecast, without the scatter of the measured minimum."
    )
    return Table("The forecast checked", head, rows, note, marks)


def _measured(row: Check, name: str, value: float, write: Callable[[float | None], str]) -> str:
    """1.529 inside: what was measured, and where it lies to the forecast's interval."""
    where = {True: " inside", False: " outside", None: ""}[row.inside_interval.get(name)]
    return write(value) + where
