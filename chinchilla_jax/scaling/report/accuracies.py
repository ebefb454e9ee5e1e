"""Accuracy on tasks as tables: what is forecast, and how forecasts fared on the largest runs."""

from __future__ import annotations

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.fits import Fits, Task
from chinchilla_jax.scaling.report.summary import Rows, Table

_FORMS = {"two_step": "two steps", "direct": "direct"}


def accuracies(fits: Fits) -> Table | None:
    """Every task with its law and its forecasts."""
    if not fits.tasks:
        return None
    head = ["task", "runs", "lowest", "highest", "law", "held-out rms", "other law's"]
    budgets = [row.flops for row in fits.forecast if row.params]
    head += [f"at {numbers.flops(flops)} FLOPs" for flops in budgets]
    rows: Rows = []
    for task in fits.tasks:
        told = {at.flops: at for at in task.forecast}
        forecast = [
            numbers.with_interval(at.accuracy, at.interval, _share) if (at := told.get(c)) else ""
            for c in budgets
        ]
        low, high = task.range or (None, None)
        held = [_share(form.held_out_rms) for form in task.forms] or ["", ""]
        law = _law(task) if task.best else task.reason
        rows.append((task.name, str(task.runs), _share(low), _share(high), law, *held, *forecast))
    note = (
        "Shares that are right. Two steps: the loss by E + A/N^alpha + B/D^beta and accuracy by a "
        "sigmoid of the task's loss, or exponentially by the run's; direct: -ln(accuracy over "
        "chance) by such a surface. The law of lower error on larger runs that were held out is "
        "taken; intervals hold that error."
    )
    return Table("Accuracy on tasks", head, rows, note)


def checked(fits: Fits) -> Table | None:
    """The largest runs by the smaller ones alone."""
    rows: Rows = [
        (
            task.name, row.run_id, numbers.flops(row.flops), _FORMS[row.form],
            numbers.with_interval(row.predicted, row.interval, _share),
            _share(row.observed) + {True: " inside", False: " outside", None: ""}[row.inside],
        )
        for task in fits.tasks for row in task.checked
    ]  # fmt: skip
    told = [row.inside for task in fits.tasks for row in task.checked if row.inside is not None]
    if not rows:
        return None
    cuts = {row.fitted_up_to for task in fits.tasks for row in task.checked}
    note = (
        f"Fitted to the runs up to {numbers.flops(max(cuts))} FLOPs alone: "
        f"{sum(told)} of {len(told)} measured accuracies lie inside their 95 % interval."
    )
    head = ("task", "run", "FLOPs", "law", "accuracy by smaller runs", "measured")
    return Table("Accuracy of the largest runs, by the others", head, rows, note)


def fared(fits: Fits) -> list[str]:
    """The same in a sentence."""
    found = checked(fits)
    return [f"{found.title}. {found.note}"] if found else []


def _law(task: Task) -> str:
    form = _FORMS[task.best or ""]
    return f"{form} by the run's loss" if task.best == "two_step" and not task.loss else form


def _share(value: float | None) -> str:
    return numbers.fixed(value, 3)
