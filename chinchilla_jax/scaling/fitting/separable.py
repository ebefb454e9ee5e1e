"""Fits of `loss = E + sum_k c_k exp(-g_k z_k)`, z_k = ln x_k - centre_k, many at a time.

Given the exponents g the model is linear in (E, c), so starting points come from a grid of
exponents whose linear part is solved exactly (variable projection, Golub & Pereyra 1973; for
scaling laws Czech et al. 2603.22339; `starts`). `newton` then polishes all parameters. Logs are
centred, so that c_k is the term's size in the middle of the data and the problem is well
conditioned.

Array suffixes: B problems, R rows, K terms, P = 2K + 1 parameters (E, c_1.., g_1..).
"""

import functools

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting import newton
from chinchilla_jax.scaling.fitting.newton import DAMPING, ITERATIONS, Objective, Rows, Solutions

EXPONENT_BOUNDS = (0.01, 3.0)


class Exponentials:
    """The model of K terms, as `newton.Model` wants it."""

    def __init__(self, terms: int) -> None:
        self.terms = terms
        edges = ((0.0, EXPONENT_BOUNDS[0]), (np.inf, EXPONENT_BOUNDS[1]))
        self.low_P, self.high_P = (
            np.concatenate([np.full(terms + 1, linear), np.full(terms, exponent)])
            for linear, exponent in edges
        )
        self.scaled_P = np.arange(2 * terms + 1) <= terms

    def predict(self, z_KxR: Floats, theta_BxP: Floats) -> tuple[Floats, Floats]:
        """Kept are the terms over their coefficients, [B, K, R]."""
        x = np.exp(-theta_BxP[:, self.terms + 1 :, None] * z_KxR)
        linear = theta_BxP[:, None, 1 : self.terms + 1] @ x
        return linear[:, 0] + theta_BxP[:, :1], x

    def slopes(
        self, z_KxR: Floats, theta_BxP: Floats, kept: Floats, factor: Floats
    ) -> tuple[Floats, Floats]:
        terms = self.terms
        jacobian = np.empty((len(theta_BxP), 2 * terms + 1, z_KxR.shape[1]))
        jacobian[:, 0] = factor
        np.multiply(kept, jacobian[:, :1], out=jacobian[:, 1 : terms + 1])
        for k in range(terms):
            slope = -theta_BxP[:, 1 + k, None] * z_KxR[k]
            np.multiply(slope, jacobian[:, 1 + k], out=jacobian[:, terms + 1 + k])
        return jacobian, kept

    def bend(
        self, z_KxR: Floats, theta_BxP: Floats, jacobian: Floats, kept: Floats, pull: Floats,
        hessian: Floats,
    ) -> None:  # fmt: skip
        for k in range(self.terms):
            c, g = 1 + k, self.terms + 1 + k
            pair = jacobian[:, c : g + 1 : self.terms]  # of c and g, without a copy
            mixed, twice = -(pair @ (z_KxR[k] * pull)[..., None])[..., 0].T
            hessian[:, c, g] += mixed
            hessian[:, g, c] += mixed
            hessian[:, g, g] += twice


@functools.cache
def _model(terms: int) -> Exponentials:
    return Exponentials(terms)


def polish(
    rows: Rows,
    weights_BxR: Floats,
    theta_BxP: Floats,
    objective: Objective,
    tied: bool = False,
    delta_B: Floats | None = None,
    loss_BxR: Floats | None = None,
    iterations: int = ITERATIONS,
    damping: float = DAMPING,
) -> Solutions:
    """`newton.polish` of as many terms as the rows have columns; `tied` exponents are one."""
    model, basis = model_of(len(rows.z_KxR), tied)
    return newton.polish(
        model, rows, weights_BxR, theta_BxP, objective, basis_PxF=basis, delta_B=delta_B,
        loss_BxR=loss_BxR, iterations=iterations, damping=damping,
    )  # fmt: skip


def model_of(terms: int, tied: bool) -> tuple[Exponentials, Floats | None]:
    """The model, and the columns of its free parameters where exponents are tied."""
    basis = None
    if tied:  # they share the last column
        basis = np.eye(2 * terms + 1)[:, : terms + 2].copy()
        basis[terms + 1 :, terms + 1] = 1.0
    return _model(terms), basis
