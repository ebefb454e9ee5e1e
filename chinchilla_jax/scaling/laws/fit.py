"""Fits any `Law`: variable projection to start, a second-order polish of the law's own form to end.

The nonlinear variables are spread over their ranges; for each point the linear part is solved
exactly (Golub & Pereyra 1973). The best and most different points are then polished in the logs of
all parameters, which keeps them positive. Derivatives of the residuals are taken by complex step
(Squire & Trapp 1998), exact to rounding, so a law's file holds its equation and nothing else.
The surface E + A/N^alpha + B/D^beta, which is fitted thousands of times, has its own batched engine
in `scaling/fitting/separable.py`; a test holds the two to the same optimum.

Array suffixes: S starts, R rows, K linear terms, P parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.fitting.separable import Objective
from chinchilla_jax.scaling.laws.law import Array, Law

_STEP = 1e-20  # of the complex derivative; nothing is subtracted, so it may be this small
_DIFFERENCE = 1e-5  # of the second derivative, in logs of parameters
_SAME = 1e-7  # relative difference of objectives below which two optima are one
_FLAT = 1e-7  # singular value of the scaled Jacobian below which a direction is not determined
_NEGLIGIBLE = 1e-6  # share of the loss below which a term counts as absent


@dataclass(frozen=True)
class LawFit:
    """A fitted law.

    Attributes:
      law: its name.
      parameters: by name, in the units of the law's source.
      objective: the minimum, in the unit of `loss` (a sum over runs).
      loss: name of the objective; delta: its Huber delta where it has one.
      gradient_norm: of the objective in the logs of the parameters.
      starts_agreeing: share of the polished starts that ended in this minimum.
      rms: root mean square of ln(predicted/observed).
      runs: rows fitted.
      warnings: what the runs do not determine, in sentences.
    """

    law: str
    parameters: dict[str, float]
    objective: float
    loss: str
    delta: float | None
    gradient_norm: float
    starts_agreeing: float
    rms: float
    runs: int
    warnings: tuple[str, ...]


class _Problem:
    """One law on one table: objective, gradient and Hessian in z_SxP = ln(parameters)."""

    def __init__(self, law: Law, columns: Mapping[str, Array], loss_R: Array, on_logs: bool):
        self.law, self.columns, self.on_logs = law, columns, on_logs
        self.loss_R, self.log_loss_R = loss_R, np.log(loss_R)

    def residuals(self, z_SxP: Array) -> Array:
        """[S, R]; complex in, complex out."""
        parameters = dict(zip(self.law.parameters, np.exp(z_SxP).T[:, :, None], strict=True))
        predicted = self.law.form(parameters, self.columns)
        return np.log(predicted) - self.log_loss_R if self.on_logs else predicted - self.loss_R

    def objective(self, z_SxP: Array, delta: float) -> Array:
        size = np.abs(self.residuals(z_SxP))
        inside = np.minimum(size, delta)
        total: Array = np.sum(inside * (size - 0.5 * inside), axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    def jacobian(self, z_SxP: Array) -> Array:
        """[S, R, P]."""
        tilted = z_SxP[:, None, :] + 1j * _STEP * np.eye(z_SxP.shape[1])
        flat = self.residuals(tilted.reshape(-1, z_SxP.shape[1]))
        return np.asarray(flat.imag.reshape(*tilted.shape[:2], -1).transpose(0, 2, 1) / _STEP)

    def gradient(self, z_SxP: Array, delta: float) -> Array:
        pull_SxR = np.clip(self.residuals(z_SxP), -delta, delta)
        return np.asarray(np.einsum("srp,sr->sp", self.jacobian(z_SxP), pull_SxR))

    def majoriser(self, z_SxP: Array, delta: float) -> Array:
        """Hessian of the quadratic that touches the objective from above (reweighting)."""
        jacobian = self.jacobian(z_SxP)
        size = np.abs(self.residuals(z_SxP))
        weight_SxR = np.minimum(1.0, delta / np.maximum(size, 1e-300))
        return np.asarray((jacobian * weight_SxR[..., None]).transpose(0, 2, 1) @ jacobian)

    def hessian(self, z_SxP: Array, delta: float) -> Array:
        """Huber's kinks exactly; the curvature of the law by central differences."""
        jacobian, residual_SxR = self.jacobian(z_SxP), self.residuals(z_SxP)
        pull_SxR = np.clip(residual_SxR, -delta, delta)
        straight = (jacobian * (np.abs(residual_SxR) <= delta)[..., None]).transpose(0, 2, 1)
        bent = [
            np.einsum("srp,sr->sp", self.jacobian(z_SxP + h) - self.jacobian(z_SxP - h), pull_SxR)
            for h in _DIFFERENCE * np.eye(z_SxP.shape[1])
        ]
        matrix = straight @ jacobian + np.stack(bent, -1) / (2 * _DIFFERENCE)
        return np.asarray((matrix + matrix.transpose(0, 2, 1)) / 2)


