"""Accuracy on tasks against FLOPs: what was measured, what smaller runs said, what is forecast."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.fits import Fits, Task
from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.accuracies import tasks
from chinchilla_jax.scaling.table.runs import Runs

_MOST = 9  # panels
_ACROSS = 3
_PANEL = (2.45, 1.95)  # inches, its margins with it


def drawers(fits: Fits, arrays: Arrays) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where the table has accuracies."""
    return {"accuracy": lambda: accuracy(fits, arrays)} if fits.tasks else {}


def accuracy(fits: Fits, arrays: Arrays) -> Figure | str:
    """A panel a task, the first nine."""
    shown = [task for task in fits.tasks if task.status == "ok"][:_MOST]
    if not shown:
        return "too few runs have an accuracy"
    measured = {found.name: found.accuracy_R for found in tasks(arrays.runs)}
    figure, panels = _grid(len(shown))
    for i, (ax, task) in enumerate(zip(panels, shown, strict=True)):
        _panel(ax, task, arrays.runs, measured[task.name])
        ax.set_title(task.name, fontsize=9.5)
        if i % _ACROSS == 0:
            ax.set_ylabel("accuracy")
        if i >= len(shown) - _ACROSS:
            ax.set_xlabel("FLOPs")
    figure.legend(
        handles=[
            style.key("measured", "o", color=style.INK, ms=3),
            style.key("by smaller runs, 95 %", "D", color=style.VERMILION, ms=4),
            style.key("forecast, 95 %", "*", color=style.BLUE, ms=8),
        ],
        loc="upper left",
        ncols=3,
        fontsize=9,
    )
    return figure


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    across, down = min(count, _ACROSS), math.ceil(count / _ACROSS)
    wide, high = _PANEL
    top, bottom = 0.42, 0.3
    width, height = max(5.2, wide * across + 0.3), high * down + top + bottom
    figure = Figure(figsize=(width, height))
    panels = []
    for i in range(count):
        row, column = divmod(i, _ACROSS)
        left, low = 0.62 + column * wide, bottom + (down - 1 - row) * high + 0.34
        size = (wide - 0.5) / width, (high - 0.66) / height
        ax = figure.add_axes((left / width, low / height, *size))
        ax.grid(True, color=style.FAINT, linewidth=0.7)
        ax.set_axisbelow(True)
        panels.append(ax)
    return figure, panels


def _panel(ax: Axes, task: Task, runs: Runs, accuracy_R: np.ndarray) -> None:
    known, flops_R = np.isfinite(accuracy_R), runs.flops
    (marks,) = ax.plot(
        flops_R[known], accuracy_R[known], "o", ms=3, color=style.INK, ls="none", zorder=4
    )
    style.name_points(marks, "run", runs.index_R[known])
    heights = [*accuracy_R[known]]
    for row in task.checked:
        _bar(ax, row.flops, row.interval, style.VERMILION)
        ax.plot(row.flops, row.predicted, "D", ms=4, color=style.VERMILION)
        heights += [row.predicted, *(row.interval or ())]
    for at in task.forecast:
        _bar(ax, at.flops, at.interval, style.BLUE)
        ax.plot(at.flops, at.accuracy, "*", ms=9, color=style.BLUE)
        heights += [at.accuracy, *(at.interval or ())]
    if task.chance:
        ax.axhline(task.chance, color=style.SOFT, lw=0.8, ls=":")
    everywhere = [*flops_R[known], *(at.flops for at in task.forecast)]
    style.log_axis(ax.xaxis, *style.padded(everywhere, 1.8))
    low, high = style.limits(heights)
    ax.set_ylim(max(0.0, low), min(1.0, high))


def _bar(ax: Axes, flops: float, ends: Interval | None, colour: str) -> None:
    if ends is not None:
        ax.plot([flops, flops], ends, color=colour, lw=1.4, alpha=0.8)
