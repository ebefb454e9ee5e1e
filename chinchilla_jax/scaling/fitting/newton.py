"""Many small robust regressions at once: damped Newton with exact second derivatives.

A batch holds B problems that share the rows and differ in row weights (bootstrap draws, rows left
out), in start, or in Huber's delta. What is fitted is a `Model`: a sum of exponentials
(`separable`), or such a sum under an outer power (`coupled`).

Array suffixes: B problems, R rows, K terms, P parameters.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Bools, Floats

# name -> (residuals of logs?, what the objective sums over runs)
LOSSES = {
    "log_huber": (True, "Huber's function of ln(predicted) - ln(observed)"),
    "huber": (False, "Huber's function of predicted - observed"),
    "squared": (True, "half the square of ln(predicted) - ln(observed)"),
    "least_absolute": (True, "|ln(predicted) - ln(observed)|"),
}
_ABSOLUTE_DELTA = 1e-9  # |r| is the limit of Huber(r) / delta; residuals of losses are above 1e-6
ITERATIONS = 100  # of Newton, at most
DAMPING = 1e-2  # to begin with, of the majoriser's curvature
_CHUNK = 50_000  # problems x rows that stay in a core's cache
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Objective:
    """The loss that a fit minimises: a weighted sum over runs, never a mean.

    A mean of terms near 1e-5 stops optimisers early (Besiroglu et al. 2404.10102).
    """

    loss: str = "log_huber"
    delta: float = 1e-3

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"objective '{self.loss}' is none of {', '.join(LOSSES)}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise UserError(f"delta must be positive and finite, not {self.delta}")

    @property
    def on_logs(self) -> bool:
        return LOSSES[self.loss][0]

    @property
    def huber_delta(self) -> float:
        """The delta of the Huber function that stands for this loss."""
        return {"squared": np.inf, "least_absolute": _ABSOLUTE_DELTA}.get(self.loss, self.delta)

    @property
    def named_delta(self) -> float | None:
        """Delta where the loss has one."""
        return self.delta if self.loss in ("log_huber", "huber") else None


@dataclass(frozen=True)
class Rows:
    """Rows of one table: `z_KxR` centred logs, `centre_K` what was subtracted, `loss_R`.

    `polish` also takes losses that differ by problem, `loss_BxR`.
    """

    z_KxR: Floats
    centre_K: Floats
    loss_R: Floats

    @classmethod
    def of(cls, loss_R: Floats, *x_R: Floats) -> "Rows":
        log_KxR = np.log(np.stack(x_R))
        centre_K = log_KxR.mean(axis=1)
        return cls(log_KxR - centre_K[:, None], centre_K, loss_R)


class Model(Protocol):
    """What is fitted. `low_P`, `high_P` bound the parameters; `scaled_P` tells those whose
    gradient is taken in their logarithm."""

    low_P: Floats
    high_P: Floats
    scaled_P: Bools

    def predict(self, z_KxR: Floats, theta_BxP: Floats) -> tuple[Floats, Floats]:
        """The predictions [B, R], and what `slopes` will need, first axis B."""

    def slopes(
        self, z_KxR: Floats, theta_BxP: Floats, kept: Floats, factor: Floats
    ) -> tuple[Floats, Floats]:
        """Derivatives [B, P, R] times `factor` [B, R], and what `bend` will need."""

    def bend(
        self, z_KxR: Floats, theta_BxP: Floats, jacobian: Floats, kept: Floats, pull: Floats,
        hessian: Floats,
    ) -> None:  # fmt: skip
        """Adds to `hessian` [B, P, P] the second derivatives times `factor` and `pull`, summed."""


class Solutions(NamedTuple):
    """`theta_BxP`, the objective, and the norm of its gradient.

    The gradient is taken in the logs of the model's `scaled_P`, so it has the objective's unit; a
    component that only pushes against a bound counts 0. `newton_B` counts iterations.
    """

    theta_BxP: Floats
    objective_B: Floats
    gradient_norm_B: Floats
    newton_B: npt.NDArray[np.int64]


def polish(
    model: Model,
    rows: Rows,
    weights_BxR: Floats,
    theta_BxP: Floats,
    objective: Objective,
    basis_PxF: Floats | None = None,
    delta_B: Floats | None = None,
    loss_BxR: Floats | None = None,
    iterations: int = ITERATIONS,
    damping: float = DAMPING,
) -> Solutions:
    """Damped Newton from every start to a stationary point, in pieces that fit the cache.

    `weights_BxR` may have one row for all problems. `basis_PxF` has a column for each free
    parameter where some are tied, which share one, or fixed, which have none. Huber's delta far
    below the residuals makes a nearly piecewise linear objective: it is approached from 1e-3 in
    steps of 4.
    """
    problems, size = len(theta_BxP), len(rows.loss_R)
    weights_BxR = np.broadcast_to(weights_BxR, (problems, size))
    last_B = np.full(problems, objective.huber_delta) if delta_B is None else delta_B
    target = rows.loss_R[None] if loss_BxR is None else loss_BxR
    target = np.log(target) if objective.on_logs else target
    step = max(1, _CHUNK // size)

    def solve(begin: int) -> Solutions:
        piece = slice(begin, begin + step)
        here = target if len(target) == 1 else target[piece]
        theta, last = theta_BxP[piece], last_B[piece]
        taken = np.zeros(len(theta), np.int64)
        delta = np.maximum(last, 1e-3)
        while True:
            found = _newton(
                model, rows.z_KxR, here, weights_BxR[piece], theta, delta, objective.on_logs,
                basis_PxF, iterations, damping,
            )  # fmt: skip
            theta, taken = found.theta_BxP, taken + found.newton_B
            if np.all(delta <= last):
                return found._replace(newton_B=taken)
            delta = np.maximum(last, delta / 4)

    pieces = range(0, problems, step)
    if len(pieces) == 1:
        joined = solve(0)
    else:  # NumPy leaves the interpreter lock, so threads share the pieces
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(solve, pieces))
        joined = Solutions(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    if objective.loss == "least_absolute":
        # From Huber's unit (delta times |r|) to that of |r|.
        return joined._replace(
            objective_B=joined.objective_B / last_B, gradient_norm_B=joined.gradient_norm_B / last_B
        )
    return joined


class Live(NamedTuple):
    """The problems that still move, and where they stand; first axis B in every array."""

    theta: Floats
    objective: Floats
    residual: Floats
    predicted: Floats
    kept: Floats

    def at(self, index: npt.NDArray[np.intp] | Bools) -> "Live":
        return Live(*(array[index] for array in self))

    def replaced(self, by: "Live", where_B: Bools) -> "Live":
        if where_B.all():
            return by
        for old, new in zip(self, by, strict=True):
            old[where_B] = new[where_B]
        return self


def evaluate(
    model: Model,
    z_KxR: Floats,
    target: Floats,
    weights: Floats,
    theta: Floats,
    delta: Floats,
    on_logs: bool,
) -> Live:
    """The problems [B] at `theta`: predictions, residuals and objectives under `weights`."""
    predicted, kept = model.predict(z_KxR, theta)
    # A step may end where every term is 0: a finite log there, so that weights of 0 stay 0.
    np.maximum(predicted, 1e-300, out=predicted)
    residual = (np.log(predicted) if on_logs else predicted) - target
    size = np.abs(residual)
    inside = np.minimum(size, delta[:, None])
    # Huber's function without a branch: inside * (|r| - inside / 2).
    size -= 0.5 * inside
    objective = ((weights * inside)[:, None] @ size[..., None])[:, 0, 0]
    return Live(theta, objective, residual, predicted, kept)


def _newton(
    model: Model,
    z_KxR: Floats,
    target: Floats,
    weights: Floats,
    theta: Floats,
    delta: Floats,
    on_logs: bool,
    basis: Floats | None,
    iterations: int,
    begin: float,
) -> Solutions:
    """Levenberg's damping of the exact Hessian; every parameter kept inside its bounds.

    A parameter on its bound whose gradient points outward is held for the step (projected Newton,
    Bertsekas 1982).
    """
    low, high = model.low_P, model.high_P
    # Tied parameters share a column: theta = basis @ free parameters.
    first = np.arange(len(low)) if basis is None else (basis != 0).argmax(axis=0)
    diagonal = np.arange(len(first))

    done = Solutions(
        theta.copy(), np.empty(len(theta)), np.empty(len(theta)), np.zeros(len(theta), np.int64)
    )
    index, damping = np.arange(len(theta)), np.full(len(theta), begin)
    live = evaluate(model, z_KxR, target, weights, done.theta_BxP, delta, on_logs)
    for iteration in range(1, iterations + 1):
        gradient, hessian, metric = derivatives(model, z_KxR, weights, live, delta, on_logs)
        if basis is not None:
            gradient, metric = gradient @ basis, metric @ basis**2
            hessian = basis.T @ hessian @ basis
        at = live.theta[:, first]
        held = ((at <= low[first]) & (gradient > 0)) | ((at >= high[first]) & (gradient < 0))
        unit = np.where(model.scaled_P[first], at, 1.0)
        norm = np.sqrt(np.sum(np.where(held, 0.0, gradient * unit) ** 2, axis=1))

        # In units in which the majoriser has curvature 1; a parameter without any does not move.
        scale = np.sqrt(np.where(held | ~(metric > 0), np.inf, metric))
        matrix = hessian / scale[:, :, None] / scale[:, None, :]
        matrix[:, diagonal, diagonal] += np.where(np.isinf(scale), 1.0, damping[:, None] + 1e-14)
        move = -solved(matrix, gradient / scale) / scale
        step = move if basis is None else move @ basis.T
        trial = np.clip(live.theta + step, low, high)
        then = evaluate(model, z_KxR, target, weights, trial, delta, on_logs)

        promised = np.abs(np.sum(gradient * move, axis=1))
        stop = promised <= 1e-15 * live.objective + 1e-32
        better = then.objective <= live.objective  # False for NaN
        live = live.replaced(then, better)
        damping = np.where(better, damping * 0.1, np.maximum(damping, 1e-8) * 8)
        stop |= damping > 1e12
        if iteration == iterations:
            stop[:] = True
        if stop.any():
            over = index[stop]
            done.theta_BxP[over], done.objective_B[over] = live.theta[stop], live.objective[stop]
            done.gradient_norm_B[over], done.newton_B[over] = norm[stop], iteration
            go = ~stop
            if not go.any():
                break
            index, damping, live = index[go], damping[go], live.at(go)
            weights, delta = weights[go], delta[go]
            target = target if len(target) == 1 else target[go]
    return done


def solved(matrix: Floats, right: Floats) -> Floats:
    """x [B, P] of matrix [B, P, P] x = right; a matrix that is singular is damped until it is not.

    Its diagonal is of order 1. Whether the step that comes of it is one is for the caller to see.
    """
    for damping in 10.0 ** np.arange(-8, 8):
        try:
            return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])
        except np.linalg.LinAlgError:
            singular = np.linalg.slogdet(matrix)[0] == 0
            matrix = matrix + np.where(singular, damping, 0.0)[:, None, None] * np.eye(
                len(matrix[0])
            )
    return np.zeros_like(right)


def row_terms(
    model: Model, z_KxR: Floats, weights: Floats, live: Live, delta: Floats, on_logs: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """What rows bring to gradient and Hessian: the slopes of (ln of) the law [B, P, R], what the
    model's `bend` needs, and the objective's first and second derivatives [B, R], weighted."""
    edge = delta[:, None]
    factor = 1.0 / live.predicted if on_logs else np.ones_like(live.predicted)
    jacobian, kept = model.slopes(z_KxR, live.theta, live.kept, factor)
    inside = np.abs(live.residual) <= edge
    pull = weights * np.clip(live.residual, -edge, edge)
    # d2 ln f = d2 f / f - (d ln f)(d ln f)^T, hence the second term on logs.
    straight = weights * inside - pull if on_logs else weights * inside
    return jacobian, kept, pull, straight


def derivatives(
    model: Model, z_KxR: Floats, weights: Floats, live: Live, delta: Floats, on_logs: bool
) -> tuple[Floats, Floats, Floats]:
    """Gradient [B, P], exact Hessian [B, P, P] and the diagonal of a majoriser's Hessian [B, P]."""
    jacobian, kept, pull, straight = row_terms(model, z_KxR, weights, live, delta, on_logs)
    gradient = (jacobian @ pull[..., None])[..., 0]
    hessian = (jacobian * straight[:, None]) @ jacobian.transpose(0, 2, 1)
    model.bend(z_KxR, live.theta, jacobian, kept, pull, hessian)
    soft = weights * np.minimum(1.0, delta[:, None] / np.maximum(np.abs(live.residual), 1e-300))
    metric = (jacobian**2 @ soft[..., None])[..., 0]
    return gradient, hessian, metric
