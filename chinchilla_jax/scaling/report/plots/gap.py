"""A loss over that of the same run without the technique, against a column over it: a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import law_rows
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.kinds import near
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.techniques.law import DENSE_LOSS

_POINTS = 200


def drawers(fits: Sequence[LawFit], runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where a law with a gap was fitted to `runs`."""
    found = [fit for fit in fits if LAWS[fit.law].gap is not None]
    return {"gap": lambda: gap(found[0], runs)} if found else {}


def gap(fit: LawFit, runs: Runs) -> Figure:
    """Loss against the column of the gap, both over the dense loss; a curve and a colour per size.

    A curve is at the middle tokens and dense loss of its size. Dots are runs: the curve at their
    ratio and what the law misses of them (partial residuals), since runs differ in these too. The
    bend is dotted where it lies in the frame, unless the runs leave it open.
    """
    law = LAWS[fit.law]
    assert law.gap is not None
    by, bend = law.gap
    rows = law_rows(law, runs)
    columns = {name: rows.columns[name] for name in law.columns}
    index_R = rows.table.index_R[rows.kept_R]
    ratio = columns[by] / columns[DENSE_LOSS]
    miss = rows.outcome_R / law.predict(fit.parameters, **columns)
    size = near(columns["params"])
    sizes = [float(np.median(columns["params"][size == s])) for s in range(int(size.max()) + 1)]
    low, high = style.limits(ratio)
    figure, (ax,) = style.panels(1, height=4.3)
    heights = []
    for s, colour in enumerate(style.budget_colours(sizes)):
        here = size == s
        x = np.linspace(*style.limits(ratio[here]), _POINTS)
        middle = {n: float(np.exp(np.median(np.log(c[here])))) for n, c in columns.items()}
        line = _over_dense(fit, by, x, middle)
        dots = _over_dense(fit, by, ratio[here], middle) * miss[here]
        lowest = int(line.argmin())
        best = f"best at {x[lowest]:.2g}" if 0 < lowest < len(x) - 1 else "best beyond"
        label = f"N = {numbers.count(sizes[s])}, {best}"
        ax.plot(x, 100 * (line - 1), color=colour, label=label)
        marks = ax.scatter(ratio[here], 100 * (dots - 1), s=22, color=colour, zorder=3)
        style.name_points(marks, "run", index_R[here])
        heights += [100 * (line - 1), 100 * (dots - 1)]
    ax.axhline(0, color=style.SOFT, linewidth=0.9)
    at = fit.parameters[bend]
    known = bend not in fit.undetermined and fit.interval.get(bend, at) is not None
    if known and low < at < high:
        ax.axvline(at, color=style.SOFT, linestyle=":", label=f"bend at {bend} = {at:.2g}")
    ax.set_xlim(low, high)
    ax.set_ylim(*style.limits(np.concatenate([*heights, [0.0]])))
    ax.set_xlabel(f"{by.replace('_', ' ')} / loss without it")
    ax.set_ylabel("loss above that without it (%)")
    ax.legend(loc="best")
    return figure


def _over_dense(fit: LawFit, by: str, ratio: Floats, middle: dict[str, float]) -> Floats:
    """The loss over the dense loss where the column `by` is `ratio` times that."""
    dense = middle[DENSE_LOSS]
    columns: dict[str, Floats | float] = {**middle, by: ratio * dense}
    return LAWS[fit.law].predict(fit.parameters, **columns) / dense
