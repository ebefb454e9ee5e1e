"""Loss against the layout of parameters, as a law of the layout has it, beside the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import spanned
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.runs import Runs

_POINTS = 200
_BEYOND = 1.1  # of the aspects that were run, how far a curve goes
_APART = 1.15  # sizes nearer than this are one


def drawers(fits: Sequence[LawFit], runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where a law of the layout of parameters was fitted to `runs`."""
    found = [fit for fit in fits if len(LAWS[fit.law].layout) == 2]
    return {"layout": lambda: layout(found[0], runs)} if found else {}


def layout(fit: LawFit, runs: Runs) -> Figure:
    """Loss above its lowest against aspect, in %, at equal params and tokens, a curve per size.

    The two columns that lay parameters out make the aspect, first over second; params grow with
    the square of the first times the second. Dots are runs: the curve at their aspect and what the
    law misses of them (partial residuals), since no two runs have just the same params and tokens.
    """
    law = LAWS[fit.law]
    keep = runs.best_R(spanned(law, runs))
    for name in law.layout:
        keep &= np.isfinite(runs.columns[name])
    runs = runs.select(keep)
    params, tokens, loss = runs.params, runs.tokens, runs.loss
    first, second = (runs.columns[name] for name in law.layout)
    aspect = first / second
    miss = np.log(loss / _predicted(fit, first, second, params, tokens))
    filling = params / (first**2 * second)
    figure, (ax,) = style.panels(1, height=4.3)
    size = _sizes(params)
    sizes = [float(np.median(params[size == s])) for s in range(int(size.max()) + 1)]
    tops = []
    for s, colour in enumerate(style.budget_colours(sizes)):
        here = size == s
        middle = [float(np.exp(np.median(np.log(x[here])))) for x in (params, tokens, filling)]
        x = np.geomspace(*style.padded(aspect[here], _BEYOND), _POINTS)
        curve = _along(fit, x, *middle)
        dots = _along(fit, aspect[here], *middle) + miss[here]
        lowest = int(curve.argmin())
        where = f"best at {x[lowest]:.2g}" if 0 < lowest < len(x) - 1 else "best beyond"
        title = f"N = {numbers.count(middle[0])}, {where}"
        ax.plot(x, 100 * (curve - curve.min()), color=colour, label=title)
        marks = ax.scatter(aspect[here], 100 * (dots - curve.min()), s=26, color=colour, zorder=3)
        style.name_points(marks, "run", runs.index_R[here])
        tops.append(100 * (dots.max() - curve.min()))
    style.log_axis(ax.xaxis, *style.padded(aspect, 1.25), numbers.ratio)
    ax.set_ylim(top=1.35 * max(tops) + 0.1)  # what a law does beside its runs would hide them
    ax.set_xlabel(f"{law.layout[0]} / {law.layout[1]}")
    ax.set_ylabel("loss above the lowest of the curve (%)")
    ax.legend(loc="upper center")
    return figure


def _along(fit: LawFit, aspect: Floats, params: float, tokens: float, filling: float) -> Floats:
    """ln loss at `params` = filling first^2 second and `tokens`, by aspect."""
    first = (params * aspect / filling) ** (1 / 3)
    return np.asarray(np.log(_predicted(fit, first, first / aspect, params, tokens)))


def _predicted(
    fit: LawFit, first: Floats, second: Floats, params: Floats | float, tokens: Floats | float
) -> Floats:
    law = LAWS[fit.law]
    columns = dict(zip(law.layout, (first, second), strict=True))
    return law.predict(fit.parameters, params=params, tokens=tokens, **columns)


def _sizes(params: Floats) -> Ints:
    """A number for each run, the same for sizes that lie close together."""
    order = np.argsort(params, kind="stable")
    steps = np.diff(np.log(params[order])) > np.log(_APART)
    number = np.empty(len(params), np.int64)
    number[order] = np.concatenate([[0], np.cumsum(steps)])
    return number
