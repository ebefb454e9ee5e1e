"""Where the polish of `separable` begins: a grid of exponents with its linear part solved exactly.

Variable projection: Golub & Pereyra 1973; for scaling laws Czech et al. 2603.22339.
Array suffixes: B problems, G grid points, R rows, K terms, F = K + 1 features, P = 2K + 1.
"""

from dataclasses import replace

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.newton import Objective, Rows

_GRID_RANGE = (0.03, 2.0)
_GRID_ROWS = 2048  # a start needs no more rows than these
_GRID_NUMBERS = 1 << 20  # that the grid's features may hold at a time


def exponent_grid(terms: int, tied: bool, size: int) -> Floats:
    """All combinations [points, K] of `size` exponents, log-spaced from .03 to 2."""
    exponents = np.geomspace(*_GRID_RANGE, size)
    if tied or terms == 1:
        return np.repeat(exponents[:, None], terms, axis=1)
    return np.stack(np.meshgrid(*[exponents] * terms, indexing="ij"), -1).reshape(-1, terms)


def grid_solutions(
    rows: Rows, weights_BxR: Floats, on_logs: bool, grid_GxK: Floats, loss_BxR: Floats | None = None
) -> tuple[Floats, Floats]:
    """The linear part at every grid point by weighted least squares, none negative.

    Returns theta_BxGxP and the sums of squares; on logs the residuals are relative, which is what
    ln(predicted / observed) is to first order. `loss_BxR` where every problem has its own losses.
    """
    loss = rows.loss_R[None] if loss_BxR is None else loss_BxR
    points, terms = grid_GxK.shape
    size = len(rows.loss_R)
    weights = weights_BxR / (loss**2 if on_logs else 1.0)
    pairs = [(i, j) for i in range(terms + 1) for j in range(i + 1)]
    normal = np.empty((len(weights), points, terms + 1, terms + 1))
    right = np.empty((len(weights), points, terms + 1))
    step = max(1, _GRID_NUMBERS // (size * (terms + 1)))
    for begin in range(0, points, step):
        block = slice(begin, begin + step)
        x_FxGxR = np.ones((terms + 1, len(grid_GxK[block]), size))
        for k in range(terms):
            unique, where = np.unique(grid_GxK[block, k], return_inverse=True)
            x_FxGxR[k + 1] = np.exp(-unique[:, None] * rows.z_KxR[k])[where]
        for i, j in pairs:
            normal[:, block, i, j] = normal[:, block, j, i] = weights @ (x_FxGxR[i] * x_FxGxR[j]).T
        right[:, block] = np.moveaxis(x_FxGxR @ (weights * loss).T, (0, 1, 2), (2, 1, 0))

    # Scaled to a unit diagonal; the ridge only matters where two terms coincide. One division
    # after the other: the square of a scale that underflowed would be 0.
    scale = np.sqrt(np.einsum("bgff->bgf", normal)) + 1e-300
    normal, right = normal / scale[..., None] / scale[..., None, :], right / scale
    ridged = normal + 1e-12 * np.eye(terms + 1)
    free = np.linalg.solve(ridged, right[..., None])[..., 0]
    without_e = np.zeros_like(free)
    inner = np.linalg.solve(ridged[..., 1:, 1:], right[..., 1:, None])
    without_e[..., 1:] = inner[..., 0]
    candidates = np.maximum(np.stack([free, without_e]), 0.0)
    curved = (candidates[..., None, :] @ normal @ candidates[..., None])[..., 0, 0]
    constant = np.sum(weights * loss**2, axis=1)[:, None]
    squares = constant + curved - 2 * np.sum(candidates * right, axis=-1)
    best = squares.argmin(axis=0)
    c_BxGxF = np.take_along_axis(candidates, best[None, ..., None], axis=0)[0] / scale
    smallest = 1e-3 * float(loss.min())  # a start must not sit on the bound
    exponents = np.broadcast_to(grid_GxK, (len(weights), points, terms))
    theta = np.concatenate([np.maximum(c_BxGxF, smallest), exponents], axis=-1)
    return theta, squares.min(axis=0)


def starts(
    rows: Rows,
    weights_BxR: Floats,
    objective: Objective,
    tied: bool,
    count: int,
    size: int = 32,
    loss_BxR: Floats | None = None,
) -> Floats:
    """`count` starting points a problem [B, count, P]: half the best of the grid, half spread out.

    The second half, the best of each region of exponents, keeps the starts apart, so that their
    agreement says something.
    """
    grid_GxK = exponent_grid(len(rows.z_KxR), tied, size)
    every = slice(None, None, 1 + len(rows.loss_R) // _GRID_ROWS)
    thin = replace(rows, z_KxR=rows.z_KxR[:, every], loss_R=rows.loss_R[every])
    losses = None if loss_BxR is None else loss_BxR[:, every]
    theta, squares = grid_solutions(
        thin, weights_BxR[:, every], objective.on_logs, grid_GxK, losses
    )
    per_axis = int(np.ceil((count / 2) ** (1 / (1 if tied else grid_GxK.shape[1]))))
    edges = np.geomspace(*_GRID_RANGE, per_axis + 1)[1:-1]
    cell = np.searchsorted(edges, grid_GxK, side="right")
    region_G = (cell * per_axis ** np.arange(grid_GxK.shape[1])).sum(axis=1)
    order_BxG = np.argsort(squares, axis=1, kind="stable")
    region_BxG = region_G[order_BxG]
    first = [(region_BxG == region).argmax(axis=1) for region in np.unique(region_G)]
    taken = np.zeros(order_BxG.shape, bool)
    np.put_along_axis(taken, np.stack(first, axis=1), True, axis=1)
    left = max(0, min(count, len(grid_GxK)) - len(first))
    rest = np.argsort(taken[:, :count], axis=1, kind="stable")[:, :left]
    place = np.concatenate([np.stack(first, axis=1), rest], axis=1)[:, :count]
    chosen = np.take_along_axis(order_BxG, place, axis=1)
    return np.take_along_axis(theta, chosen[..., None], axis=1)
