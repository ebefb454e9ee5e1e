"""What follows: the compute-optimal frontier, and the loss surface that it runs along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import BudgetMinimum, Fits, Forecast
from chinchilla_jax.scaling.fitting.intervals import band
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report.plots import style

_POINTS = 48
_OVERLAYS = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def frontier(fits: Fits, arrays: Arrays, overlays: Sequence[PublishedLaw] = ()) -> Figure | None:
    """N*, D* and L* against FLOPs: every approach with its 95 % band, minima and forecasts."""
    rows = [row for row in fits.isoflop.budgets if row.status == "ok"]
    asked = [row for row in fits.forecast if row.params]
    measured = arrays.runs.flops
    flops = np.concatenate([measured, [row.flops for row in asked]])
    low, high = style.padded(flops, 1.6)
    grid = np.geomspace(low, high, _POINTS)
    lines = _lines(fits, arrays, grid)
    if not lines:
        return None
    figure, axes = style.panels(3, width=10.2, height=4.3, gap=0.7)
    chosen = arrays.sources[0].best(grid) if asked else None
    for ax, name in zip(axes, ("params", "tokens", "loss"), strict=True):
        for approach, line in reversed(lines.items()):
            _draw_line(ax, grid, line.get(name), style.APPROACHES[approach])
        if chosen is not None:
            ax.plot(grid, getattr(chosen, name), color=style.INK, lw=1.1, ls=(0, (4, 2)), zorder=4)
        _draw_points(ax, name, rows, asked)
        style.log_axis(ax.xaxis, low, high)
        ax.set_xlabel("training FLOPs C")
    for ax, name in zip(axes[:2], ("params", "tokens"), strict=True):
        drawn = [line[name][0] for line in lines.values() if name in line]
        drawn += [np.array([getattr(row, name) for row in (*rows, *asked)])]
        style.log_axis(ax.yaxis, *style.padded(np.concatenate(drawn), 1.5), numbers.count)
        draw_overlays(ax, name, grid, overlays)
    axes[0].set_title("parameters N*")
    axes[1].set_title("tokens D*")
    axes[2].set_title("loss L*")
    _key(figure, fits, lines, asked, overlays)
    return figure


Line = dict[str, tuple[Floats, Floats | None]]


def _lines(fits: Fits, arrays: Arrays, grid: Floats) -> dict[str, Line]:
    """approach -> quantity -> (central line, [2, points] band or None)."""
    found: dict[str, Line] = {}
    cost = arrays.flops_model
    if arrays.fit is not None and arrays.fit.identified:
        surface, draws = arrays.fit.surface, arrays.surface_draws
        params, tokens = surface.optimum(grid, cost)
        central = {"params": params, "tokens": tokens, "loss": surface.loss(params, tokens)}
        bands: dict[str, Floats] = {}
        if draws is not None and len(draws):
            columns = [np.asarray(x)[:, None] for x in draws.frontier.columns()]
            drawn = type(surface)(*columns)
            n, d = drawn.optimum(grid, cost)
            bands = {"params": n, "tokens": d, "loss": drawn.loss(n, d)}
        found["surface"] = {k: (v, _band(bands.get(k))) for k, v in central.items()}
    law = fits.isoflop.by(fits.isoflop.minima)
    if law.a is not None:
        drawn_laws = arrays.minima[fits.isoflop.minima].draws
        line: Line = {}
        for name, intercept, slope in (
            ("params", "params_at_1", "a"), ("tokens", "tokens_at_1", "b"),
        ):  # fmt: skip
            spread = None
            if drawn_laws is not None:
                at_1 = getattr(drawn_laws.laws, f"log_{intercept.replace('_at', '')}")
                exponent = getattr(drawn_laws.laws, slope)
                spread = np.exp(at_1[:, None] + exponent[:, None] * np.log(grid))
            line[name] = (getattr(law, intercept) * grid ** getattr(law, slope), _band(spread))
        if law.loss_law is not None:
            q = law.loss_law
            spread = None
            if drawn_laws is not None and drawn_laws.loss_law is not None:
                draw = drawn_laws.loss_law
                spread = draw.E[:, None] + draw.A[:, None] * np.exp(
                    -draw.exponent[:, None] * np.log(grid)
                )
            line["loss"] = (q.E + q.A * grid**-q.exponent, _band(spread))
        found["isoflop"] = line
    if arrays.envelope is not None:
        params, tokens = arrays.envelope.laws.at(grid[:, None])
        found["envelope"] = {"params": (params[:, 0], None), "tokens": (tokens[:, 0], None)}
    return found


def _band(draws: Floats | None) -> Floats | None:
    return None if draws is None else band(draws)


def _draw_line(
    ax: Axes, grid: Floats, line: tuple[Floats, Floats | None] | None, colour: str
) -> None:
    if line is None:
        return
    central, band = line
    if band is not None:
        ax.fill_between(grid, band[0], band[1], color=colour, alpha=0.17, lw=0)
    ax.plot(grid, central, color=colour, zorder=3)


def _draw_points(
    ax: Axes, name: str, rows: Sequence[BudgetMinimum], asked: Sequence[Forecast]
) -> None:
    ax.plot(
        [row.flops for row in rows], [getattr(row, name) for row in rows],
        "D", ms=6, color="white", mec=style.INK, mew=1.3, zorder=5, ls="none",
    )  # fmt: skip
    for row in asked:
        interval = (row.interval or {}).get(name)
        if interval:
            ax.plot([row.flops] * 2, interval, color=style.INK, lw=1.4, zorder=6)
        ax.plot(
            row.flops, getattr(row, name), "*", ms=13, color=style.ORANGE, mec=style.INK, zorder=7
        )


def _key(
    figure: Figure,
    fits: Fits,
    lines: dict[str, Line],
    asked: Sequence[Forecast],
    overlays: Sequence[PublishedLaw],
) -> None:
    """Names of the lines above the panels, with the exponent of N* of each approach."""
    ax = figure.axes[0]
    method = {"akima": "Akima"}.get(fits.isoflop.minima, fits.isoflop.minima)
    names = {
        "isoflop": f"iso-FLOP minima ({method})",
        "surface": "surface E + A/N^α + B/D^β",
        "envelope": "training-curve envelope",
    }
    exponents = {
        "isoflop": fits.isoflop.a,
        "surface": fits.parametric.a,
        "envelope": fits.envelope.a,
    }
    handles = [
        ax.plot([], [], color=style.APPROACHES[k],
                label=f"{names[k]}, a = {numbers.exponent(exponents[k])}")[0]
        for k in lines
    ]  # fmt: skip
    if asked:
        handles += ax.plot(
            [], [], "*", ls=(0, (4, 2)), lw=1.1, ms=12, color=style.INK, mfc=style.ORANGE,
            label="forecast",
        )  # fmt: skip
    handles += overlay_handles(ax, overlays)
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
        best = law.optimum(grid) if law.has_optimum else None
        if best is not None:
            ax.plot(grid, getattr(best, name), color=style.SOFT, lw=1.3, ls=dashes, zorder=2)


def overlay_handles(ax: Axes, overlays: Sequence[PublishedLaw]) -> list[Any]:
    """Their entries in a key."""
    return [
        ax.plot([], [], color=style.SOFT, lw=1.3, ls=dashes, label=law.title)[0]
        for law, dashes in zip(overlays, _OVERLAYS * 9, strict=False)
    ]


def surface_contours(fits: Fits, arrays: Arrays) -> Figure | None:
    """Loss over FLOPs and parameters, the runs on it and the frontier through it (figure 4)."""
    if arrays.fit is None:
        return None
    runs, cost, surface = arrays.runs, arrays.flops_model, arrays.fit.surface
    (c_low, c_high), (n_low, n_high) = style.padded(runs.flops, 1.7), style.padded(runs.params, 1.6)
    flops, params = np.geomspace(c_low, c_high, 90), np.geomspace(n_low, n_high, 90)
    loss = surface.loss(params[:, None], cost.tokens(flops[None, :], params[:, None]))
    figure, (ax,) = style.panels(1, height=4.8)
    ax.set_position((0.105, 0.125, 0.74, 0.79))
    levels = _levels(loss, surface, cost, flops)
    ax.contourf(
        flops, params, np.minimum(loss, levels[-1]), levels=levels, cmap=_paper(), extend="both"
    )
    lines = ax.contour(flops, params, loss, levels=levels, colors="#8d8d8d", linewidths=0.6)
    style.log_axis(ax.xaxis, c_low, c_high)
    style.log_axis(ax.yaxis, n_low, n_high, numbers.count)
    ax.scatter(
        runs.flops,
        runs.params,
        s=13,
        color=style.INK,
        alpha=0.75,
        lw=0,
        zorder=3,
        label="run",
        rasterized=style.too_many(len(runs)),
    )
    best = [line for line in _lines(fits, arrays, flops).items() if line[0] == "surface"]
    for _, line in best:
        _draw_line(ax, flops, line["params"], style.VERMILION)
    ax.plot([], [], color=style.VERMILION, label="compute-optimal frontier")
    rows = [row for row in fits.isoflop.budgets if row.status == "ok"]
    _draw_points(ax, "params", rows, [])
    ax.plot([], [], "D", ms=6, color="white", mec=style.INK, mew=1.3, label="iso-FLOP minimum")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2)
    _label_levels(ax, lines, params, c_high, surface.loss, cost.tokens)
    ax.grid(False)
    ax.set_xlabel("training FLOPs C")
    ax.set_ylabel("parameters N")
    return figure


def _paper() -> Any:
    """Very light tints, dark end at low loss, so that points and lines stay in front."""
    return LinearSegmentedColormap.from_list("tint", ["#bcd3e6", "#e3edf5", "#ffffff"])


def _levels(loss: Floats, surface: Any, cost: Any, flops: Floats) -> Floats:
    """Ten levels, evenly spaced in ln(loss - E) along the frontier and a little beyond."""
    params, tokens = surface.optimum(flops[[0, -1]], cost)
    worst, best = (float(x) for x in surface.loss(params, tokens))
    floor = float(surface.E)
    above = np.geomspace(max(best - floor, 1e-9) * 0.98, max(worst - floor, 1e-8) * 1.5, 11)
    levels = floor + above
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
    ax.text(1.03, 1.012, "loss", transform=ax.transAxes, color=style.SOFT, fontsize=9.5)