def _spread(count: int, dimensions: int) -> Array:
    """Low-discrepancy points in the unit cube (Roberts' R-sequence)."""
    root = 1.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    step_D = root ** -np.arange(1.0, dimensions + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * step_D) % 1.0)


def _nonnegative_least_squares(basis_SxRxK: Array) -> tuple[Array, Array]:
    """c_SxK >= 0 nearest to basis @ c = 1, by trying every set of terms; and the squares left.

    K is at most five, so 31 small batched solves; the constraint makes the best set that is itself
    non-negative the optimum.
    """
    terms = basis_SxRxK.shape[2]
    scale_SxK = np.sqrt(np.einsum("srk,srk->sk", basis_SxRxK, basis_SxRxK)) + 1e-300
    unit = basis_SxRxK / scale_SxK[:, None]
    normal, right = unit.transpose(0, 2, 1) @ unit, unit.sum(axis=1)
    best_S, best_SxK = np.full(len(unit), np.inf), np.zeros((len(unit), terms))
    for count in range(1, terms + 1):
        for chosen in map(list, itertools.combinations(range(terms), count)):
            matrix = normal[:, chosen][:, :, chosen] + 1e-13 * np.eye(count)
            c = np.linalg.solve(matrix, right[:, chosen, None])[..., 0]
            left = unit.shape[1] - np.einsum("sk,sk->s", c, right[:, chosen])
            wins = np.all(c >= 0, axis=1) & (left < best_S)
            best_S = np.where(wins, left, best_S)
            full = np.zeros_like(best_SxK)
            full[:, chosen] = c
            best_SxK = np.where(wins[:, None], full, best_SxK)
    return best_SxK / scale_SxK, best_S


def _starts(problem: _Problem, count: int, searched: int) -> Array:
    """The `count` best of `searched` points as z_SxP, no two of them neighbours in the search."""
    law = problem.law
    low, high = (np.log([bounds[i] for bounds in law.ranges.values()]) for i in (0, 1))
    theta_SxV = np.exp(low + (high - low) * _spread(searched, len(low)))
    values = dict(zip(law.ranges, theta_SxV.T[:, :, None], strict=True))
    basis, power = law.linear(values, problem.columns)
    # loss = (basis c)^p: to first order the residual of ln(loss) is p (basis c / loss^(1/p) - 1).
    target = problem.loss_R ** (1 / power)
    basis_SxRxK = np.stack([np.broadcast_to(phi / target, basis[0].shape) for phi in basis], -1)
    c_SxK, squares_S = _nonnegative_least_squares(basis_SxRxK)
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


def _descend(problem: _Problem, z_SxP: Array, delta: float, exact: bool, iterations: int) -> Array:
    """Levenberg-Marquardt on the majoriser, or damped Newton on the exact Hessian."""
    z_SxP = z_SxP.copy()
    value_S = problem.objective(z_SxP, delta)
    damping_S = np.full(len(z_SxP), 1e-3)
    active = np.arange(len(z_SxP))
    for _ in range(iterations):
        here = z_SxP[active]
        gradient = problem.gradient(here, delta)
        metric = problem.majoriser(here, delta)
        matrix = problem.hessian(here, delta) if exact else metric
        scale = np.sqrt(np.einsum("spp->sp", metric)) + 1e-300
        unit = matrix / (scale[:, :, None] * scale[:, None, :])
        lowest = np.linalg.eigvalsh(unit)[:, 0]
        shift = damping_S[active] + np.maximum(0.0, -1.1 * lowest) + 1e-15
        unit = unit + shift[:, None, None] * np.eye(unit.shape[1])
        step = -np.linalg.solve(unit, (gradient / scale)[..., None])[..., 0] / scale
        trial = here + np.clip(step, -3.0, 3.0)
        with np.errstate(all="ignore"):
            value = problem.objective(trial, delta)
        better = value <= value_S[active]
        gain = value_S[active] - value
        z_SxP[active[better]], value_S[active[better]] = trial[better], value[better]
        damping_S[active] = np.clip(damping_S[active] * np.where(better, 0.15, 6.0), 1e-12, 1e12)
        tiny = 1e-15 if exact else 1e-6
        done = (better & (gain <= tiny * value)) | (damping_S[active] > 1e8)
        active = active[~done]
        if len(active) == 0:
            break
    return z_SxP


