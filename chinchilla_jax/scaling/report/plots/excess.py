"""What a technique adds to the loss of a finished run, against tokens per parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import law_rows
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.runs import Runs

_POINTS = 100
_SIZES = ("params", "tokens")


def drawers(fits: Sequence[LawFit], runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where a law of something else than the loss was fitted to `runs`."""
    found = [fit for fit in fits if LAWS[fit.law].outcome != "loss"]
    return {"excess": lambda: excess(found[0], runs)} if found else {}


def excess(fit: LawFit, runs: Runs) -> Figure:
    """A curve for each value of the law's own column, at the middle size; dots are runs.

    They lie at their tokens per parameter, off the curve by what the law misses of them (partial
    residuals), since runs differ in size too.
    """
    law = LAWS[fit.law]
    rows = law_rows(law, runs)
    columns = {name: rows.columns[name] for name in law.columns}
    index_R = rows.table.index_R[rows.kept_R]
    ratio = columns["tokens"] / columns["params"]
    miss = rows.outcome_R / law.predict(fit.parameters, **columns)
    middle = float(np.exp(np.median(np.log(columns["params"]))))
    (by,) = (name for name in law.columns if name not in _SIZES)
    values = np.unique(columns[by])
    figure, (ax,) = style.panels(1, height=4.3)
    low, high = style.padded(ratio, 1.4)
    x = np.geomspace(low, high, _POINTS)

    def curve(at: np.ndarray, value: float) -> np.ndarray:
        sizes = {"params": np.full_like(at, middle), "tokens": at * middle}
        return law.predict(fit.parameters, **sizes, **{by: np.full_like(at, value)})

    heights = []
    for value, colour in zip(values, style.budget_colours(list(values)), strict=True):
        here = columns[by] == value
        dots = curve(ratio[here], value) * miss[here]
        ax.plot(x, curve(x, value), color=colour, label=f"{value:g} {by}")
        marks = ax.scatter(ratio[here], dots, s=22, color=colour, zorder=3)
        style.name_points(marks, "run", index_R[here])
        heights += [dots, curve(x, value)]
    style.log_axis(ax.xaxis, low, high, numbers.ratio)
    style.log_axis(ax.yaxis, *style.padded(np.concatenate(heights), 1.3), lambda y: f"{y:.2g}")
    ax.set_xlabel("tokens per parameter")
    ax.set_ylabel("rise of the loss (nats per token)")
    ax.legend(loc="upper left")
    return figure
