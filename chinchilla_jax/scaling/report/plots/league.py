"""The league table as figures: a forest of multipliers, and points against the dense frontier."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.ruler.league import Counted, Ruler
from chinchilla_jax.scaling.ruler.records import League, Multiplier
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

SHOWN = 32  # conditions that a forest shows
_COLOURS = {True: style.BLUE, False: style.VERMILION, None: style.SOFT}
_KEYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pays", {"marker": "o", "color": style.BLUE, "ms": 5.5}),
    ("costs", {"marker": "o", "color": style.VERMILION, "ms": 5.5}),
    ("not told from 1", {"marker": "o", "color": style.SOFT, "ms": 5.5}),
    ("product of a stack's parts", {"marker": "D", "mfc": "none", "mec": style.INK, "ms": 6.5}),
)
_PALETTE = (style.VERMILION, style.BLUE, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
_MARKERS = "osD^vP"
_POINTS = 60
_WIDEST = 30.0  # times: an interval that goes further is cut off


def forest(league: League) -> Figure | str:
    """Multipliers and their intervals, a panel a currency, a line a technique; 1 is marked."""
    ordered = league.ordered()
    number = [i for i, one in enumerate(ordered) if one.multipliers][:SHOWN]  # rows of the table
    shown = [ordered[i] for i in number]
    if not shown:
        return league.refusal or "there is no technique beside the dense runs"
    longest = max(len(one.label) for one in shown)
    left = 0.35 + 0.082 * min(longest, 46)
    width = left + 0.2 + 1.75 * len(league.measures)
    figure, axes = style.panels(
        len(league.measures), width=width, height=1.25 + 0.27 * len(shown), left=left, gap=0.16
    )
    for ax, measure in zip(axes, league.measures, strict=True):
        found = [next(m for m in one.multipliers if m.measure == measure.name) for one in shown]
        ends = [x for m in found for x in (m.value, m.low, m.high) if x is not None]
        inside = [min(max(x, 1 / _WIDEST), _WIDEST) for x in (*ends, 0.8, 1.25)]
        low, high = style.padded(inside, 1.12)
        style.log_axis(ax.xaxis, low, high, numbers.ratio)
        ticks = _ticks(low, high)
        ax.set_xticks(ticks, [numbers.ratio(tick) for tick in ticks])
        ax.axvline(1.0, color=style.INK, lw=1.0, zorder=1)
        for i, (one, m) in enumerate(zip(shown, found, strict=True)):
            _interval(ax, len(shown) - 1 - i, m, low, high, number[i])
            stack = next((s for s in one.stacks if s.measure == measure.name), None)
            if stack is not None and stack.product is not None:
                ax.plot(stack.product, len(shown) - 1 - i, "D", ms=6.5, mfc="none", mec=style.INK,
                        zorder=4)  # fmt: skip
        ax.set_ylim(-0.6, len(shown) - 0.4)
        ax.set_yticks(range(len(shown)), [""] * len(shown))
        ax.tick_params(axis="y", length=0)
        ax.set_title(measure.title, fontsize=9.5)
    axes[0].set_yticks(range(len(shown)), [_short(one.label) for one in reversed(shown)],
                       color=style.INK)  # fmt: skip
    axes[len(axes) // 2].set_xlabel(
        "how many times as much of it dense runs need for the same loss"
    )
    figure.legend(handles=[style.key(text, **look) for text, look in _KEYS], loc="upper right",
                  ncols=len(_KEYS), columnspacing=1.4)  # fmt: skip
    style.lower(figure, axes, 1)
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """1 and a round number of times more and less: few, since a panel is narrow."""
    step = next((s for s in (10.0, 5.0, 3.0, 2.0, 1.5, 1.2, 1.1) if s < max(high, 1 / low)), 1.05)
    return [step**k for k in (-2, -1, 0, 1, 2) if low <= step**k <= high]


def _interval(ax: Axes, y: int, m: Multiplier, low: float, high: float, row: int) -> None:
    """A dot with its bar; an end that is open or outside goes to the edge with an arrow.

    `row` is that of the league table.
    """
    colour = _COLOURS[m.pays]
    if m.value is None and m.low is None and m.high is None:
        ax.text(1.0, y, " not told", va="center", fontsize=8.5, color=style.SOFT)
        return
    begin = low if m.low is None and m.reason else m.low or m.value
    end = high if m.high is None and m.reason else m.high or m.value
    if begin is not None and end is not None:
        ends = [max(begin, low), min(end, high)]
        (bar,) = ax.plot(ends, [y, y], color=colour, lw=1.8, zorder=2)
        style.name_lines(bar, "standing", [row])
        if end >= high:
            ax.plot(high, y, ">", ms=6, color=colour, clip_on=False, zorder=3)
        if begin <= low:
            ax.plot(low, y, "<", ms=6, color=colour, clip_on=False, zorder=3)
    if m.value is not None and low <= m.value <= high:
        (dot,) = ax.plot(m.value, y, "o", ms=5.5, color=colour, zorder=5)
        style.name_points(dot, "standing", [row])


def points(league: League, ruler: Ruler | None) -> Figure | str:
    """Each run against the dense frontier, and against dense models of as much in each currency.

    On the left loss over training FLOPs; the line is the best dense run of every budget. Beside it
    how far each loss lies above the dense law at as much of a currency and as many tokens, in %.
    A dot under the line beats what the dense runs have; small grey dots are the dense runs.
    """
    if ruler is None or league.refusal:
        return league.refusal or "the dense runs give no law"
    order = [one.label for one in league.ordered()]
    names = [m.name for m in league.measures if m.axis == "size"][:3]
    sizes = [c for c in ruler.counted if c.currency.name in names]
    each = min(3.3, 11.0 / (1 + len(sizes)))  # inches: a page shows no more at once
    figure, axes = style.panels(1 + len(sizes), width=each * (1 + len(sizes)) + 0.9, height=4.3,
                                gap=0.8)  # fmt: skip
    spent, looks = ruler.spent, [_look(order.index(one.label)) for one in league.standings]
    _frontier(axes[0], ruler)
    for amount, runs, (colour, marker) in zip(spent, ruler.others, looks, strict=True):
        told = np.isfinite(amount)
        (marks,) = axes[0].plot(amount[told], runs.loss[told], marker, ms=4.2, color=colour,
                                alpha=0.85, ls="none", zorder=4)  # fmt: skip
        style.name_points(marks, "run", runs.index_R[told])
    known = [amount for amount in spent if np.isfinite(amount).all()]
    _logs(axes[0], np.concatenate([ruler.dense.flops, *known]))
    losses = np.concatenate([ruler.dense.loss, *(runs.loss for runs in ruler.others)])
    style.log_axis(axes[0].yaxis, *style.padded(losses, 1.03), lambda x: f"{x:.2f}")
    axes[0].set_xlabel("training FLOPs")
    axes[0].set_ylabel(style.loss_label(ruler.dense))
    for ax, counted in zip(axes[1:], sizes, strict=True):
        ax.axhline(0.0, color=style.INK, lw=1.4, zorder=3)
        _above(ax, counted, counted.dense_S, ruler.dense, ".", "#b5b5b5", 1)
        for amount, runs, (colour, marker) in zip(counted.others, ruler.others, looks, strict=True):
            _above(ax, counted, amount, runs, marker, colour, 4)
        _logs(ax, np.concatenate([counted.dense_S, *counted.others]))
        ax.set_xlabel(counted.currency.title)
    for ax in axes[1:2]:
        ax.set_ylabel("loss above a dense model's of as much (%)")
    keys = [style.key("dense: frontier, law", color=style.INK)]
    keys.append(style.key("dense runs", ".", color="#b5b5b5"))
    keys += [style.key(_short(label), _look(i)[1], color=_look(i)[0], ms=5)
             for i, label in enumerate(order)]  # fmt: skip
    columns = 4 if max(len(str(k.get_label())) for k in keys) < 40 else 3
    figure.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.04, 1.0), ncols=columns,
                  columnspacing=1.4)  # fmt: skip
    style.lower(figure, axes, -(-len(keys) // columns))
    return figure


def _frontier(ax: Axes, ruler: Ruler) -> None:
    """The best dense run of every budget, and the dense runs."""
    law, cost = ruler.size.law, ruler.cost
    flops = np.geomspace(ruler.dense.flops.min(), ruler.dense.flops.max(), _POINTS)
    in_units = FlopsModel(cost.kappa * law.unit**cost.exponent, cost.exponent)
    params, tokens = law.surface[0].optimum(flops, in_units)
    ax.plot(flops, law.surface[0].loss(params, tokens), color=style.INK, lw=1.4, zorder=3)
    dense = ruler.dense
    (marks,) = ax.plot(dense.flops, dense.loss, ".", ms=5.5, color="#b5b5b5", zorder=1)
    style.name_points(marks, "run", dense.index_R)


def _above(
    ax: Axes, counted: Counted, amount: Floats, runs: Runs, marker: str, colour: str, layer: int
) -> None:
    law = counted.law.surface[0].loss(amount / counted.law.unit, runs.tokens)
    above = 100 * (runs.loss / law - 1)
    told = np.isfinite(amount) & np.isfinite(above)
    (marks,) = ax.plot(amount[told], above[told], marker, ms=4.2, color=colour, alpha=0.85,
                       ls="none", zorder=layer)  # fmt: skip
    style.name_points(marks, "run", runs.index_R[told])


def _logs(ax: Axes, values: Floats) -> None:
    style.log_axis(ax.xaxis, *style.padded(values, 1.4))


def _look(number: int) -> tuple[str, str]:
    """Colour and marker, different for the first 36."""
    return _PALETTE[number % len(_PALETTE)], _MARKERS[number // len(_PALETTE) % len(_MARKERS)]


def _short(label: str) -> str:
    return label if len(label) <= 46 else f"{label[:43]}..."
