"""The error of the form that hold-out is expected to show once a design's runs are made.

Losses of a design's runs are made up on the surface of those there are, with their noise, and all
is evaluated as `evaluate` does. So what a report makes of a design counts beside what its runs tell
by chance: how many budgets have a minimum, what hold-out can check of the law by them and how far
from the target, and how far other forms agree.

Real losses do not lie on the surface that these are made up on: over 12 public tables what is so
expected of designs goes with what comes by a correlation of .3 (of made-up grids .5). So the first
design is made unless another is expected to be clearly better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats, Ints, silent
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.choose import Design, after
from chinchilla_jax.scaling.design.known import LEAST_BEYOND, Known, fitted, form_error
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs

log = logging.getLogger(__name__)
_PATIENCE = 3.0  # seconds of a choice, after which it tells how far it is
_TIMES = 3  # that the losses of a design are made up
_MOST = 2.0  # in ln, of an error; that of runs which tell none
_LESS = 0.2  # of ln of both widths together, by which another design must be narrower


def narrowest(
    known: Known,
    pool: Pool,
    designs: Sequence[Design],
    waiting_C: Ints,
    settings: Settings,
    began: float | None = None,
) -> Design:
    """The first design, or one after which the intervals of N* and L* are expected to be narrower
    by a fifth, as their product: those of chance with the form's error.

    Args:
      waiting_C: runs that are made beside any design.
      began: when the choice did, by `time.monotonic`; with the comparison by default.
    """
    chance = known.of(pool, form=False)
    if len(designs) == 1 or chance is None:
        return designs[0]
    due = (time.monotonic() if began is None else began) + _PATIENCE

    def width(number: int, design: Design) -> float:
        """ln of both together."""
        if time.monotonic() > due:
            log.info("designs are compared by losses that are made up: %d of %d are done",
                     number, len(designs))  # fmt: skip
        count_C = design.count_C + waiting_C
        form_T = form_variance(known, pool, count_C, settings)
        return float(np.log(after(chance, count_C).variance_T + form_T).sum()) / 2

    first, *others = ((design, width(i, design)) for i, design in enumerate(designs))
    best = min(others, key=lambda item: item[1])
    return best[0] if best[1] < first[1] - _LESS else first[0]


@silent()
def form_variance(known: Known, pool: Pool, count_C: Ints, settings: Settings) -> Floats:
    """[T]: of the form's error of ln N* and of ln L*, mean of several made-up evaluations."""
    # Without draws, which the error of the form needs none of.
    quick = replace(Settings(bootstrap=0, seed=settings.seed), objective=settings.objective,
                    delta=settings.delta, tied=settings.tied, minima=settings.minima)  # fmt: skip
    found: list[tuple[float, ...]] = []
    for number in range(_TIMES):
        runs = read_runs(_made_up(known, pool, count_C, number))
        # Where a run is at the target itself, what is right behind it.
        target = max(known.target, 1.01 * LEAST_BEYOND * float(runs.flops.max()))
        try:
            found.append(form_error(fitted(runs, quick)[1], target))
        except UserError:  # no surface, as of a report: it states nothing
            found.append((_MOST, _MOST))
    error_SxT = np.minimum(np.nan_to_num(np.array(found), nan=_MOST), _MOST)
    return np.asarray(np.mean(error_SxT**2, axis=0))


def _made_up(known: Known, pool: Pool, count_C: Ints, number: int) -> dict[str, Any]:
    """A table of the runs there are and those of a design.

    The noise of a candidate's first run, and of its second, is that of `number` in any design.
    """
    runs, which = known.each.runs, np.repeat(np.arange(len(pool)), count_C)
    most = max(int(count_C.max()), 1)
    drawn = np.random.default_rng(number).standard_normal((most, len(pool))).T
    noise = drawn[np.arange(most) < count_C[:, None]] * known.noise(pool.flops_C)[which]
    params, tokens = pool.params_C[which], pool.tokens_C[which]
    flops = known.each.flops_model.flops(params, tokens)
    made = {
        "params": (runs.params, params),
        "tokens": (runs.tokens, tokens),
        "flops": (runs.flops, flops),
        "loss": (runs.loss, known.surface.loss(params, tokens) * np.exp(noise)),
    }
    if runs.budgets_from == "column":
        made["budget"] = (runs.budget_G[runs.group_R], pool.budget_C[which])
    table: dict[str, Any] = {name: np.append(*columns) for name, columns in made.items()}
    if runs.trunk_R() is not None:
        names = [f"next-{i}" for i in range(len(which))]
        table["run_id"] = [*runs.run_id_R, *names]
        table["parent_run"] = [*runs.labels["parent_run"], *[""] * len(which)]
    return table
