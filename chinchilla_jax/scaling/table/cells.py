"""Which runs belong together: budgets that nobody stated, and rates tried in one cell."""

import math

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats

GROUP_TOLERANCE = 0.10  # flops within this factor of each other count as one budget
_BUDGET_RATIO = 1.4  # budgets that nobody stated lie at least this factor apart
_LEAST = 5  # runs without a stated budget that make one


def group_flops(flops_R: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Groups of at least 5 runs whose FLOPs lie within 10 % of each other.

    The fullest window is taken first, then the fullest that is far enough from those taken. A
    group's budget is the geometric mean of its FLOPs. Returns group_R (-1: in none) and budget_G,
    ascending.
    """
    order = np.argsort(flops_R, kind="stable")
    log_flops = np.log(flops_R[order])
    end = np.searchsorted(log_flops, log_flops + math.log1p(GROUP_TOLERANCE), side="right")
    free = np.ones(len(flops_R), bool)
    windows: list[tuple[float, npt.NDArray[np.intp]]] = []
    while True:
        counted = np.concatenate([[0], np.cumsum(free)])
        inside = np.where(free, counted[end] - counted[:-1], 0)
        begin = int(inside.argmax())
        if inside[begin] < _LEAST:
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
    return np.asarray(np.unique(stacked, axis=1, return_inverse=True)[1].ravel(), np.int64)


def worse_rates(cell_R: npt.NDArray[np.int64], rate_R: Floats, loss_R: Floats) -> dict[int, float]:
    """Rows whose learning rate did worse than another of their cell, with the cell's best rate.

    Seeds of one rate are averaged in ln loss before rates are compared. Rows without a rate stay.
    """
    trial_R = cell_index(cell_R.astype(float), rate_R)
    mean_T = np.bincount(trial_R, np.log(loss_R)) / np.bincount(trial_R)
    best: dict[int, int] = {}
    for row in np.flatnonzero(~np.isnan(rate_R)):
        cell = int(cell_R[row])
        if cell not in best or mean_T[trial_R[row]] < mean_T[trial_R[best[cell]]]:
            best[cell] = int(row)
    return {
        int(row): float(rate_R[best[int(cell_R[row])]])
        for row in np.flatnonzero(~np.isnan(rate_R))
        if rate_R[row] != rate_R[best[int(cell_R[row])]]
    }
