"""Where fits of a `Law` begin: its nonlinear variables spread out, its linear part solved exactly.

Variable projection (Golub & Pereyra 1973). Array suffixes: S points, R rows, K linear terms,
P parameters, V nonlinear variables.
"""

from __future__ import annotations

import itertools

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.laws.problem import Problem


def starts(problem: Problem, weights_R: Floats, count: int, searched: int) -> Floats:
    """The `count` best of `searched` points as z_SxP, no two of them neighbours in the search."""
    law = problem.law
    low, high = (np.log([bounds[i] for bounds in law.ranges.values()]) for i in (0, 1))
    theta_SxV = np.exp(low + (high - low) * _spread(searched, len(low)))
    values = dict(zip(law.ranges, theta_SxV.T[:, :, None], strict=True))
    basis, power = law.linear(values, problem.columns)
    # loss - offset = (basis c)^p = y: to first order the residual of ln(loss) is
    # p y/loss (basis c / y^(1/p) - 1).
    y_R = problem.loss_R - law.offset(problem.columns)
    target = np.maximum(y_R, 1e-9 * problem.loss_R) ** (1 / power)
    basis_SxRxK = np.stack([np.broadcast_to(phi / target, basis[0].shape) for phi in basis], -1)
    share_R = np.maximum(y_R, 0.0) / problem.loss_R
    c_SxK, squares_S = _nonnegative_least_squares(basis_SxRxK, weights_R * share_R**2)
    squares_S = squares_S * np.broadcast_to(power, (searched, 1))[:, 0] ** 2
    # A term that came out as zero starts small instead, since logs cannot leave zero.
    small_SxK = 1e-3 / np.abs(basis_SxRxK).max(axis=1)
    parameters = law.natural(values, tuple(np.maximum(c_SxK, small_SxK).T[:, :, None]))
    z_SxP = np.log(np.concatenate([parameters[name] for name in law.parameters], axis=1))
    order = np.argsort(np.where(np.all(np.isfinite(z_SxP), axis=1), squares_S, np.inf))
    unit_SxV = (np.log(theta_SxV) - low) / (high - low)
    apart = 0.25 * searched ** (-1 / len(low))
    kept: list[int] = []
    for index in order:
        if all(np.abs(unit_SxV[index] - unit_SxV[other]).max() > apart for other in kept):
            kept.append(int(index))
        if len(kept) == count:
            break
    return np.asarray(z_SxP[kept])


def _spread(count: int, dimensions: int) -> Floats:
    """Low-discrepancy points in the unit cube (Roberts' R-sequence)."""
    root = 1.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    step_D = root ** -np.arange(1.0, dimensions + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * step_D) % 1.0)


def _nonnegative_least_squares(basis_SxRxK: Floats, weights_R: Floats) -> tuple[Floats, Floats]:
    """c_SxK >= 0 nearest to basis @ c = 1, by trying every set of terms; and the squares left.

    K is at most five, so 31 small batched solves; the constraint makes the best set that is itself
    non-negative the optimum.
    """
    terms = basis_SxRxK.shape[2]
    weighted = basis_SxRxK * np.sqrt(weights_R)[:, None]
    scale_SxK = np.sqrt(np.einsum("srk,srk->sk", weighted, weighted)) + 1e-300
    unit = weighted / scale_SxK[:, None]
    normal, right = unit.transpose(0, 2, 1) @ unit, np.sqrt(weights_R) @ unit
    best_S, best_SxK = np.full(len(unit), np.inf), np.zeros((len(unit), terms))
    for count in range(1, terms + 1):
        for chosen in map(list, itertools.combinations(range(terms), count)):
            matrix = normal[:, chosen][:, :, chosen] + 1e-13 * np.eye(count)
            c = np.linalg.solve(matrix, right[:, chosen, None])[..., 0]
            left = weights_R.sum() - np.einsum("sk,sk->s", c, right[:, chosen])
            wins = np.all(c >= 0, axis=1) & (left < best_S)
            best_S = np.where(wins, left, best_S)
            full = np.zeros_like(best_SxK)
            full[:, chosen] = c
            best_SxK = np.where(wins[:, None], full, best_SxK)
    return best_SxK / scale_SxK, best_S
