"""Refits of very many rows by one step of Newton's from the table's own optimum.

Resamples of R runs move an optimum by parts of 1/sqrt(R), and what one step misses of that are
parts of 1/R (Davidson & MacKinnon 1999, International Economic Review 40, with one step). Gradients
and Hessians of all draws are products of their weights with each row's derivatives at the optimum,
so no draw evaluates the law again.

Array suffixes: B draws, R rows, P parameters, F free ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting import newton
from chinchilla_jax.scaling.fitting.surface import Refits, SurfaceFit, draw_delta, refits

MANY_ROWS = 1000  # below, a step saves little and misses more
_NEAR = 0.1  # of the draws' scatter, which it widens by half a percent


def stepper(fit: SurfaceFit) -> Callable[[Floats], Refits]:
    """`refit` by one step, as a function of weights_BxR; whether draws end far off: see `near`.

    The second derivatives of the law itself, whose sum over rows is small at an optimum and nearly
    the same in every draw, are taken from all rows.
    """
    drawn = draw_delta(fit, 1)
    delta_B = np.array([fit.objective.huber_delta]) if drawn is None else drawn
    on_logs = fit.objective.on_logs
    model, basis_PxF = fit.fitter.model(fit.tied)
    z_KxR, loss = fit.rows.z_KxR, fit.rows.loss_R[None]
    target = np.log(loss) if on_logs else loss
    weights, ones = fit.weights_R[None], np.ones_like(loss)
    live = newton.evaluate(model, z_KxR, target, weights, fit.theta_P[None], delta_B, on_logs)
    hessian = newton.derivatives(model, z_KxR, weights, live, delta_B, on_logs)[1][0]
    jacobian, _, pull, straight = newton.row_terms(model, z_KxR, ones, live, delta_B, on_logs)

    basis = np.eye(len(fit.theta_P)) if basis_PxF is None else basis_PxF
    free = basis.shape[1]
    slopes_RxF = jacobian[0].T @ basis
    squares_RxFF = slopes_RxF[:, :, None] * slopes_RxF[:, None, :] * straight[0][:, None, None]
    squares_RxFF = squares_RxFF.reshape(-1, free * free)
    pulls_RxF = pull[0][:, None] * slopes_RxF
    bent = (basis.T @ hessian @ basis).ravel() - fit.weights_R @ squares_RxFF
    size = np.abs(live.residual[0])
    inside = np.minimum(size, delta_B[0])
    objective_R = inside * (size - inside / 2)

    def stepped(weights_BxR: Floats) -> Refits:
        gradient = (weights_BxR - fit.weights_R) @ pulls_RxF
        hessians = (weights_BxR @ squares_RxFF + bent).reshape(-1, free, free)
        move = -np.linalg.solve(hessians, gradient[..., None])[..., 0]
        theta = np.clip(fit.theta_P + move @ basis.T, model.low_P, model.high_P)
        objective = weights_BxR @ objective_R + 0.5 * np.sum(gradient * move, axis=1)
        return refits(fit, theta, objective)

    return stepped


def near(found: Refits, exact: Refits) -> bool:
    """Whether draws found by a step are those found exactly, measured by their scatter."""
    one, other = (
        np.array([np.log(np.maximum(x, 1e-300)) for x in each.surface.columns()])
        for each in (found, exact)
    )
    missed = np.sqrt(np.mean((one - other) ** 2, axis=1))
    return bool(np.all(missed <= _NEAR * other.std(axis=1) + 1e-9))
