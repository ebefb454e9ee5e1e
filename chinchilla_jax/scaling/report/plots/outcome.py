"""A registered forecast beside what was measured, and all of them: the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.register.verdict import Outcome, Verdict, Z
from chinchilla_jax.scaling.report.plots import style

_KINDS = (
    ("loss", "loss L*", style.BLUE),
    ("params", "parameters N*", style.VERMILION),
    ("run", "single runs", style.SOFT),
)


def outcome(verdict: Verdict) -> Figure | str:
    """Loss against parameters at the new budget: what was said of each run, and what came."""
    if not verdict.runs:
        return "no run has a loss"
    figure, (ax,) = style.panels(1, height=4.5)
    params = np.array([run.params for run in verdict.runs])
    measured = np.array([run.measured for run in verdict.runs], float)
    predicted = np.array([run.predicted for run in verdict.runs])
    inside = np.array([run.inside is not False for run in verdict.runs])
    heights = [measured, predicted]
    order = np.argsort(params)
    ax.plot(params[order], predicted[order], color=style.SOFT, lw=1.3, zorder=2)
    for run in verdict.runs:
        if run.interval is not None:
            ax.vlines(run.params, *run.interval, color=style.SKY, lw=7, alpha=0.35, zorder=1)
            heights.append(np.array(run.interval))
    for part, colour in ((inside, style.BLUE), (~inside, style.VERMILION)):
        part = part & np.isfinite(measured)
        marks = ax.scatter(params[part], measured[part], s=34, color=colour, zorder=5)
        style.name_points(marks, "outcome", np.flatnonzero(part))
    at = {one.what: one for one in verdict.numbers}
    sizes = [params]
    keys = [
        style.key(
            "forecast of a run, 95 %", color=style.SKY, lw=7, alpha=0.35, solid_capstyle="butt"
        ),
        style.key("measured", "o", color=style.BLUE, ms=6),
    ]
    if not inside.all():
        keys.append(style.key("measured, outside", "o", color=style.VERMILION, ms=6))
    if "params" in at and "loss" in at:
        size, loss = at["params"], at["loss"]
        if size.interval and loss.interval:
            ax.hlines(loss.predicted, *size.interval, color=style.INK, lw=1.1, zorder=3)
            ax.vlines(size.predicted, *loss.interval, color=style.INK, lw=1.1, zorder=3)
            heights.append(np.array(loss.interval))
            sizes.append(np.array(size.interval))
        ax.plot(size.predicted, loss.predicted, "*", ms=14, color=style.ORANGE, mec=style.INK,
                mew=0.8, zorder=6)  # fmt: skip
        keys.append(style.key("N*, L* forecast", "*", color=style.ORANGE, mec=style.INK, ms=12))
        if size.measured is not None and loss.measured is not None:
            minimum: dict[str, Any] = {"ms": 8, "color": "white", "mec": style.INK, "mew": 1.6}
            ax.plot(size.measured, loss.measured, "D", zorder=7, **minimum)
            keys.append(style.key("minimum measured", "D", **minimum))
    style.log_axis(ax.xaxis, *style.padded(np.concatenate(sizes), 1.25), numbers.count)
    ax.set_ylim(*style.limits(np.concatenate(heights)))
    ax.set_xlabel("parameters N")
    ax.set_ylabel(f"loss at {numbers.power_of_ten(verdict.flops)} FLOPs (nats per token)")
    ax.legend(handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3,
              borderaxespad=0.1, columnspacing=1.0, handletextpad=0.5)  # fmt: skip
    style.lower(figure, [ax], 1)
    return figure


def calibration(verdicts: Sequence[Verdict]) -> Figure | str:
    """Errors in standard deviations, forecast by forecast, and relative against distance."""
    figure, (left, right) = style.panels(2, width=9.6, height=4.3)
    left.axhspan(-Z, Z, color=style.FAINT, zorder=0)
    right_points = 0
    decades, errors = [], []
    for place, (what, name, colour) in enumerate(_KINDS):
        x, z, far, off = [], [], [], []
        for number, verdict in enumerate(verdicts, 1):
            for one in _of(verdict, what):
                if one.error is None:
                    continue
                far.append(max(verdict.decades, 0.01))
                off.append(abs(one.error))
                if one.z is not None:
                    x.append(number + 0.14 * (place - 1))
                    z.append(one.z)
        if not far:
            continue
        left.scatter(x, z, s=26, color=colour, label=name, zorder=3)
        if what != "run":
            right.scatter(far, off, s=30, color=colour, label=name, zorder=3)
            right_points += len(far)
            decades += far
            errors += off
    left.axhline(0, color=style.SOFT, lw=0.8)
    left.set_xlim(0.4, len(verdicts) + 0.6)
    step = max(1, len(verdicts) // 8)
    ticks = range(1, len(verdicts) + 1, step)
    left.set_xticks(list(ticks))
    low, high = left.get_ylim()
    left.set_ylim(min(low, -1.3 * Z), max(high, 1.3 * Z))
    left.set_ylabel("error in standard deviations z")
    left.set_xlabel("forecast, by its line in the ledger")
    left.set_title("grey: the 95 % interval", fontweight="normal", color=style.SOFT, fontsize=9.5)
    left.legend(loc="upper left", ncols=3, columnspacing=0.9, handletextpad=0.2)
    if right_points:
        right.set_xlim(0, max(decades) * 1.15)
        positive = [value for value in errors if value > 0] or [1e-3]
        style.log_axis(right.yaxis, *style.padded(positive, 1.5), lambda y: f"{100 * y:.2g} %")
    right.set_xlabel("decades of FLOPs beyond the runs")
    right.set_ylabel("absolute error")
    return figure


def _of(verdict: Verdict, what: str) -> list[Outcome]:
    return [one for one in (*verdict.numbers, *verdict.runs) if one.what == what]
