"""ln m by least squares on ln loss, many draws at a time.

A row's u = ln m is design @ theta: a constant, and perhaps a slope in ln N, ln D or ln D/N. The
problem has one or two unknowns and is solved by Levenberg's damped Gauss-Newton. Where a loss lies
below all that the law reaches, u runs away: it is stopped at BEYOND and called infinite.

Array suffixes: B draws, R rows, K unknowns.
"""

from __future__ import annotations

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.ruler.yardstick import Moved

BEYOND = float(np.log(100.0))  # no dense run tells a hundredfold
_GRID = np.linspace(-BEYOND, BEYOND, 93)
_ROUND = 6  # iterations after which those that have arrived are left out
_ROUNDS = 6
_ARRIVED = 1e-9  # step in u


def solve(
    law: Moved, target_BxR: Floats, weights_BxR: Floats, design_RxK: Floats, start_BxK: Floats
) -> Floats:
    """theta_BxK from `start_BxK`; the target is ln loss, less what is known of its noise."""
    theta, damping = start_BxK.copy(), np.full(len(start_BxK), 1e-3)
    live = np.arange(len(theta))
    for _ in range(_ROUNDS):
        whole = len(live) == len(theta)
        problem = (law, target_BxR, weights_BxR) if whole else (
            law.draws(live), target_BxR[live], weights_BxR[live]
        )  # fmt: skip
        theta[live], damping[live], moving = _improved(
            *problem, design_RxK, theta[live], damping[live]
        )
        live = live[moving]
        if not len(live):
            break
    return theta


def _improved(
    law: Moved, target: Floats, weights: Floats, design: Floats, theta: Floats, damping: Floats
) -> tuple[Floats, Floats, Bools]:
    """A round of iterations: theta, damping, and which problems still move."""
    most = 1.2 * BEYOND
    unknowns = design.shape[1]
    pairs = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)

    def residual(theta: Floats) -> tuple[Floats, Floats, Floats]:
        value, slope = law.at(np.clip(theta @ design.T, -most, most))
        miss = value - target
        return miss, slope, (weights * miss**2).sum(axis=1)

    miss, slope, objective = residual(theta)
    moving = np.ones(len(theta), bool)
    for _ in range(_ROUND):
        pull = weights * slope
        gradient = (pull * miss) @ design
        normal = ((pull * slope) @ pairs).reshape(-1, unknowns, unknowns)
        scale = np.trace(normal, axis1=1, axis2=2) + 1e-300
        matrix = normal + (damping * scale)[:, None, None] * np.eye(unknowns)
        step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
        step = np.clip(np.nan_to_num(step), -1.0, 1.0)
        trial = np.clip(theta + step, -most, most)
        then = residual(trial)
        better = then[2] <= objective  # False for NaN
        moving = better & (np.abs(trial - theta).max(axis=1) > _ARRIVED)
        moving |= ~better & (damping < 1e6)
        theta = np.where(better[:, None], trial, theta)
        miss, slope, objective = (
            np.where(better if new.ndim == 1 else better[:, None], new, old)
            for new, old in zip(then, (miss, slope, objective), strict=True)
        )
        damping = np.where(better, damping * 0.1, damping * 10) + 1e-12
        if not moving.any():
            break
    return theta, damping, moving


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
