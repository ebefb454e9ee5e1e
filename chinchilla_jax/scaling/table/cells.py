"""Which runs belong together: budgets, cells, and the best trial of a cell."""

import math

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Bools, Floats

GROUP_TOLERANCE = 0.10  # flops within this factor of each other count as one budget
_BUDGET_RATIO = 1.4  # budgets that nobody stated lie at least this factor apart
_LEAST = 5  # runs without a stated budget that make one
# A grid says itself what its budgets are: nearly all runs share their FLOPs, to rounding, with
# two others or more.
_GRID_TOLERANCE = 0.01
_GRID_LEAST = 3
_GRID_SHARE = 0.9
_ROUNDING = 0.01  # of tokens, that whole steps make


def group_flops(flops_R: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The budgets of a grid, else groups of at least 5 runs whose FLOPs lie within 10 %.

    A group's budget is the geometric mean of its FLOPs. Returns group_R (-1: in none) and budget_G,
    ascending.
    """
    group_R, budget_G = _windows(flops_R, _GRID_TOLERANCE, _GRID_LEAST)
    if np.mean(group_R >= 0) >= _GRID_SHARE:
        return group_R, budget_G
    return _windows(flops_R, GROUP_TOLERANCE, _LEAST)


def _windows(flops_R: Floats, tolerance: float, least: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Runs within `tolerance`: the fullest window first, then the fullest far enough from it."""
    order = np.argsort(flops_R, kind="stable")
    log_flops = np.log(flops_R[order])
    end = np.searchsorted(log_flops, log_flops + math.log1p(tolerance), side="right")
    free = np.ones(len(flops_R), bool)
    windows: list[tuple[float, npt.NDArray[np.intp]]] = []
    while True:
        counted = np.concatenate([[0], np.cumsum(free)])
        inside = np.where(free, counted[end] - counted[:-1], 0)
        begin = int(inside.argmax())
        if inside[begin] < least:
            break
        members = begin + np.flatnonzero(free[begin : end[begin]])
        middle = float(log_flops[members].mean())
        windows.append((middle, members))
        free &= np.abs(log_flops - middle) > math.log(_BUDGET_RATIO)
    windows.sort(key=lambda window: window[0])
    group_R = np.full(len(flops_R), -1, np.int64)
    for g, (_, members) in enumerate(windows):
        group_R[order[members]] = g
    return group_R, np.exp(np.array([middle for middle, _ in windows]))


def cell_index(*columns: Floats) -> npt.NDArray[np.int64]:
    """The same number for rows that are equal in every column; NaN equals NaN."""
    stacked = np.nan_to_num(np.stack(columns), nan=-1.0)
    order = np.lexsort(stacked[::-1])  # much faster than np.unique over an axis
    other = np.any(np.diff(stacked[:, order]) != 0, axis=0)
    number_R = np.empty(len(order), np.int64)
    number_R[order] = np.concatenate([np.zeros(min(1, len(order)), bool), other]).cumsum()
    return number_R


def rounded_cells(params_R: Floats, tokens_R: Floats) -> npt.NDArray[np.int64]:
    """The same number for rows of equal params whose tokens differ by the rounding to whole steps.

    Batches of several sizes cannot have the very same tokens. Lengths that lie so close together
    that they would chain into one count as they are.
    """
    order = np.lexsort((tokens_R, params_R))
    params, tokens = params_R[order], tokens_R[order]
    other = np.r_[True, (np.diff(params) != 0) | (np.diff(tokens) > _ROUNDING * tokens[:-1])]
    group = np.cumsum(other) - 1
    first = np.flatnonzero(other)
    last = np.r_[first[1:], len(order)] - 1
    chained = (tokens[last] > (1 + 2 * _ROUNDING) * tokens[first])[group]
    exact = np.r_[True, (np.diff(params) != 0) | (np.diff(tokens) != 0)]
    number_R = np.empty(len(order), np.int64)
    number_R[order] = np.cumsum(other | (chained & exact)) - 1
    return number_R


def lowest(cell_R: npt.NDArray[np.int64], trial_R: npt.NDArray[np.int64], value_R: Floats) -> Bools:
    """Rows of the trial whose mean value is the lowest of its cell; of equals the first trial."""
    mean_T = np.bincount(trial_R, value_R) / np.bincount(trial_R)
    order = np.lexsort((trial_R, mean_T[trial_R], cell_R))
    first = np.r_[True, np.diff(cell_R[order]) != 0]
    best_C = dict(zip(cell_R[order][first], trial_R[order][first], strict=True))
    return np.asarray(trial_R == np.array([best_C[cell] for cell in cell_R]))


def budgets(
    flops_R: Floats, stated_R: Floats | None
) -> tuple[npt.NDArray[np.int64], Floats, str | None]:
    """group_R, budget_G and where they are from: the column of budgets, else groups of FLOPs."""
    if stated_R is not None and not np.any(np.isnan(stated_R)):
        budget_G, group_R = np.unique(stated_R, return_inverse=True)
        return np.asarray(group_R, np.int64), budget_G, "column"
    group_R, budget_G = group_flops(flops_R)
    return group_R, budget_G, "grouped" if len(budget_G) else None
