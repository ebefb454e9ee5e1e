"""ln m by least squares on ln loss, many draws at a time.

A row's u = ln m is design @ theta: a constant, and perhaps a slope in ln N, ln D or ln D/N. The
problem has one or two unknowns and is solved by Levenberg's damped Gauss-Newton. Where a loss lies
below all that the law reaches, u runs away: it is stopped at BEYOND and called infinite.

Array suffixes: B draws, R rows, K unknowns.
"""

from __future__ import annotations

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.ruler.yardstick import Moved

BEYOND = float(np.log(100.0))  # no dense run tells a hundredfold
_GRID = np.linspace(-BEYOND, BEYOND, 93)
_ITERATIONS = 40


def solve(
    law: Moved, target_BxR: Floats, weights_BxR: Floats, design_RxK: Floats, start_BxK: Floats
) -> Floats:
    """theta_BxK from `start_BxK`; the target is ln loss, less what is known of its noise."""
    theta = start_BxK.copy()
    eye = np.eye(theta.shape[1])
    low, high = -BEYOND * 1.2, BEYOND * 1.2

    def residual(theta: Floats) -> tuple[Floats, Floats, Floats]:
        inside = np.clip(theta @ design_RxK.T, low, high)
        value, slope = law.at(inside)
        miss = value - target_BxR
        return miss, slope, (weights_BxR * miss**2).sum(axis=1)

    damping = np.full(len(theta), 1e-3)
    miss, slope, objective = residual(theta)
    for _ in range(_ITERATIONS):
        jacobian = slope[:, :, None] * design_RxK
        weighted = jacobian * weights_BxR[:, :, None]
        gradient = np.einsum("brk,br->bk", weighted, miss)
        normal = np.einsum("brk,brl->bkl", weighted, jacobian)
        scale = np.trace(normal, axis1=1, axis2=2) + 1e-300
        matrix = normal + (damping * scale)[:, None, None] * eye
        step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
        step = np.clip(np.nan_to_num(step), -1.0, 1.0)
        trial = np.clip(theta + step, low, high)
        then = residual(trial)
        better = then[2] <= objective
        theta = np.where(better[:, None], trial, theta)
        miss, slope, objective = (
            np.where(better if new.ndim == 1 else better[:, None], new, old)
            for new, old in zip(then, (miss, slope, objective), strict=True)
        )
        damping = np.where(better, damping * 0.1, np.minimum(damping * 10, 1e6)) + 1e-12
        if np.all(~better | (np.abs(step).max(axis=1) < 1e-9)):
            break
    return theta


def searched(law: Moved, target_R: Floats, design_RxK: Floats) -> Floats:
    """theta_K of the one problem `law`, its constant searched on a grid first."""
    each = [float(((law.at(u)[0] - target_R) ** 2).sum()) for u in _GRID]
    start = np.zeros((1, design_RxK.shape[1]))
    start[0, 0] = _GRID[int(np.argmin(each))]
    ones = np.ones((1, len(target_R)))
    return np.asarray(solve(law, target_R[None], ones, design_RxK, start)[0])


def infinite(u: Floats) -> Floats:
    """What ran away as plus or minus infinity."""
    return np.where(np.abs(u) >= BEYOND, np.copysign(np.inf, u), u)
