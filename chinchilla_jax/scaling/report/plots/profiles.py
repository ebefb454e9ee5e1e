"""What was measured: iso-FLOP profiles and their minima, training curves and their envelope."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import BudgetMinimum, Fits
from chinchilla_jax.scaling.fitting.envelope import smooth
from chinchilla_jax.scaling.fitting.estimators import LEAST_SIZES, curves
from chinchilla_jax.scaling.fitting.isoflop import Profile
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.conventions import in_print

_HALO: dict[str, Any] = {"marker": "o", "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
_PATH: dict[str, Any] = {"color": style.INK, "lw": 1.1, "ls": (0, (4, 3))}
_AT = ("params", "loss")
_CURVE_POINTS = 20_000  # of all training curves: those of 500 runs keep the page under 2 MB


def iso_flop(fits: Fits, arrays: Arrays) -> Figure | str:
    """Loss against parameters, a curve per budget, minima marked (Hoffmann et al., figure 3)."""
    several = [p.sizes > 1 for p in arrays.profiles]
    profiles = list(itertools.compress(arrays.profiles, several))
    rows = list(itertools.compress(fits.isoflop.budgets, several))
    number = list(itertools.compress(itertools.count(), several))  # of each in all budgets
    if not profiles:
        return "no two sizes were trained at the same FLOPs"
    colours = style.budget_colours([p.flops for p in profiles])
    figure, (ax,) = style.panels(1, height=4.7)
    ax.set_position((0.1, 0.13, 0.77, 0.78))
    everything = np.exp(np.concatenate([p.log_params_S for p in profiles]))
    losses = np.concatenate([p.loss_S for p in profiles])
    style.log_axis(ax.xaxis, *style.padded(everything, 1.25), numbers.count)
    top = _limit(ax, profiles)
    lines = _curves(arrays)
    for g, profile, colour in zip(number, profiles, colours, strict=True):
        if profile.flops in lines:
            x, y = lines[profile.flops]
            (line,) = ax.plot(np.exp(x), np.where(y <= top, y, np.nan), color=colour, lw=1.7)
            style.name_lines(line, "optimum", [g])
    each = np.repeat(colours, [len(p.loss_S) for p in profiles])
    run = np.concatenate([arrays.runs.index_R[p.row_S] for p in profiles])
    shown = losses <= top
    marks = ax.scatter(everything[shown], losses[shown], s=26, c=each[shown], **_HALO)
    marks.set_rasterized(style.too_many(len(everything)))
    style.name_points(marks, "run", run[shown])
    out = np.full(np.count_nonzero(~shown), top)
    above = ax.scatter(everything[~shown], out, s=25, c=each[~shown], marker="^", clip_on=False)
    style.name_points(above, "run", run[~shown])
    minima = [one for one in zip(rows, colours, number, strict=True) if one[0].status == "ok"]
    _draw_minima(ax, minima)
    style.edge_labels(
        ax,
        [
            (np.exp(p.log_params_S[-1]), min(p.loss_S[-1], top), colour,
             numbers.power_of_ten(p.flops, 2))
            for p, colour in zip(profiles, colours, strict=True)
        ],
        rows=("optimum", number),
    )  # fmt: skip
    ax.text(1.03, 1.02, "FLOPs", transform=ax.transAxes, color=style.SOFT, fontsize=9.5)
    ax.set_xlabel(f"parameters N ({in_print(fits.table.params_convention)})")
    ax.set_ylabel(style.loss_label(arrays.runs))
    keys = []
    if minima:
        keys.append(style.key("minimum", "D", ms=8, color="white", mec=style.INK, mew=1.6))
    if len(minima) > 1:
        keys.append(style.key("path of the minima", **_PATH))
    if not shown.all():
        keys.append(style.key("above the frame", "^", ms=6, color=style.SOFT))
    ax.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, borderaxespad=0.2
    )
    return figure


def _limit(ax: Axes, profiles: list[Profile]) -> float:
    """Sets the loss axis; returns its top, which leaves out what would flatten the minima."""
    losses = np.concatenate([p.loss_S for p in profiles])
    lowest = np.array([p.loss_S.min() for p in profiles])
    span = float(np.ptp(lowest)) or float(np.ptp(losses))
    low, high = style.limits([losses.min(), min(losses.max(), lowest.max() + 0.8 * span)])
    ax.set_ylim(low, high)
    return high


def _curves(arrays: Arrays) -> dict[float, tuple[Floats, Floats]]:
    """FLOPs -> the curve whose minimum is marked, on 120 points of ln params that it went through.

    A budget of too few sizes has none.
    """
    estimator = arrays.head.estimator
    enough = [p for p in arrays.near if p.sizes >= LEAST_SIZES[estimator.method]]
    if not enough:
        return {}
    found = estimator.selected(enough)
    fitted = curves(estimator.method, found)
    grids = [np.linspace(p.log_params_S[0], p.log_params_S[-1], 120) for p in found]
    return {
        p.flops: (x, fitted.curve(g, x)) for g, (p, x) in enumerate(zip(found, grids, strict=True))
    }


def _draw_minima(ax: Axes, minima: Sequence[tuple[BudgetMinimum, str, int]]) -> None:
    """Diamonds with the budget's colour, their errors as grey bars, and the path through them."""
    params, loss = (np.array([getattr(row, name) for row, *_ in minima]) for name in _AT)
    errors = np.array([row.log_params_se or np.nan for row, *_ in minima])
    number = [g for *_, g in minima]
    low, high = params * np.exp(-1.96 * errors), params * np.exp(1.96 * errors)
    bars = ax.hlines(loss, low, high, color=style.SOFT, lw=1.1, zorder=2)
    if len(minima) > 1:
        ax.plot(params, loss, **_PATH, zorder=4)
    (marks,) = ax.plot(params, loss, "D", ms=8, color="white", mec=style.INK, mew=1.6, zorder=6)
    colours = [colour for _, colour, _ in minima]
    inner = ax.scatter(params, loss, marker="D", s=16, c=colours, lw=0, zorder=7)
    style.name_points(marks, "optimum", number)
    for drawn in (bars, inner):
        style.name_lines(drawn, "optimum", number)


