"""Conditions side by side: the frontier of each, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.comparison import Comparison, ConditionFits
from chinchilla_jax.scaling.fits import Forecast
from chinchilla_jax.scaling.fitting.intervals import band
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.frontier import PANELS, draw_overlays, limit, overlay_keys

SHOWN = 8  # conditions that a figure can tell apart
_POINTS = 32
_PALETTE = (
    style.VERMILION, style.BLUE, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.INK,
    style.SOFT,
)  # fmt: skip


def frontiers(
    found: Comparison, arrays: Sequence[Arrays], overlays: Sequence[PublishedLaw] = ()
) -> Figure | str:
    """N*, D* and L* against FLOPs under each condition: the law its forecast rests on with its
    95 % band, the minima measured (diamonds) and the forecasts (stars, bars their intervals)."""
    fitted = [one for one in found.conditions if one.fits is not None]
    pairs = list(zip(fitted, arrays, strict=True))
    pairs = sorted(pairs, key=lambda pair: -pair[0].runs)[:SHOWN]
    if not pairs:
        return "no condition has enough runs to be fitted by itself"
    pairs = [pair for pair in zip(fitted, arrays, strict=True) if pair in pairs]
    numbers_of = [fitted.index(one) for one, _ in pairs]  # rows of the tables of conditions
    flops = np.concatenate([each.runs.flops for _, each in pairs])
    low, high = style.padded(np.concatenate([flops, found.settings.budgets]), 1.6)
    figure, axes = style.panels(3, width=10.2, height=4.3, gap=0.7)
    colours = _colours([one for one, _ in pairs])
    values: dict[str, list[Floats]] = {name: [] for name in PANELS}
    for (one, each), colour, number in zip(pairs, colours, numbers_of, strict=True):
        assert one.fits is not None
        for ax, name in zip(axes, PANELS, strict=True):
            values[name].append(_line(ax, name, each, colour, high, number))
            values[name].append(_minima(ax, name, each, colour, number))
            values[name].append(_stars(ax, name, one.fits.forecast, colour, number))
    for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
        style.log_axis(ax.xaxis, low, high)
        limit(ax, name, np.concatenate(values[name]))
        if name != "loss":
            draw_overlays(ax, name, np.geomspace(low, high, _POINTS), overlays)
        ax.set_xlabel("training FLOPs C")
        ax.set_title(title)
    keys = [style.key(one.title, color=c) for (one, _), c in zip(pairs, colours, strict=True)]
    keys += overlay_keys(overlays)
    if len(pairs) < len(fitted):
        left = len(fitted) - len(pairs)
        keys.append(style.key(f"and {left} more with fewer runs, not drawn", ls="none"))
    _key(figure, keys)
    return figure


def _line(ax: Axes, name: str, each: Arrays, colour: str, high: float, number: int) -> Floats:
    """From the smallest run of the condition on; returns the central line."""
    source, grid = each.sources[0], np.geomspace(each.runs.flops.min(), high, _POINTS)
    central = np.asarray(getattr(source.best(grid), name))
    (line,) = ax.plot(grid, central, color=colour, zorder=3)
    style.name_lines(line, "condition", [number])
    if source.drawn is not None:
        low, top = band(np.stack([getattr(source.drawn(c), name) for c in grid], axis=1))
        filled = ax.fill_between(grid, low, top, color=colour, alpha=0.15, lw=0)
        style.name_lines(filled, "condition", [number])
    return central


def _minima(ax: Axes, name: str, each: Arrays, colour: str, number: int) -> Floats:
    fit = each.head
    flops = np.array([profile.flops for profile in each.profiles])[fit.good_G]
    values = np.asarray(getattr(fit, f"{name}_G")[fit.good_G], float)
    known = np.isfinite(values)
    (marks,) = ax.plot(flops[known], values[known], "D", ms=4.5, color="white", mec=colour,
                       mew=1.2, zorder=4, ls="none")  # fmt: skip
    style.name_points(marks, "condition", [number] * int(known.sum()))
    return values


def _stars(ax: Axes, name: str, asked: Sequence[Forecast], colour: str, number: int) -> Floats:
    for i, row in enumerate(asked):
        forecast = number * len(asked) + i  # every condition is asked for the same budgets
        ends = (row.interval or {}).get(name)
        if ends is not None:
            (bar,) = ax.plot([row.flops] * 2, ends, color=colour, lw=1.4, zorder=5)
            style.name_lines(bar, "forecast", [forecast])
        if getattr(row, name) is not None:
            (star,) = ax.plot(row.flops, getattr(row, name), "*", ms=12, color=colour,
                              mec=style.INK, zorder=6)  # fmt: skip
            style.name_points(star, "forecast", [forecast])
    return np.array([getattr(row, name) for row in asked], float)


def _colours(shown: Sequence[ConditionFits]) -> list[str]:
    """A palette that is told apart; light to dark where the conditions are numbers in order."""
    if len(shown) > 2 and all(len(one.condition) == 1 for one in shown):
        try:
            [float(value) for one in shown for value in one.condition.values()]
        except ValueError:
            pass
        else:
            return [to_hex(style.ORDERED(i / (len(shown) - 1))) for i in range(len(shown))]
    return list(_PALETTE[: len(shown)])


def _key(figure: Figure, keys: Sequence[Line2D]) -> None:
    """The legend above the panels, which make room for its rows."""
    columns = 3 if max(len(str(key.get_label())) for key in keys) < 36 else 2
    figure.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.06, 1.01), ncols=columns,
                  columnspacing=1.4, handlelength=2.0)  # fmt: skip
    lower = 0.02 + 0.045 * -(-len(keys) // columns)
    for panel in figure.axes:
        box = panel.get_position()
        panel.set_position((box.x0, box.y0, box.width, box.height - lower))
