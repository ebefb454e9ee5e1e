"""What a law holds best of one of its columns, against how long is trained, beside the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.draws import LENGTHS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import spanned
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.table.runs import Runs

_POINTS = 200


def drawers(fits: Sequence[LawFit], runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """The figure by its name, where a law with a choice was fitted to `runs`."""
    found = [fit for fit in fits if fit.choices]
    return {"choice": lambda: choice(found[0], runs)} if found else {}


def choice(fit: LawFit, runs: Runs) -> Figure:
    """The best value by length of training, its 95 % bars at LENGTHS, and what was run."""
    law = LAWS[fit.law]
    assert law.choice is not None
    runs = runs.select(runs.best_R(spanned(law, runs)))
    held = {
        "params": runs.params, "tokens": runs.tokens, "flops": runs.flops, **runs.columns
    }  # fmt: skip
    columns = {name: held[law.source_of(name, held)] for name in law.columns}
    known_R = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    columns = {name: column[known_R] for name, column in columns.items()}
    parameters = {name: np.asarray(value) for name, value in fit.parameters.items()}
    run_R = law.choice.length(parameters, columns)
    figure, (ax,) = style.panels(1, height=4.3)
    low, high = style.padded(np.concatenate([run_R, LENGTHS]), 1.25)
    length = np.geomspace(low, high, _POINTS)
    ax.plot(length, law.choice.best(parameters, length), color=style.VERMILION, label="best")
    for chosen in fit.choices:
        if chosen.interval is not None:
            ax.plot([chosen.length] * 2, chosen.interval, color=style.VERMILION, linewidth=1.2)
        ax.scatter(chosen.length, chosen.value, s=26, color=style.VERMILION, zorder=3)
    label = f"runs ({known_R.sum()})"
    marks = ax.scatter(
        run_R, columns[law.choice.column], s=22, color=style.SOFT, zorder=3, label=label
    )
    style.name_points(marks, "run", runs.index_R[known_R])
    style.log_axis(ax.xaxis, low, high, numbers.ratio)
    ax.set_xlabel(law.choice.unit)
    ax.set_ylabel(law.choice.column)
    ax.legend(loc="upper left")
    return figure
