"""Hyper-parameters: what missing the best costs, and the best rate and batch against tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE
from chinchilla_jax.scaling.tuning.records import SettingLaw, TunedCell, Tuning

_TITLE = {RATE: "learning rate", BATCH: "batch", DECAY: "decay timescale"}
_COLOUR = {RATE: style.VERMILION, BATCH: style.BLUE, DECAY: style.GREEN}
_SAME = 1.05  # sizes nearer than this are one


def drawers(found: Tuning | None) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where laws of hyper-parameters were fitted."""
    return {} if found is None else {"tuning": lambda: tuning(found)}


def tuning(found: Tuning) -> Figure | str:
    """A panel of the costs, and one for each setting that was fitted."""
    fine = [law for law in found.laws if law.status == "ok"]
    if not fine:
        return "no setting has a best value inside those that were tried"
    figure, (first, *rest) = style.panels(1 + len(fine), width=3.6 * (1 + len(fine)), height=4.0)
    _costs(first, fine)
    for ax, law in zip(rest, fine, strict=True):
        _best(ax, law, found.cells)
    return figure


def _costs(ax: Axes, laws: Sequence[SettingLaw]) -> None:
    """The share of the loss lost by a factor beside the best value."""
    factor = np.geomspace(1 / 8, 8, 200)
    log = np.log(factor) ** 2
    tops = []
    for law in laws:
        assert law.curvature is not None
        colour, ends = _COLOUR[law.setting], law.interval.get("curvature")
        if ends is not None:
            low, high = (100 * np.expm1(max(k, 0.0) * log) for k in ends)
            ax.fill_between(factor, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(
            factor, 100 * np.expm1(law.curvature * log), color=colour, label=_TITLE[law.setting]
        )
        tops.append(100 * float(np.expm1(law.curvature * np.log(4) ** 2)))
    style.log_axis(ax.xaxis, 1 / 8, 8, numbers.ratio)
    ax.set_ylim(0, 1.15 * max(tops))
    ax.set_xlabel("value / best value")
    ax.set_ylabel("loss lost (%)")
    ax.legend(loc="upper center")


def _best(ax: Axes, law: SettingLaw, cells: Sequence[TunedCell]) -> None:
    """The best value of each cell with its standard error, and the law through them, by size."""
    name = law.setting
    sizes = _sizes([cell.params for cell in cells])
    heights = []
    for size, colour in zip(sizes, style.budget_colours(sizes), strict=True):
        here = sorted(
            (c for c in cells if 1 / _SAME < c.params / size < _SAME), key=lambda c: c.tokens
        )
        tokens = [c.tokens for c in here]
        ax.plot(tokens, [c.law[name] for c in here], color=colour, lw=1.3, alpha=0.8)
        own = [c for c in here if name in c.best]
        for cell in own:
            ends = [cell.best[name] * np.exp(s * min(cell.error[name], 3.0)) for s in (-1, 1)]
            ax.plot([cell.tokens] * 2, ends, color=colour, lw=1.0, alpha=0.7)
        ax.plot([c.tokens for c in own], [c.best[name] for c in own], "o", ms=4.5, color=colour,
                label=f"N = {numbers.count(size)}")  # fmt: skip
        heights += [c.best[name] for c in own] + [c.law[name] for c in here]
    style.log_axis(ax.xaxis, *style.padded([c.tokens for c in cells]), numbers.count)
    low, high = style.padded(heights, 1.6)
    style.log_axis(ax.yaxis, low, high * 1.3, numbers.count if name == BATCH else "{:.3g}".format)
    ax.set_xlabel("training tokens D")
    unit = f" ({law.unit})" if law.unit else ""
    ax.set_ylabel(f"best {_TITLE[name]}{unit}")
    if len(sizes) <= 6:
        ax.legend(loc="upper left", fontsize=8.5, ncols=2, handletextpad=0.2, columnspacing=0.8)


def _sizes(params: Sequence[float]) -> list[float]:
    """The different sizes, ascending."""
    found: list[float] = []
    for size in sorted(params):
        if not found or size > _SAME * found[-1]:
            found.append(size)
    return found