def fit(
    law: Law,
    columns: Mapping[str, Array],
    loss: Array,
    objective: Objective | None = None,
    starts: int = 16,
    searched: int = 2048,
) -> LawFit:
    """Fits `law` to runs.

    Args:
      columns: [R] arrays by name; those in `law.columns` are used.
      loss: [R], nats per token, positive.
      objective: what is summed over runs; log-Huber with delta 1e-3 by default.
      starts: points that are polished; searched: points of the nonlinear variables tried first.

    Raises:
      UserError: a column is missing, or there are too few runs to determine the parameters.
    """
    objective = objective or Objective()
    missing = [name for name in law.columns if name not in columns]
    if missing:
        raise UserError(
            f"law {law.name} ({law.formula}) needs the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; the table has {', '.join(sorted(columns))}"
        )
    if len(loss) <= len(law.parameters):
        raise UserError(
            f"law {law.name} has {len(law.parameters)} parameters; "
            f"{len(loss)} runs cannot determine them, {len(law.parameters) + 1} or more can"
        )
    chosen = {name: np.asarray(columns[name], float) for name in law.columns}
    problem = _Problem(law, chosen, np.asarray(loss, float), objective.on_logs)
    last = objective.huber_delta
    delta = max(last, min(1e-3, last) if np.isinf(last) else 1e-3)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        z_SxP = _descend(problem, _starts(problem, starts, searched), delta, False, 60)
        while True:
            z_SxP = _descend(problem, z_SxP, delta, True, 40)
            if delta <= last:
                break
            delta = max(last, delta / 4)
        value_S = problem.objective(z_SxP, delta)
    best = int(np.argmin(value_S))
    z_1xP = z_SxP[best : best + 1]
    unit = last if objective.loss == "least_absolute" else 1.0  # Huber(r)/delta -> |r|
    residual = np.log(law.form(_named(law, z_1xP[0]), chosen)) - problem.log_loss_R
    return LawFit(
        law=law.name,
        parameters={name: float(value) for name, value in _named(law, z_1xP[0]).items()},
        objective=float(value_S[best]) / unit,
        loss=objective.loss,
        delta=objective.named_delta,
        gradient_norm=float(np.linalg.norm(problem.gradient(z_1xP, delta))) / unit,
        starts_agreeing=float(np.mean(value_S <= value_S[best] * (1 + _SAME) + 1e-15)),
        rms=float(np.sqrt(np.mean(residual**2))),
        runs=len(loss),
        warnings=_doubts(problem, z_1xP),
    )


def _named(law: Law, z_P: Array) -> dict[str, Array]:
    return dict(zip(law.parameters, np.exp(z_P), strict=True))


def _doubts(problem: _Problem, z_1xP: Array) -> tuple[str, ...]:
    """Directions in which the objective is flat: terms that vanish, columns that do not vary."""
    law, found = problem.law, []
    jacobian = problem.jacobian(z_1xP)[0]
    if not problem.on_logs:
        jacobian = jacobian / problem.loss_R[:, None]
    size_P = np.abs(jacobian).max(axis=0)
    for name, size in zip(law.parameters, size_P, strict=True):
        if size < _NEGLIGIBLE:
            found.append(f"{law.name}: {name} does not matter on these runs; it is not determined")
    kept = size_P >= _NEGLIGIBLE
    _, singular, directions = np.linalg.svd(jacobian[:, kept] / size_P[kept], full_matrices=False)
    names = np.array(law.parameters)[kept]
    for value, direction in zip(singular, directions, strict=True):
        if value < _FLAT * singular[0]:
            mixed = names[np.abs(direction) > 0.3 * np.abs(direction).max()]
            found.append(
                f"{law.name}: these runs determine {', '.join(mixed)} only together; "
                "runs that vary the columns independently would separate them"
            )
    return tuple(found)
