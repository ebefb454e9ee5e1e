"""How far to trust it: residuals, bootstrap clouds, influence, hold-out, counting conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import Convention, Fits
from chinchilla_jax.scaling.fitting.intervals import interval
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.conventions import in_print

_SHOWN_DRAWS = 2000


def residuals(fits: Fits, arrays: Arrays) -> Figure | None:
    """Where the surface misses: 100 ln(predicted/observed) against D/N and against FLOPs."""
    if arrays.residual_R is None:
        return None
    runs, miss = arrays.runs, 100 * arrays.residual_R
    figure, axes = style.panels(2, width=10.2, height=3.7, gap=0.35)
    noise = 100 * (fits.parametric.noise or 0.0)
    reach = float(np.clip(1.15 * np.abs(miss).max(), 0.2, 12 * np.median(np.abs(miss)) + 0.2))
    size = np.log(runs.params)
    shade = (size - size.min()) / (np.ptp(size) or 1.0)
    inside = np.abs(miss) <= reach
    for ax, x, label in (
        (axes[0], runs.tokens_per_param, "tokens per parameter D/N"),
        (axes[1], runs.flops, "training FLOPs C"),
    ):
        ax.axhspan(-noise, noise, color=style.FAINT, alpha=0.7, lw=0, zorder=0)
        ax.axhline(0, color=style.SOFT, lw=1)
        ax.scatter(
            x[inside], miss[inside], c=shade[inside], cmap=style.ORDERED, vmin=0, vmax=1, s=22,
            edgecolors="white", linewidths=0.4, zorder=3,
            rasterized=style.too_many(len(runs)),
        )  # fmt: skip
        for sign, marker in ((1, "^"), (-1, "v")):
            out = sign * miss > reach
            ax.plot(
                x[out], np.full(out.sum(), sign * reach), marker, ms=6, color=style.SOFT,
                clip_on=False, zorder=4,
            )  # fmt: skip
        write = numbers.ratio if ax is axes[0] else numbers.power_of_ten
        style.log_axis(ax.xaxis, *style.padded(x, 1.4), write)
        ax.set_ylim(-reach, reach)
        ax.set_xlabel(label)
    axes[0].set_ylabel("predicted over observed (%)")
    axes[0].set_title("too high above zero, too low below")
    axes[1].tick_params(labelleft=False)
    axes[1].set_title("colour: small models light, large dark")
    return figure


def bootstrap(fits: Fits, arrays: Arrays) -> Figure | None:
    """Clouds of bootstrap fits: (alpha, beta), (E, a) and the optimum at the largest budget."""
    draws, fit = arrays.surface_draws, arrays.fit
    if draws is None or fit is None or len(draws) < 20:
        return None
    largest = float(arrays.runs.flops.max())
    cost, some = arrays.flops_model, slice(None, None, max(1, len(draws) // _SHOWN_DRAWS))
    drawn = type(fit.surface)(*(np.asarray(x)[some] for x in draws.frontier.columns()))
    figure, axes = style.panels(3, width=10.2, height=3.9, gap=0.72)
    point, cloud = fit.surface, drawn
    best, found = point.optimum(largest, cost), cloud.optimum(largest, cost)
    losses = point.loss(*best), cloud.loss(*found)
    pairs = (
        (cloud.alpha, cloud.beta, point.alpha, point.beta, "α", "β"),
        (cloud.E, cloud.exponents(cost)[0], point.E, point.exponents(cost)[0], "E", "a"),
        (found[0], losses[1], best[0], losses[0], "N*", "L*"),
    )
    for ax, (x, y, x0, y0, x_name, y_name) in zip(axes, pairs, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        keep = np.isfinite(x) & np.isfinite(y)
        if x_name == "N*":
            style.log_axis(ax.xaxis, *_middle(x[keep], log=True), numbers.count)
            ax.set_ylim(_middle(y[keep]))
        else:
            ax.set(xlim=_middle(x[keep]), ylim=_middle(y[keep]))
        ax.scatter(x[keep], y[keep], s=6, color=style.BLUE, alpha=0.18, lw=0, rasterized=True)
        _marginal(ax, x, y)
        ax.plot(x0, y0, "+", ms=13, mew=2.4, color=style.VERMILION, zorder=5)
        ax.set_xlabel(x_name)
        ax.set_ylabel(y_name, rotation=0, labelpad=9)
    low = max(axes[0].get_xlim()[0], axes[0].get_ylim()[0])
    high = min(axes[0].get_xlim()[1], axes[0].get_ylim()[1])
    if low < high:
        axes[0].plot([low, high], [low, high], color=style.SOFT, lw=1, ls=(0, (4, 3)))
    axes[0].set_title("exponents; dashed α = β")
    axes[1].set_title("floor and exponent of N*")
    axes[2].set_title(f"optimum at {numbers.power_of_ten(largest, 2)} FLOPs")
    return figure


def _middle(values: Floats, log: bool = False) -> tuple[float, float]:
    """Limits that hold 99 % of the draws and a margin."""
    data = np.log(values) if log else values
    low, high = np.quantile(data, [0.005, 0.995])
    margin = 0.18 * ((high - low) or abs(high) or 1.0)
    ends = np.array([low - margin, high + margin])
    return tuple(np.exp(ends)) if log else tuple(ends)


def _marginal(ax: Axes, x: Floats, y: Floats) -> None:
    """95 % of each coordinate, as a bar along its axis; none where an end is open."""
    bar: dict[str, Any] = {
        "color": style.BLUE, "lw": 4, "solid_capstyle": "butt", "clip_on": False, "zorder": 4
    }  # fmt: skip
    if (ends := interval(x)) is not None:
        ax.plot(ends, [0.0, 0.0], transform=ax.get_xaxis_transform(), **bar)
    if (ends := interval(y)) is not None:
        ax.plot([0.0, 0.0], ends, transform=ax.get_yaxis_transform(), **bar)


def influence(fits: Fits, arrays: Arrays) -> Figure | None:
    """The exponent a of N* when a budget is left out, top losses dropped, or delta changed."""
    found = fits.influence
    parts: list[tuple[Sequence[tuple[float, float | None]], str, Callable[[float], str]]] = [
        (
            [(row.budget, row.a) for row in found.leave_one_budget_out],
            "budget left out (FLOPs)",
            lambda x: numbers.power_of_ten(x, 1),
        ),
        (
            [(row.dropped, row.a) for row in found.drop_top],
            "highest losses dropped",
            lambda x: str(int(x)),
        ),
        (
            [(row.delta, row.a) for row in found.delta],
            "Huber's δ",
            lambda x: f"{x:.0e}".replace("e-0", "e-"),
        ),
    ]
    parts = [part for part in parts if len(part[0]) > 1 and any(a is not None for _, a in part[0])]
    central, interval = fits.parametric.a, fits.parametric.interval.get("a")
    if not parts:
        return None
    figure, axes = style.panels(len(parts), width=3.4 * len(parts), height=3.5, gap=0.3)
    values = [a for rows, *_ in parts for _, a in rows if a is not None]
    values += [*(interval or ()), *(() if central is None else (central,))]
    low, high = min(values), max(values)
    margin = 0.1 * ((high - low) or 0.05)
    for ax, (rows, label, write) in zip(axes, parts, strict=True):
        if interval:
            ax.axhspan(*interval, color=style.BLUE, alpha=0.13, lw=0)
        if central is not None:
            ax.axhline(central, color=style.BLUE, lw=1.2)
        line = np.array([np.nan if a is None else a for _, a in rows])
        ax.plot(range(len(rows)), line, "o-", lw=1.2, ms=6, color=style.VERMILION)
        refused = np.flatnonzero(np.isnan(line))
        ax.plot(
            refused, np.full(len(refused), 0.03), "x", ms=7, mew=2, color=style.SOFT,
            transform=ax.get_xaxis_transform(), clip_on=False,
            label="refused: on a bound" if len(refused) else None,
        )  # fmt: skip
        if len(refused):
            ax.legend(loc="best")
        step = -(-len(rows) // (4 if "FLOPs" in label else 7))
        ax.set_xticks(range(0, len(rows), step), [write(x) for x, _ in rows[::step]])
        ax.set_xlim(-0.5, len(rows) - 0.5)
        ax.set_ylim(low - margin, high + margin)
        ax.set_xlabel(label)
        if ax is not axes[0]:
            ax.tick_params(labelleft=False)
    axes[0].set_ylabel("a, exponent of N*")
    axes[0].set_title("line and band: the fit and its 95 % interval")
    return figure


def holdout(fits: Fits, arrays: Arrays) -> Figure | None:
    """Errors of forecasts of losses that were held out, a row per form and selection of runs."""
    found = fits.holdout
    errors = [
        ((row.form, row.selection), m.flops, 100 * m.error)
        for row in found.errors
        for m in row.minima
        if m.error is not None
    ]
    if not errors:
        return None
    names = list(dict.fromkeys(name for name, *_ in errors))
    held = sorted({flops for _, flops, _ in errors})
    colours = dict(zip(held, style.budget_colours(held), strict=True))
    figure, (ax,) = style.panels(1, width=7.4, height=0.42 * len(names) + 1.35)
    ax.set_position((0.44, 0.62 / figure.get_figheight(), 0.52, 1 - 1.1 / figure.get_figheight()))
    for index, name in enumerate(names):
        y = len(names) - 1 - index
        for other, flops, error in errors:
            if other == name:
                ax.plot(error, y, "o", ms=8, color=colours[flops], alpha=0.85, mec="white", mew=0.6)
    chosen = (found.best.form, found.best.selection)
    forms = {"surface": "surface", "loss_law": "E + A/C^a"}
    ax.set_yticks(
        range(len(names)), [f"{forms.get(f, f)}, {s}" for f, s in reversed(names)], fontsize=9.5
    )  # fmt: skip
    for label, name in zip(ax.get_yticklabels(), reversed(names), strict=True):
        label.set_color(style.INK)
        label.set_fontweight("bold" if name == chosen else "normal")
    ax.axvline(0, color=style.SOFT, lw=1)
    ax.set_ylim(-0.6, len(names) - 0.4)
    misses = [error for *_, error in errors]
    low, high = min(0.0, *misses), max(0.0, *misses)
    ax.set_xlim(low - 0.08 * (high - low) - 0.05, high + 0.08 * (high - low) + 0.05)
    ax.set_xlabel("predicted over observed loss (%)")
    handles = [
        ax.plot([], [], "o", ms=7, color=colours[c], label=numbers.power_of_ten(c, 2))[0]
        for c in held
    ]
    ax.legend(handles=handles[-5:], loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=5,
              columnspacing=0.9, handletextpad=0.1)  # fmt: skip
    figure.text(0.03, 1 - 0.3 / figure.get_figheight(), "held-out budget (FLOPs)", fontsize=9.5,
                color=style.SOFT, va="center")  # fmt: skip
    return figure


def conventions(fits: Fits, arrays: Arrays) -> Figure | None:
    """The exponent a under every way to count parameters and FLOPs of the same runs."""
    rows = [row for row in fits.conventions if row.status == "ok" and _exponents(row)]
    if len(rows) < 2:
        return None
    figure, (ax,) = style.panels(1, width=7.4, height=0.4 * len(rows) + 1.5)
    ax.set_position((0.36, 0.62 / figure.get_figheight(), 0.6, 1 - 1.15 / figure.get_figheight()))
    marks = (
        ("surface", "o", style.VERMILION, 0.0),
        ("parabola", "s", style.SKY, -0.17),
        ("Akima", "D", style.BLUE, 0.17),
    )
    for y, row in enumerate(reversed(rows)):
        interval = (row.interval or {}).get("a")
        if interval:
            ax.plot(interval, [y, y], color=style.VERMILION, lw=2, alpha=0.5, zorder=2)
        for name, marker, colour, shift in marks:
            if name in _exponents(row):
                ax.plot(
                    _exponents(row)[name], y + shift, marker, ms=7.5, color=colour, mec="white",
                    mew=0.7, zorder=3,
                )  # fmt: skip
    labels = [f"N {in_print(row.params)}, C {in_print(row.flops)}" for row in reversed(rows)]
    ax.set_yticks(range(len(rows)), labels, fontsize=9.5)
    for label, row in zip(ax.get_yticklabels(), reversed(rows), strict=True):
        label.set_color(style.INK)
        label.set_fontweight("bold" if row.chosen else "normal")
    values = [a for row in rows for a in _exponents(row).values()]
    spread = [x for row in rows for x in (row.interval or {}).get("a") or ()]
    low, high = min((*values, *spread, 0.47)), max((*values, *spread, 0.76))
    ax.set_xlim(max(low - 0.03, 0.0), min(high + 0.03, 1.2))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    for at, name in ((0.50, "Hoffmann .50"), (0.73, "Kaplan .73")):
        ax.axvline(at, color=style.SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.text(at, len(rows) - 0.38, name, ha="center", va="bottom", color=style.SOFT, fontsize=9)
    ax.set_xlabel("a, exponent of N*")
    handles = [ax.plot([], [], m, ms=7, color=k, label=n)[0] for n, m, k, _ in marks]
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(-0.02, 0.99), ncols=3,
              columnspacing=0.8, handletextpad=0.1)  # fmt: skip
    return figure


def _exponents(row: Convention) -> dict[str, float]:
    """The exponents that are known, by approach."""
    found = {"surface": row.surface_a, "parabola": row.parabola_a, "Akima": row.akima_a}
    return {name: a for name, a in found.items() if a is not None}
