"""How far to trust it: residuals, bootstrap clouds, influence, hold-out, counting conventions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import Convention, Fits
from chinchilla_jax.scaling.fitting.intervals import interval, least
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.conventions import in_print
from chinchilla_jax.scaling.table.cost import FlopsModel

_SHOWN_DRAWS = 2000
# Of exponents: marker, colour and place in its row.
_MARKS = {
    "surface": ("o", style.VERMILION, 0.0),
    "valley": ("D", style.BLUE, 0.17),
    "parabola": ("s", style.SKY, -0.17),
}
_PRINTED = {"Hoffmann": 0.50, "Kaplan": 0.73}


def residuals(fits: Fits, arrays: Arrays) -> Figure | str:
    """Where the surface misses: 100 ln(predicted/observed) against D/N and against FLOPs."""
    if arrays.residual_R is None:
        return fits.parametric.reason or "no surface was fitted"
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
        marks = ax.scatter(
            x[inside], miss[inside], c=shade[inside], cmap=style.ORDERED, vmin=0, vmax=1, s=22,
            edgecolors="white", linewidths=0.4, zorder=3,
            rasterized=style.too_many(len(runs)),
        )  # fmt: skip
        style.name_points(marks, "run", runs.index_R[inside])
        for sign, marker in ((1, "^"), (-1, "v")):
            out = sign * miss > reach
            (beyond,) = ax.plot(
                x[out], np.full(out.sum(), sign * reach), marker, ms=6, color=style.SOFT,
                clip_on=False, zorder=4,
            )  # fmt: skip
            style.name_points(beyond, "run", runs.index_R[out])
        write = numbers.ratio if ax is axes[0] else numbers.power_of_ten
        style.log_axis(ax.xaxis, *style.padded(x, 1.4), write)
        ax.set_ylim(-reach, reach)
        ax.set_xlabel(label)
    axes[0].set_ylabel("predicted over observed (%)")
    axes[0].set_title("too high above zero, too low below")
    axes[1].tick_params(labelleft=False)
    axes[1].set_title("colour: small models pale, large strong")
    return figure


def bootstrap(fits: Fits, arrays: Arrays) -> Figure | str:
    """Clouds of bootstrap fits: (alpha, beta), (E, a) and the optimum at the largest budget."""
    draws, fit = arrays.surface_draws, arrays.fit
    if fit is None:
        return fits.parametric.reason or "no surface was fitted"
    if draws is None or len(draws) < least():
        count = 0 if draws is None else len(draws)
        return f"{count} draws of the surface, {least()} are needed"
    cost, largest = arrays.flops_model, float(arrays.runs.flops.max())
    best = f"optimum at {numbers.power_of_ten(largest, 2)} FLOPs"
    every = (
        Cloud("exponents; dashed α = β", "α", "β", lambda s: (s.alpha, s.beta)),
        Cloud("floor and exponent of N*", "E", "a", lambda s: (s.E, s.exponents(cost)[0])),
        Cloud(best, "N*", "L*", lambda s: _optimum(s, largest, cost)),
    )
    # On a bound a surface has exponents alpha and beta and no frontier.
    drawn = [
        [np.asarray(values) for values in cloud.of(draws.frontier if i else draws.surface)]
        for i, cloud in enumerate(every[: 3 if fit.identified else 1])
    ]
    known = [np.isfinite(x) & np.isfinite(y) for x, y in drawn]
    shown = [i for i, known_B in enumerate(known) if known_B.sum() >= least()]
    if not shown:
        return f"fewer than {least()} draws could be fitted"
    figure, axes = style.panels(len(shown), width=3.4 * len(shown), height=3.9, gap=0.72)
    for ax, i in zip(axes, shown, strict=True):
        some = np.flatnonzero(known[i])[:: max(1, len(draws) // _SHOWN_DRAWS)]
        x, y = (values[some] for values in drawn[i])
        if every[i].x == "N*":
            style.log_axis(ax.xaxis, *_middle(x, log=True), numbers.count)
        else:
            ax.set_xlim(_middle(x))
        ax.set_ylim(_middle(y))
        ax.scatter(x, y, s=6, color=style.BLUE, alpha=0.18, lw=0, rasterized=True)
        _marginal(ax, *drawn[i])
        ax.plot(*every[i].of(fit.surface), "+", ms=13, mew=2.4, color=style.VERMILION, zorder=5)
        ax.set_xlabel(every[i].x)
        ax.set_ylabel(every[i].y, rotation=0, labelpad=9)
        ax.set_title(every[i].title)
    low = max(axes[0].get_xlim()[0], axes[0].get_ylim()[0])
    high = min(axes[0].get_xlim()[1], axes[0].get_ylim()[1])
    if low < high and shown[0] == 0:
        axes[0].plot([low, high], [low, high], color=style.SOFT, lw=1, ls=(0, (4, 3)))
    return figure


@dataclass(frozen=True)
class Cloud:
    """A panel: its title, its axes, and what they show of a surface or of many."""

    title: str
    x: str
    y: str
    of: Callable[[Surface], tuple[Floats | float, Floats | float]]


def _optimum(surface: Surface, flops: float, cost: FlopsModel) -> tuple[Floats, Floats]:
    """N* and the loss there."""
    params, tokens = surface.optimum(flops, cost)
    return params, surface.loss(params, tokens)


def _middle(values: Floats, log: bool = False) -> tuple[float, float]:
    """Limits that hold 99 % of the draws and a margin."""
    data = np.log(values) if log else values
    low, high = np.quantile(data, [0.005, 0.995])
    spread = high - low if high - low > 1e-6 * abs(high) else abs(high) or 1.0  # rounding is none
    margin = 0.18 * spread
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


def influence(fits: Fits, arrays: Arrays) -> Figure | str:
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
    if not parts:
        return "no variant of the surface gives an exponent of the frontier"
    figure, axes = style.panels(len(parts), width=max(3.4 * len(parts), 5.2), height=3.5, gap=0.3)
    central, spread = fits.parametric.a, fits.parametric.interval.get("a")
    values = [a for rows, *_ in parts for _, a in rows if a is not None]
    values += [*(spread or ()), *(() if central is None else (central,))]
    for ax, (rows, label, write) in zip(axes, parts, strict=True):
        if spread:
            ax.axhspan(*spread, color=style.BLUE, alpha=0.13, lw=0)
        if central is not None:
            ax.axhline(central, color=style.BLUE, lw=1.2)
        line = np.array([np.nan if a is None else a for _, a in rows])
        ax.plot(range(len(rows)), line, "o-", lw=1.2, ms=6, color=style.VERMILION)
        refused = np.flatnonzero(np.isnan(line))
        if len(refused):
            ax.plot(
                refused, np.full(len(refused), 0.03), "x", ms=7, mew=2, color=style.SOFT,
                transform=ax.get_xaxis_transform(), clip_on=False, label="refused: on a bound",
            )  # fmt: skip
            ax.legend(loc="best")
        step = -(-len(rows) // (4 if "FLOPs" in label else 7))
        ax.set_xticks(range(0, len(rows), step), [write(x) for x, _ in rows[::step]])
        ax.set_xlim(-0.5, len(rows) - 0.5)
        ax.set_ylim(style.limits(values, 0.1))
        ax.set_xlabel(label)
        if ax is not axes[0]:
            ax.tick_params(labelleft=False)
    axes[0].set_ylabel("a, exponent of N*")
    if central is not None:
        axes[0].set_title("line and band: the fit and its 95 % interval")
    return figure


def holdout(fits: Fits, arrays: Arrays) -> Figure | str:
    """Errors of forecasts of losses that were held out, a row per form and selection of runs."""
    found = fits.holdout
    errors = [
        ((row.form, row.selection), m.flops, 100 * m.error)
        for row in found.errors
        for m in row.minima
        if m.error is not None
    ]
    if not errors:
        return found.reason or "no form gives a loss at a budget that was held out"
    names = list(dict.fromkeys(name for name, *_ in errors))[::-1]  # the first on top
    held = sorted({flops for _, flops, _ in errors})
    colours = dict(zip(held, style.budget_colours(held), strict=True))
    figure, (ax,) = style.panels(1, width=7.4, height=0.42 * len(names) + 1.35)
    ax.set_position((0.44, 0.62 / figure.get_figheight(), 0.52, 1 - 1.1 / figure.get_figheight()))
    misses = [error for *_, error in errors]
    ax.scatter(
        misses, [names.index(name) for name, *_ in errors], s=64, alpha=0.85,
        c=[colours[flops] for _, flops, _ in errors], edgecolors="white", linewidths=0.6, zorder=2,
    )  # fmt: skip
    forms = {"surface": "surface", "loss_law": "E + A/C^a"}
    best = (found.best.form, found.best.selection)
    _named_rows(ax, [f"{forms[form]}, {runs}" for form, runs in names], [n == best for n in names])
    ax.axvline(0, color=style.SOFT, lw=1)
    ax.set_xlim(style.limits([0.0, *misses], 0.1))
    ax.set_xlabel("predicted over observed loss (%)")
    keys = [style.key(numbers.power_of_ten(c, 2), "o", ms=7, color=colours[c]) for c in held]
    ax.legend(handles=keys[-5:], loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=5,
              columnspacing=0.9, handletextpad=0.1)  # fmt: skip
    figure.text(0.03, 1 - 0.3 / figure.get_figheight(), "held-out budget (FLOPs)", fontsize=9.5,
                color=style.SOFT, va="center")  # fmt: skip
    return figure


def _named_rows(ax: Axes, names: Sequence[str], bold: Sequence[bool]) -> None:
    """A row per name from below; what is chosen is bold."""
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_yticks(range(len(names)), names, fontsize=9.5)
    for label, chosen in zip(ax.get_yticklabels(), bold, strict=True):
        label.set(color=style.INK, fontweight="bold" if chosen else "normal")


def conventions(fits: Fits, arrays: Arrays) -> Figure | str:
    """The exponent a under every way to count parameters and FLOPs of the same runs."""
    rows = [row for row in reversed(fits.conventions) if _exponents(row)]
    if len(rows) < 2:
        counted = "one way" if len(fits.conventions) == 1 else f"{len(fits.conventions)} ways"
        return f"the runs are counted {counted} and {len(rows)} of them gives an exponent"
    figure, (ax,) = style.panels(1, width=7.4, height=0.4 * len(rows) + 1.5)
    ax.set_position((0.36, 0.62 / figure.get_figheight(), 0.6, 1 - 1.15 / figure.get_figheight()))
    spread = [(row.interval or {}).get("a") or () for row in rows]
    values = [a for row in rows for a in _exponents(row).values()]
    values += [*itertools.chain(*spread), *_PRINTED.values()]
    low, high = np.clip(style.limits(values, 0.1), -0.5, 1.5)
    for y, (row, ends) in enumerate(zip(rows, spread, strict=True)):
        ax.plot(ends, [y] * len(ends), color=style.VERMILION, lw=2, alpha=0.5, zorder=2)
        for name, a in _exponents(row).items():
            marker, colour, shift = _MARKS[name]
            inside = low < a < high
            ax.plot(
                np.clip(a, low, high), y + shift, marker if inside else "><"[a < low], ms=7.5,
                color=colour, mec="white", mew=0.7, zorder=3, clip_on=False,
            )  # fmt: skip
    _named_rows(
        ax,
        [f"N {in_print(row.params)}, C {in_print(row.flops)}" for row in rows],
        [row.chosen for row in rows],
    )
    ax.set_xlim(low, high)
    for name, at in _PRINTED.items():
        ax.axvline(at, color=style.SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.text(at, len(rows) - 0.38, f"{name} {at:.2f}".replace("0.", "."), ha="center",
                va="bottom", color=style.SOFT, fontsize=9)  # fmt: skip
    ax.set_xlabel("a, exponent of N*")
    keys = [style.key(name, marker, ms=7, color=c) for name, (marker, c, _) in _MARKS.items()]
    ax.legend(handles=keys, loc="lower right", bbox_to_anchor=(0.0, 0.99), ncols=3,
              columnspacing=0.8, handletextpad=0.1, borderpad=0.2, handlelength=1.4)  # fmt: skip
    return figure


def _exponents(row: Convention) -> dict[str, float]:
    """The exponents that are known, by approach."""
    found = {"surface": row.surface_a, "valley": row.valley_a, "parabola": row.parabola_a}
    return {name: a for name, a in found.items() if a is not None}
