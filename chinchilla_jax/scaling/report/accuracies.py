"""Accuracy on tasks as tables: what is forecast, and how forecasts fared on the largest runs."""

from __future__ import annotations

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.fits import Fits, Task
from chinchilla_jax.scaling.report.table import Rows, Table

_NAMED = 3  # tasks that a sentence names
_FORMS = {"two_step": "two steps", "direct": "direct"}


def accuracies(fits: Fits) -> Table | None:
    """Every task that was fitted, with its law and its forecasts."""
    fitted = [task for task in fits.tasks if task.best]
    if not fitted:
        return None
    head = ["task", "runs", "lowest", "highest", "law", "held-out rms", "other law's"]
    budgets = [row.flops for row in fits.forecast if row.params]
    head += [f"at {numbers.flops(flops)} FLOPs" for flops in budgets]
    rows: Rows = []
    for task in fitted:
        told = {at.flops: at for at in task.forecast}
        forecast = [
            numbers.with_interval(at.accuracy, at.interval, _share) if (at := told.get(c)) else ""
            for c in budgets
        ]
        low, high = task.range or (None, None)
        held = [_share(form.held_out_rms) for form in task.forms]
        rows.append(
            (task.name, str(task.runs), _share(low), _share(high), _law(task), *held, *forecast)
        )
    note = (
        "Shares that are right. Two steps: the loss by E + A/N^alpha + B/D^beta and accuracy by a "
        "sigmoid of the task's loss, or exponentially by the run's; direct: -ln(accuracy over "
        "chance) by such a surface. The law of lower error on larger runs that were held out is "
        "taken; intervals hold that error."
    )
    return Table("Accuracy on tasks", head, rows, note)


def refused(fits: Fits) -> str | None:
    """Tasks that were not fitted, by reason, in a sentence."""
    names: dict[str, list[str]] = {}
    for task in fits.tasks:
        if not task.best:
            names.setdefault(task.reason, []).append(task.name)
    parts = [
        f"{', '.join(of[:_NAMED])}{f' and {len(of) - _NAMED} more' if len(of) > _NAMED else ''}: "
        f"{reason}"
        for reason, of in names.items()
    ]
    return f"Tasks without a law of accuracy: {'; '.join(parts)}." if parts else None


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


def sentences(fits: Fits) -> list[str]:
    """How the largest runs fared, and what was not fitted."""
    found = checked(fits)
    told = f"{found.title}. {found.note}" if found else None
    return [text for text in (told, refused(fits)) if text]


def _law(task: Task) -> str:
    form = _FORMS[task.best or ""]
    return f"{form} by the run's loss" if task.best == "two_step" and not task.loss else form


def _share(value: float | None) -> str:
    return numbers.fixed(value, 3)


PARTS = (accuracies, checked, refused)  # of the page's section
