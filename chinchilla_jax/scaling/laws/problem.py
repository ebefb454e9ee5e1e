"""One law on one table: a weighted robust regression in the logs of its parameters.

Logs keep parameters positive. Derivatives of the prediction are taken by complex step (Squire &
Trapp 1998), exact to rounding, one parameter at a time, so that only what depends on it is computed
in complex numbers; so a law's file holds its equation and nothing else.

Array suffixes: S problems (starts, or bootstrap draws, which differ in their weights), R rows,
P parameters, Q pairs of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.techniques.law import Law

_STEP = 1e-20  # of the complex derivative; nothing is subtracted, so it may be this small
_DIFFERENCE = 1e-5  # of the second derivative, in logs of parameters


@dataclass(frozen=True)
class Problem:
    """`law` on `columns` and `loss_R`; residuals of logs or of losses.

    `pairs` are the parameters, by number, whose effects on the prediction depend on each other:
    those of one term, say. Others have no second derivative.
    """

    law: Law
    columns: Mapping[str, Floats]
    loss_R: Floats
    on_logs: bool
    pairs: tuple[tuple[int, int], ...] = ()

    def parameters(self, z_SxP: Floats) -> dict[str, Floats]:
        """By name, [S]."""
        return dict(zip(self.law.parameters, np.exp(z_SxP).T, strict=True))

    def named(self, z_P: Floats) -> dict[str, float]:
        """One point's parameters by name."""
        return dict(zip(self.law.parameters, map(float, np.exp(z_P)), strict=True))

    def predicted(self, z_SxP: Floats) -> Floats:
        """[S, R]."""
        return self.law.form(self._rows(z_SxP), self.columns)

    def residuals(self, predicted_SxR: Floats) -> Floats:
        """[S, R]."""
        if self.on_logs:
            return np.asarray(np.log(predicted_SxR) - self._log_loss_R)
        return predicted_SxR - self.loss_R

    def objective(self, predicted_SxR: Floats, weights_SxR: Floats, delta: float) -> Floats:
        """[S]: Huber's function of the residuals, times the weights, summed; inf where it fails."""
        size = np.abs(self.residuals(predicted_SxR))
        inside = np.minimum(size, delta)
        total = np.sum(weights_SxR * inside * (size - 0.5 * inside), axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    def slopes(self, z_SxP: Floats) -> Floats:
        """[S, P, R]: derivatives of the prediction by ln of each parameter."""
        return np.stack([self._slope(z_SxP, p) for p in range(z_SxP.shape[1])], axis=1)

    def bends(self, z_SxP: Floats) -> Floats:
        """[S, Q, R]: second derivatives of the prediction by the pairs of `pairs`."""
        bent = []
        for i, j in self.pairs:
            move = _DIFFERENCE * np.eye(z_SxP.shape[1])[i]
            bent.append(self._slope(z_SxP + move, j) - self._slope(z_SxP - move, j))
        return np.stack(bent, axis=1) / (2 * _DIFFERENCE)

    def with_pairs(self, z_SxP: Floats) -> Problem:
        """The same, told which parameters depend on each other near any of these points."""
        size = z_SxP.shape[1]
        here = self.slopes(z_SxP)
        found = []
        for i in range(size):
            moved = self.slopes(z_SxP + 0.1 * np.eye(size)[i])
            touched_P = np.any(moved != here, axis=(0, 2))
            found += [(i, j) for j in range(i + 1) if touched_P[j]]
        return replace(self, pairs=tuple(found))

    @cached_property
    def _log_loss_R(self) -> Floats:
        return np.asarray(np.log(self.loss_R))

    def _rows(self, z_SxP: Floats) -> dict[str, Floats]:
        return {name: value[:, None] for name, value in self.parameters(z_SxP).items()}

    def _slope(self, z_SxP: Floats, p: int) -> Floats:
        """[S, R]: d prediction / d ln(parameter p)."""
        tilted: dict[str, Any] = {**self._rows(z_SxP)}
        name = self.law.parameters[p]
        tilted[name] = tilted[name] * (1 + 1j * _STEP)
        slope = self.law.form(tilted, self.columns).imag / _STEP
        return np.broadcast_to(slope, (len(z_SxP), len(self.loss_R)))


@dataclass(frozen=True)
class Derivatives:
    """Of the objective by ln of the parameters.

    `majoriser_SxPxP` is the Hessian of the quadratic that touches the objective from above
    (reweighting); `hessian_SxPxP` the exact one, with Huber's kinks, where it was asked for.
    """

    gradient_SxP: Floats
    majoriser_SxPxP: Floats
    hessian_SxPxP: Floats | None


def derivatives(
    problem: Problem, z_SxP: Floats, weights_SxR: Floats, delta: float, exact: bool
) -> Derivatives:
    """First and second derivatives at `z_SxP`."""
    predicted = problem.predicted(z_SxP)
    residual = problem.residuals(predicted)
    jacobian = problem.slopes(z_SxP)
    if problem.on_logs:
        jacobian = jacobian / predicted[:, None]
    size = np.abs(residual)
    pull = weights_SxR * np.clip(residual, -delta, delta)
    soft = weights_SxR * np.minimum(1.0, delta / np.maximum(size, 1e-300))
    transposed = jacobian.transpose(0, 2, 1)
    gradient = (jacobian @ pull[..., None])[..., 0]
    majoriser = (jacobian * soft[:, None]) @ transposed
    if not exact:
        return Derivatives(gradient, majoriser, None)
    # d2 ln f = d2 f / f - (d ln f)(d ln f)^T, hence the second term on logs.
    inside = weights_SxR * (size <= delta)
    straight = inside - pull if problem.on_logs else inside
    hessian = (jacobian * straight[:, None]) @ transposed
    by_loss = pull / predicted if problem.on_logs else pull
    bent = (problem.bends(z_SxP) @ by_loss[..., None])[..., 0]
    for q, (i, j) in enumerate(problem.pairs):
        hessian[:, i, j] += bent[:, q]
        if i != j:
            hessian[:, j, i] += bent[:, q]
    return Derivatives(gradient, majoriser, hessian)


def descend(
    problem: Problem,
    z_SxP: Floats,
    weights_SxR: Floats,
    delta: float,
    exact: bool,
    iterations: int,
) -> Floats:
    """Levenberg-Marquardt on the majoriser, or damped Newton on the exact Hessian."""
    z_SxP = z_SxP.copy()
    weights_SxR = np.broadcast_to(weights_SxR, (len(z_SxP), len(problem.loss_R)))
    value_S = problem.objective(problem.predicted(z_SxP), weights_SxR, delta)
    damping_S = np.full(len(z_SxP), 1e-3)
    active = np.arange(len(z_SxP))
    for _ in range(iterations):
        here, weights = z_SxP[active], weights_SxR[active]
        by = derivatives(problem, here, weights, delta, exact)
        scale = np.sqrt(np.einsum("spp->sp", by.majoriser_SxPxP)) + 1e-300
        matrix = by.majoriser_SxPxP if by.hessian_SxPxP is None else by.hessian_SxPxP
        unit = matrix / (scale[:, :, None] * scale[:, None, :])
        # A parameter that nothing holds may run off until its derivatives are none: it stays there.
        lost = ~np.isfinite(unit).all(axis=(1, 2)) | ~np.isfinite(by.gradient_SxP).all(axis=1)
        unit[lost], by.gradient_SxP[lost], scale[lost] = np.eye(unit.shape[1]), 0.0, 1.0
        lowest = np.linalg.eigvalsh(unit)[:, 0]
        size = np.abs(unit).max(axis=(1, 2))  # what is lost beside it makes a matrix singular
        least = np.where(size > 1e3, 1e-14 * size, 1e-15)
        shift = damping_S[active] + np.maximum(0.0, -1.1 * lowest) + least
        unit = unit + shift[:, None, None] * np.eye(unit.shape[1])
        step = -np.linalg.solve(unit, (by.gradient_SxP / scale)[..., None])[..., 0] / scale
        trial = here + np.clip(step, -3.0, 3.0)
        value = problem.objective(problem.predicted(trial), weights, delta)
        better = value <= value_S[active]
        gain = value_S[active] - value
        z_SxP[active[better]], value_S[active[better]] = trial[better], value[better]
        damping_S[active] = np.clip(damping_S[active] * np.where(better, 0.15, 6.0), 1e-12, 1e12)
        tiny = 1e-15 if exact else 1e-6
        done = lost | (better & (gain <= tiny * value)) | (damping_S[active] > 1e8)
        active = active[~done]
        if len(active) == 0:
            break
    return z_SxP
