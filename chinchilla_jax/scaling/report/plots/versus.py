"""The speed-up of one side over the other, against FLOPs."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.ruler.records import Versus

_WIDEST = 30.0  # times: a band that goes further is cut off


def speed_up(found: Versus) -> Figure | str:
    """s(C) with its band, 1, and the one s of all runs."""
    known = [one for one in found.at if one.value is not None]
    if not known:
        return found.refusal or "neither law reaches what the other does"
    flops = np.array([one.flops for one in known])
    low, middle, high = (
        np.array([getattr(one, name) or fallback for one in known])
        for name, fallback in (("low", 1 / _WIDEST), ("value", 1.0), ("high", _WIDEST))
    )
    figure, (ax,) = style.panels(1, width=6.4, height=3.9)
    low, high = np.maximum(low, 1 / _WIDEST), np.minimum(high, _WIDEST)
    ax.fill_between(flops, low, high, color=style.BLUE, alpha=0.15, lw=0)
    ax.plot(flops, middle, "o-", ms=4, color=style.BLUE, label="by both laws")
    ax.axhline(1.0, color=style.INK, lw=1.0)
    overall = found.overall
    if overall is not None and overall.value is not None:
        ax.axhline(overall.value, color=style.VERMILION, ls="--", lw=1.4, label="all runs")
        ends = (overall.low or 1 / _WIDEST, overall.high or _WIDEST)
        ax.axhspan(*ends, color=style.VERMILION, alpha=0.1, lw=0)
    style.log_axis(ax.xaxis, *style.padded(flops, 1.3))
    shown = [*low, *high, 1.0, *([overall.value] if overall and overall.value else [])]
    style.log_axis(ax.yaxis, *style.padded(shown, 1.1), numbers.ratio)
    ax.set_xlabel("training FLOPs of the second")
    ax.set_ylabel("FLOPs of the first for its loss")
    ax.set_title(f"{found.second} over {found.first}")
    ax.legend(loc="best")
    return figure
