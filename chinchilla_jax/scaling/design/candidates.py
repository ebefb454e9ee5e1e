"""Runs that could be made next: cells of the budgets there are, further seeds, new budgets.

They stay where the runs are: no farther from the best size than these go, since runs far from it
bend a surface (`doubt/holdout`), and no smaller than the smallest budget, below which the law was
never seen. Of a work folder they are cells that its recipe can train; of a table, sizes half an
octave apart.

Array suffix: C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.experiment import vary
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.register.runs import Sweep, only, shapes_near, size_of
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

WITHIN = 0.15  # of the lowest loss of its budget, expected of a candidate
_APART = 2**0.5  # between sizes of a table
_MOST_SEEDS = 5  # of a cell, those made among them
_USUAL_STEP = 3.0  # from budget to budget, of a table that has none
_SAME = 0.02  # ln params and ln tokens within which a run is of the cell


Key = tuple[float, int, int]
"""Budget, width and depth of a cell."""


def key_of(cell: Cell) -> Key:
    """What a cell is, whatever its seed and settings."""
    return cell.run.budget, cell.run.model.width, cell.run.model.depth


@dataclass(frozen=True)
class Pool:
    """Candidates: what a run of each would be and cost, how many were made, how many more may be.

    `budget_C` is the budget of a cell, which whole steps miss by less than a per cent.
    """

    params_C: Floats
    tokens_C: Floats
    flops_C: Floats
    budget_C: Floats
    made_C: Ints
    most_C: Ints
    cells: tuple[tuple[Cell, ...], ...] = ()  # of a work folder, a cell for each value that varies

    def __len__(self) -> int:
        return len(self.params_C)

    def select(self, keep_C: Bools) -> Pool:
        """The candidates of a mask."""
        index = np.flatnonzero(keep_C)
        arrays = {n: getattr(self, n)[index] for n in vars(self) if n != "cells"}
        return Pool(**arrays, cells=tuple(self.cells[i] for i in index) if self.cells else ())

    def points(self, count_C: Ints, planned: Sequence[Cell]) -> list[Point]:
        """The cells of a design as an experiment names them, with seeds that are not planned."""
        taken: dict[Key, set[int]] = {}
        for cell in planned:
            if cell.status == "planned":
                taken.setdefault(key_of(cell), set()).add(cell.run.seed)
        found = []
        for c in np.flatnonzero(count_C):
            budget, width, depth = key = key_of(self.cells[c][0])
            there, count = taken.get(key, set()), int(count_C[c])
            free = [seed for seed in range(len(there) + count) if seed not in there]
            found += [Point(budget=budget, width=width, depth=depth, seed=s) for s in free[:count]]
        return found


def budgets_to(known: Sequence[float], most: float, below: float = np.inf) -> list[float]:
    """The budgets there are and further ones up to `most`, in their steps: 1, 3, 10, 30, ...

    Half a step instead of one that is not `below`.
    """
    found = sorted(known)
    while True:
        step = found[-1] / found[-2] if len(found) > 1 else _USUAL_STEP
        if len(found) > 2:  # the step before, so that 3 and 3.3 go on as 3 and 3.3
            step = found[-2] / found[-3]
        whole, half = (float(f"{found[-1] * step**power:.3g}") for power in (1.0, 0.5))
        further = whole if whole <= below else half
        if whole > most * (1 + 1e-9) or not found[-1] < further <= below:
            return found
        found.append(further)


def of_table(
    runs: Runs, cost: FlopsModel, most: float, budgets: Sequence[float] = (), below: float = np.inf
) -> Pool:
    """Candidates of a table of runs at `budgets`: by default those of `budgets_to`."""
    known = np.array(budgets or runs.budget_G[np.unique(runs.group_R[runs.group_R >= 0])])
    if not len(known):  # no budgets at all
        low, high = float(runs.flops.min()), float(runs.flops.max())
        steps = max(1, round(np.log(high / low) / np.log(_USUAL_STEP)))
        known = np.geomspace(low, high, steps + 1)
    low, high = float(runs.params.min()), float(runs.params.max())
    reach = most / runs.flops.max()
    count = 1 + int(np.ceil(np.log(high * max(reach, 1.0) / low) / np.log(_APART)))
    sizes = low * _APART ** np.arange(count)
    at = np.array(budgets or budgets_to(known.tolist(), most, below))
    budget_C, params_C = (x.ravel() for x in np.meshgrid(at, sizes, indexing="ij"))
    tokens_C = cost.tokens(budget_C, params_C)
    pool = Pool(params_C, tokens_C, budget_C.copy(), budget_C, *_made(runs, params_C, tokens_C))
    ratio, seen = tokens_C / params_C, runs.tokens_per_param
    return pool.select((ratio >= seen.min() / _APART) & (ratio <= seen.max() * _APART))


def of_sweep(
    sweep: Sweep,
    base: Experiment,
    runs: Runs,
    most: float,
    best: float,
    below: float = np.inf,
) -> Pool:
    """Candidates of a work folder: cells that its recipe can train, of the sizes around `best`.

    Args:
      most, below: as `budgets_to`.
      base: its experiment, of which every size is to be had.
      best: parameters of the best run of the largest budget.
    Raises:
      UserError: nothing can be trained.
    """
    shapes = shapes_near(base, best)
    known = {cell.run.budget for cell in sweep.cells if cell.status == "planned"}
    budgets = budgets_to(sorted(known), most, below)
    asked = replace(
        base, budgets=tuple(budgets), ladder=only(base.ladder, shapes), panel={}, points=(),
        vary={path: values for path, values in base.vary.items() if path != "seed"},
    )  # fmt: skip
    if base.ladder.branches:  # beside the trunks there are, whose batch a run among theirs has
        wanted = tuple(
            Point(budget=budget, width=shape.width, depth=shape.depth, seed=base.seed)
            for budget in budgets
            for shape in shapes
        )
        there = sweep.experiment
        asked = replace(asked, budgets=there.budgets, ladder=there.ladder, points=wanted)
    together: dict[Key, list[Cell]] = {}
    for cell in sweep.planned(asked):
        if cell.status == "planned" and cell.run.seed == base.seed:
            together.setdefault(key_of(cell), []).append(cell)
    variants = len(vary.variants(asked))
    cells = [tuple(found) for found in together.values() if len(found) == variants]
    if not cells:
        raise UserError(f"{sweep.folder}: no cell can be trained at its budgets")
    params_C = np.array([size_of(each[0], runs.params_convention) for each in cells])
    tokens_C = np.array([float(each[0].tokens) for each in cells])
    flops_C = np.array([float(sum(cell.flops for cell in each)) for each in cells])
    budget_C = np.array([each[0].run.budget for each in cells])
    return Pool(
        params_C, tokens_C, flops_C, budget_C, *_made(runs, params_C, tokens_C), tuple(cells)
    )


def near(pool: Pool, surface: Surface, within: float = WITHIN) -> Pool:
    """Those whose loss is expected within a share of the lowest of their budget."""
    loss_C = surface.loss(pool.params_C, pool.tokens_C)
    lowest = {b: loss_C[pool.budget_C == b].min() for b in np.unique(pool.budget_C)}
    return pool.select(loss_C <= (1 + within) * np.array([lowest[b] for b in pool.budget_C]))


def _made(runs: Runs, params_C: Floats, tokens_C: Floats) -> tuple[Ints, Ints]:
    """How many runs each candidate has, and how many more it may get."""
    apart = np.maximum(
        np.abs(np.log(params_C[:, None] / runs.params)),
        np.abs(np.log(tokens_C[:, None] / runs.tokens)),
    )
    made_C = np.sum(apart < _SAME, axis=1)
    return made_C, np.maximum(_MOST_SEEDS - made_C, 0)