def training_curves(fits: Fits, arrays: Arrays) -> Figure | str:
    """Loss along every run against FLOPs, and the envelope below them (figure 2, left)."""
    curves = arrays.runs.curves
    if not curves:
        return "there are none; a sweep's folder and a table with a row per step have them"
    params = np.log([curve.params for curve in curves])
    low, high = float(params.min()), float(params.max())
    figure, (ax,) = style.panels(1, height=4.5)
    ax.set_position((0.095, 0.135, 0.755, 0.775))
    lines = [smooth(curve) for curve in curves]
    # Centred smoothing has nothing left at the ends: the dot is the mean of the last twentieth.
    last = [loss[-max(1, len(loss) // 20) :].mean() for loss in lines]
    colours = style.ORDERED((params - low) / ((high - low) or 1.0))
    index_of = dict(zip(arrays.runs.run_id_R, arrays.runs.index_R.tolist(), strict=True))
    run = [index_of[curve.run_id] for curve in curves]
    most = max(40, min(400, _CURVE_POINTS // len(curves)))  # of a curve, evenly in ln steps
    for curve, colour, loss, number in zip(curves, colours, lines, run, strict=True):
        keep = np.unique(np.geomspace(1, len(loss), min(most, len(loss))).astype(int)) - 1
        (line,) = ax.plot(curve.flops_S[keep], loss[keep], color=colour, lw=1.0, alpha=0.75)
        style.name_lines(line, "run", [number])
    at = [curve.flops_S[-1] for curve in curves]
    ends = ax.scatter(at, last, s=12, c=colours, lw=0, zorder=2)
    style.name_points(ends, "run", run)
    if arrays.envelope is not None:
        lower = arrays.envelope
        ax.plot(lower.flops_F, lower.loss_F, color=style.INK, lw=2.0, label="envelope")
        ax.legend(loc="upper right")
    flops = np.concatenate([c.flops_S for c in curves])
    final = np.array([np.median(loss[-max(1, len(loss) // 10) :]) for loss in lines])
    first = max(loss[0] for loss in lines)
    top = min(first, final.max() + 1.5 * np.ptp(final) + 0.2 * final.max())
    bottom, _ = style.limits([final.min(), top], 0.1)
    style.log_axis(ax.xaxis, max(flops.min(), flops.max() / 1e6), flops.max() * 1.4)
    ax.set_ylim(bottom, top if top > bottom else None)
    ax.set_xlabel("training FLOPs C")
    ax.set_ylabel(f"training {style.loss_label(arrays.runs)}")
    _size_bar(figure, low, high)
    return figure


def _size_bar(figure: Figure, low: float, high: float) -> None:
    """A narrow colour scale of parameters at the right."""
    bar = figure.add_axes((0.885, 0.135, 0.018, 0.775))
    edges = np.exp(np.linspace(low, high if high > low else low + 0.7, 129))
    shade = np.linspace(0, 1, 128)[:, None]
    bar.pcolormesh([0, 1], edges, shade, cmap=style.ORDERED, rasterized=True)
    style.log_axis(bar.yaxis, edges[0], edges[-1], numbers.count)
    bar.yaxis.tick_right()
    bar.set_xticks([])
    bar.set_title("N", fontsize=10.5, loc="center")
    for spine in bar.spines.values():
        spine.set_visible(False)
