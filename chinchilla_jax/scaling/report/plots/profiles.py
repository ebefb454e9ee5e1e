"""What was measured: iso-FLOP profiles and their minima, training curves and their envelope."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import BudgetMinimum, Fits
from chinchilla_jax.scaling.fitting.envelope import smooth
from chinchilla_jax.scaling.fitting.isoflop import Profile, akima
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.conventions import in_print

_HALO: dict[str, Any] = {"marker": "o", "edgecolors": "white", "linewidths": 0.6, "zorder": 3}


def iso_flop(fits: Fits, arrays: Arrays) -> Figure | None:
    """Loss against parameters, a curve per budget, minima marked (Hoffmann et al., figure 3)."""
    profiles = [p for p in arrays.profiles if len(p.loss_S) > 1]
    if not profiles:
        return None
    method = fits.isoflop.minima
    minima = {row.flops: row for row in fits.isoflop.budgets}
    colours = style.budget_colours([p.flops for p in profiles])
    figure, (ax,) = style.panels(1, height=4.7)
    ax.set_position((0.095, 0.13, 0.775, 0.78))
    everything = np.concatenate([np.exp(p.log_params_S) for p in profiles])
    style.log_axis(ax.xaxis, *style.padded(everything, 1.25), numbers.count)
    top = _limits(ax, profiles)
    labels, path = [], []
    for profile, colour in zip(profiles, colours, strict=True):
        params, loss = np.exp(profile.log_params_S), profile.loss_S
        shown = loss <= top
        marks = ax.scatter(params[shown], loss[shown], s=26, color=colour, **_HALO)
        marks.set_rasterized(style.too_many(len(everything)))
        ax.plot(
            params[~shown], np.full((~shown).sum(), top), "^", ms=5, color=colour, clip_on=False
        )
        row = minima.get(profile.flops)
        if row is not None and row.sizes >= 3:
            x, y = _curve(profile, method)
            ax.plot(np.exp(x), np.where(y <= top * 1.02, y, np.nan), color=colour, lw=1.7)
        labels.append((float(params[-1]), float(min(loss[-1], top)), colour, profile.flops))
        if row is None or row.params is None or row.loss is None:
            continue
        if row.status == "ok":
            path.append((row.params, row.loss))
            _minimum(ax, row, method, colour)
        else:
            ax.plot(row.params, row.loss, "x", ms=9, mew=2, color=colour, zorder=5)
    if len(path) > 1:
        ax.plot(*np.transpose(path), color=style.INK, lw=1.1, ls=(0, (4, 3)), zorder=4)
    style.edge_labels(
        ax, [(x, y, colour, numbers.power_of_ten(c, 2)) for x, y, colour, c in labels]
    )
    ax.text(1.03, 1.01, "FLOPs", transform=ax.transAxes, color=style.SOFT, fontsize=9.5)
    ax.set_xlabel(f"parameters N ({in_print(fits.table.params_convention)})")
    ax.set_ylabel(style.loss_label(arrays.runs))
    handles = []
    if path:
        handles += ax.plot(
            [], [], "D", ms=8, color="white", mec=style.INK, mew=1.6, label="minimum"
        )
    if len(path) > 1:
        handles += ax.plot(
            [], [], color=style.INK, lw=1.1, ls=(0, (4, 3)), label="path of the minima"
        )
    if any(row.status == "refused" and row.params for row in minima.values()):
        handles += ax.plot([], [], "x", ms=8, mew=2, color=style.SOFT, label="refused minimum")
    if any((p.loss_S > top).any() for p in profiles):
        handles += ax.plot([], [], "^", ms=6, color=style.SOFT, label="above the frame")
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, borderaxespad=0.2
    )
    return figure


def _limits(ax: Any, profiles: list[Profile]) -> float:
    """Sets the loss axis; returns its top, which leaves out what would flatten the minima."""
    losses = np.concatenate([p.loss_S for p in profiles])
    lowest = np.array([p.loss_S.min() for p in profiles])
    bottom = float(losses.min())
    span = float(lowest.max() - bottom) or float(losses.max() - bottom) or 0.1
    top = min(float(losses.max()), float(lowest.max()) + 0.8 * span)
    ax.set_ylim(bottom - 0.08 * (top - bottom), top + 0.04 * (top - bottom))
    return top + 0.04 * (top - bottom)


def _curve(profile: Profile, method: str) -> tuple[Floats, Floats]:
    """The interpolant whose minimum is marked, on 120 points of ln params."""
    size = np.unique(profile.log_params_S)
    x = np.linspace(size[0], size[-1], 120)
    if method == "parabola" or len(size) < 4:
        middle = size.mean()
        fit = np.polyfit(profile.log_params_S - middle, profile.loss_S, 2)
        return x, np.asarray(np.polyval(fit, x - middle), float)
    mean = np.array([np.log(profile.loss_S[profile.log_params_S == s]).mean() for s in size])
    return x, np.exp(akima(size, mean, x))


def _minimum(ax: Any, row: BudgetMinimum, method: str, colour: str) -> None:
    assert row.params is not None and row.loss is not None
    error = row.by(method).log_params_se
    if error:
        low, high = row.params * np.exp([-1.96 * error, 1.96 * error])
        ax.plot([low, high], [row.loss] * 2, color=style.SOFT, lw=1.1, zorder=2)
    ax.plot(row.params, row.loss, "D", ms=8, color="white", mec=style.INK, mew=1.6, zorder=6)
    ax.plot(row.params, row.loss, "D", ms=4, color=colour, zorder=7)


def training_curves(fits: Fits, arrays: Arrays) -> Figure | None:
    """Loss along every run against FLOPs, and the envelope below them (figure 2, left)."""
    curves = arrays.runs.curves
    if not curves:
        return None
    params = np.log([curve.params for curve in curves])
    low, high = float(params.min()), float(params.max())
    figure, (ax,) = style.panels(1, height=4.5)
    ax.set_position((0.095, 0.135, 0.755, 0.775))
    lines = [smooth(curve) for curve in curves]
    for curve, size, loss in zip(curves, params, lines, strict=True):
        keep = slice(None, None, max(1, len(loss) // 400))
        colour = style.ORDERED((size - low) / ((high - low) or 1.0))
        ax.plot(curve.flops_S[keep], loss[keep], color=colour, lw=1.0, alpha=0.75)
        # Centred smoothing has nothing left at the ends: the dot is the mean of the last twentieth.
        ax.plot(
            curve.flops_S[-1], loss[-max(1, len(loss) // 20) :].mean(), "o", ms=3.5, color=colour
        )
    if arrays.envelope is not None:
        ax.plot(
            arrays.envelope.flops_F,
            arrays.envelope.loss_F,
            color=style.INK,
            lw=2.0,
            label="envelope",
        )
        ax.legend(loc="upper right")
    flops = np.concatenate([c.flops_S for c in curves])
    ends = np.array([np.median(loss[-max(1, len(loss) // 10) :]) for loss in lines])
    first = np.array([loss[0] for loss in lines])
    top = float(min(first.max(), ends.max() + 1.5 * np.ptp(ends) + 0.2 * ends.max()))
    style.log_axis(ax.xaxis, max(flops.min(), flops.max() / 1e6), flops.max() * 1.4)
    ax.set_ylim(ends.min() - 0.1 * (top - ends.min()), top)
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
