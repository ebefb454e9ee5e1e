"""What follows: the compute-optimal frontier, and the loss surface that it runs along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import BudgetMinimum, Fits, Forecast
from chinchilla_jax.scaling.fitting.estimators import TITLES
from chinchilla_jax.scaling.fitting.intervals import band
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.optimum import Optima, along, through
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report.plots import style

_POINTS = 48
PANELS = {"params": "parameters N*", "tokens": "tokens D*", "loss": "loss L*"}
_OVERLAYS = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def frontier(fits: Fits, arrays: Arrays, overlays: Sequence[PublishedLaw] = ()) -> Figure | str:
    """N*, D* and L* against FLOPs: every approach with its 95 % band, minima and forecasts."""
    rows = _minima(fits)
    asked = {i: row for i, row in enumerate(fits.forecast) if row.params}
    flops = np.concatenate([arrays.runs.flops, [row.flops for row in asked.values()]])
    low, high = style.padded(flops, 1.6)
    grid = np.geomspace(low, high, _POINTS)
    lines = _lines(fits, arrays, grid)
    if not lines and not rows:
        return "no approach gives a compute-optimal size and no budget has a minimum"
    figure, axes = style.panels(3, width=10.2, height=4.3, gap=0.7)
    chosen = arrays.sources[0].best(grid) if asked else None
    for ax, name in zip(axes, PANELS, strict=True):
        for approach, line in reversed(lines.items()):
            if name in line:
                _draw_line(ax, grid, line[name], style.APPROACHES[approach])
        if chosen is not None:
            ax.plot(grid, getattr(chosen, name), color=style.INK, lw=1.1, ls=(0, (4, 2)), zorder=4)
        _draw_points(ax, name, rows, asked)
        values = [getattr(row, name) for row in (*rows.values(), *asked.values())]
        central = [line[name].centre for line in lines.values() if name in line]
        limit(ax, name, np.concatenate([np.array(values, float), *central]))
        style.log_axis(ax.xaxis, low, high)
        ax.set_xlabel("training FLOPs C")
        ax.set_title(PANELS[name])
    for ax, name in zip(axes, ("params", "tokens"), strict=False):
        draw_overlays(ax, name, grid, overlays)
    _key(figure, fits, lines, bool(asked), overlays)
    return figure


def _minima(fits: Fits) -> dict[int, BudgetMinimum]:
    """The budgets that have a minimum, by their number."""
    return {g: row for g, row in enumerate(fits.isoflop.budgets) if row.status == "ok"}


def limit(ax: Axes, name: str, values: Floats) -> None:
    """The axis of a panel around its lines and points; bands may leave the frame."""
    if not np.isfinite(values).any():  # an envelope alone has no loss
        ax.set_yticks([])
    elif name == "loss":
        ax.set_ylim(style.limits(values, 0.12))
    else:
        style.log_axis(ax.yaxis, *style.padded(values, 1.5), numbers.count)


@dataclass(frozen=True)
class Line:
    """A quantity at P budgets; with draws its 95 % band too, [2, P]."""

    centre: Floats
    band: Floats | None = None


def _lines(fits: Fits, arrays: Arrays, grid: Floats) -> dict[str, dict[str, Line]]:
    """approach -> quantity -> line, of the approaches that give an optimum."""
    found = {
        "surface": _along_surface(arrays, grid),
        "isoflop": _along_minima(arrays.head, grid),
    }
    if arrays.envelope is not None:
        params, tokens = arrays.envelope.laws.at(grid)
        found["envelope"] = {"params": Line(params), "tokens": Line(tokens)}
    return {approach: lines for approach, lines in found.items() if lines}


def _along_surface(arrays: Arrays, grid: Floats) -> dict[str, Line]:
    fit, draws = arrays.fit, arrays.surface_draws
    if fit is None or not fit.identified:
        return {}
    drawn = None if draws is None else along(draws.frontier, arrays.flops_model)
    return _along(along(fit.surface, arrays.flops_model), drawn, grid)


def _along_minima(fit: MinimaFit, grid: Floats) -> dict[str, Line]:
    if fit.laws is None or fit.loss_law is None:
        return {}
    drawn = None
    if fit.draws is not None and fit.draws.loss_law is not None:
        drawn = through(fit.draws.laws, fit.draws.loss_law)
    return _along(through(fit.laws, fit.loss_law), drawn, grid)


def _along(best: Optima, drawn: Optima | None, grid: Floats) -> dict[str, Line]:
    central = vars(best(grid))
    bands: dict[str, Floats] = {}
    if drawn is not None:
        with np.errstate(over="ignore"):  # a wild draw runs away
            many = vars(drawn(grid[:, None]))
        bands = {name: band(many[name].T) for name in PANELS}
    return {name: Line(central[name], bands.get(name)) for name in PANELS}


def _draw_line(ax: Axes, grid: Floats, line: Line, colour: str) -> None:
    if line.band is not None:
        ax.fill_between(grid, line.band[0], line.band[1], color=colour, alpha=0.17, lw=0)
    ax.plot(grid, line.centre, color=colour, zorder=3)


def _draw_points(
    ax: Axes, name: str, rows: Mapping[int, BudgetMinimum], asked: Mapping[int, Forecast]
) -> None:
    (minima,) = ax.plot(
        [row.flops for row in rows.values()], [getattr(row, name) for row in rows.values()],
        "D", ms=6, color="white", mec=style.INK, mew=1.3, zorder=5, ls="none",
    )  # fmt: skip
    style.name_points(minima, "optimum", rows)
    for i, row in asked.items():
        interval = (row.interval or {}).get(name)
        if interval:
            (bar,) = ax.plot([row.flops] * 2, interval, color=style.INK, lw=1.4, zorder=6)
            style.name_lines(bar, "forecast", [i])
        (star,) = ax.plot(
            row.flops, getattr(row, name), "*", ms=13, color=style.ORANGE, mec=style.INK, zorder=7
        )
        style.name_points(star, "forecast", [i])


def _key(
    figure: Figure,
    fits: Fits,
    lines: dict[str, dict[str, Line]],
    asked: bool,
    overlays: Sequence[PublishedLaw],
) -> None:
    """Names of the lines above the panels, with the exponent of N* of each approach."""
    method = TITLES[fits.isoflop.minima]
    approaches = {
        "isoflop": (f"iso-FLOP minima ({method})", fits.isoflop.a),
        "surface": ("surface E + A/N^α + B/D^β", fits.parametric.a),
        "envelope": ("training-curve envelope", fits.envelope.a),
    }
    handles = [
        style.key(f"{name}, a = {numbers.exponent(a)}", color=style.APPROACHES[approach])
        for approach, (name, a) in approaches.items()
        if approach in lines
    ]
    if not lines:
        handles.append(style.key("iso-FLOP minimum", "D", ms=6, mfc="white", mec=style.INK))
    if asked:
        look = {"lw": 1.1, "ls": (0, (4, 2)), "ms": 12, "color": style.INK, "mfc": style.ORANGE}
        handles.append(style.key("forecast", "*", **look))
    handles += overlay_keys(overlays)
    rows = -(-len(handles) // 3)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.06, 1.01), ncols=3, columnspacing=1.4,
        handlelength=2.2,
    )  # fmt: skip
    lower = 0.02 + 0.045 * (rows - 1)
    for panel in figure.axes:
        box = panel.get_position()
        panel.set_position((box.x0, box.y0, box.width, box.height - lower))


def draw_overlays(ax: Axes, name: str, grid: Floats, overlays: Sequence[PublishedLaw]) -> None:
    """The params or tokens of published laws, each in dashes of its own."""
    for law, dashes in zip(overlays, _OVERLAYS * 9, strict=False):
        if law.has_optimum:
            best = law.optimum(grid)
            ax.plot(grid, getattr(best, name), color=style.SOFT, lw=1.3, ls=dashes, zorder=2)


def overlay_keys(overlays: Sequence[PublishedLaw]) -> list[Line2D]:
    """Their entries in a legend."""
    return [
        style.key(law.title, color=style.SOFT, lw=1.3, ls=dashes)
        for law, dashes in zip(overlays, _OVERLAYS * 9, strict=False)
    ]


def surface_contours(fits: Fits, arrays: Arrays) -> Figure | str:
    """Loss over FLOPs and parameters, the runs on it and the frontier through it (figure 4)."""
    if arrays.fit is None:
        return fits.parametric.reason or "no surface was fitted"
    runs, cost, surface = arrays.runs, arrays.flops_model, arrays.fit.surface
    (c_low, c_high), (n_low, n_high) = style.padded(runs.flops, 1.7), style.padded(runs.params, 1.6)
    flops, params = np.geomspace(c_low, c_high, 90), np.geomspace(n_low, n_high, 90)
    loss = surface.loss(params[:, None], cost.tokens(flops[None, :], params[:, None]))
    levels = _levels(arrays, flops)
    if len(levels) < 2:
        return "the fitted loss is the same at every run"
    figure, (ax,) = style.panels(1, height=4.8)
    ax.set_position((0.105, 0.125, 0.74, 0.79))
    ax.contourf(
        flops, params, np.minimum(loss, levels[-1]), levels=levels, cmap=_paper(), extend="both"
    )
    lines = ax.contour(flops, params, loss, levels=levels, colors="#8d8d8d", linewidths=0.6)
    style.log_axis(ax.xaxis, c_low, c_high)
    style.log_axis(ax.yaxis, n_low, n_high, numbers.count)
    marks = ax.scatter(
        runs.flops, runs.params, s=13, color=style.INK, alpha=0.75, lw=0, zorder=3,
        rasterized=style.too_many(len(runs)),
    )  # fmt: skip
    style.name_points(marks, "run", runs.index_R)
    keys = [style.key("run", "o", ms=3.6, color=style.INK, alpha=0.75, mew=0)]
    best = _along_surface(arrays, flops)
    if best:
        _draw_line(ax, flops, best["params"], style.VERMILION)
        keys.append(style.key("compute-optimal frontier", color=style.VERMILION))
    rows = _minima(fits)
    if rows:
        _draw_points(ax, "params", rows, {})
        look = {"ms": 6, "color": "white", "mec": style.INK, "mew": 1.3}
        keys.append(style.key("iso-FLOP minimum", "D", **look))
    ax.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2
    )
    _label_levels(ax, lines, params, c_high, surface.loss, cost.tokens)
    ax.grid(False)
    ax.set_xlabel("training FLOPs C")
    ax.set_ylabel("parameters N")
    return figure


def _paper() -> Any:
    """Very light tints, dark end at low loss, so that points and lines stay in front."""
    return LinearSegmentedColormap.from_list("tint", ["#bcd3e6", "#e3edf5", "#ffffff"])


def _levels(arrays: Arrays, flops: Floats) -> Floats:
    """Ten levels, evenly spaced in ln(loss - E) along the frontier and a little beyond.

    Along the runs where there is no frontier; none where the surface is flat.
    """
    assert arrays.fit is not None
    surface = arrays.fit.surface
    if arrays.fit.identified:
        params, tokens = surface.optimum(flops[[0, -1]], arrays.flops_model)
    else:
        params, tokens = arrays.runs.params, arrays.runs.tokens
    losses = surface.loss(params, tokens)
    floor, worst, best = float(surface.E), float(losses.max()), float(losses.min())
    if not worst - best > 1e-6 * worst:
        return np.empty(0)
    levels = floor + np.geomspace((best - floor) * 0.98, (worst - floor) * 1.5, 11)
    digits = max(0, int(np.ceil(-np.log10(np.diff(levels).min()))))
    return np.unique(np.round(levels, digits))


def _label_levels(
    ax: Axes, lines: Any, params: Floats, flops: float, loss: Callable[..., Floats],
    tokens: Callable[..., Floats],
) -> None:  # fmt: skip
    """Loss at the right edge, where each contour leaves the frame below the frontier's size."""
    edge = loss(params, tokens(flops, params))
    lowest = int(np.argmin(edge))
    marks = []
    for level in lines.levels:
        for half in (slice(0, lowest + 1), slice(lowest, None)):
            y, x = params[half], edge[half]
            if x.min() <= level <= x.max():
                order = np.argsort(x)
                marks.append(
                    (flops, float(np.exp(np.interp(level, x[order], np.log(y[order])))),
                     style.SOFT, f"{level:g}")
                )  # fmt: skip
    style.edge_labels(ax, marks, 12.5)
    ax.text(1.03, 1.02, "loss", transform=ax.transAxes, color=style.SOFT, fontsize=9.5)
