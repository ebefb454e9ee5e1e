"""The forms that a loss surface may have, and how each is fitted: one row each.

Array suffixes as in `newton`; `natural` is (E, A, B, alpha, beta, gamma).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting import coupled, separable, starts
from chinchilla_jax.scaling.fitting.newton import Model, Objective, Rows, Solutions


@dataclass(frozen=True)
class Form:
    """A form of surface.

    Attributes:
      title: in print; parameters: how many are free.
      starts: (rows, weights_BxR, objective, tied, count, size of the grid) -> starting points
        [B, count, P].
      polish: as `separable.polish`; model: what it fits, from whether exponents are tied.
      natural: (theta_BxP, rows) -> its parameters in natural units, each [B].
      at_bound: (theta_BxP, rows) -> which of them lie at the edge of what is tried, [B, 6].
      off_bounds: (theta_P, rows) -> the optimum as a start that other weights can move.
    """

    title: str
    parameters: int
    starts: Callable[[Rows, Floats, Objective, bool, int, int], Floats]
    polish: Callable[..., Solutions]
    model: Callable[[bool], tuple[Model, Floats | None]]
    natural: Callable[[Floats, Rows], tuple[Floats, ...]]
    at_bound: Callable[[Floats, Rows], Bools]
    off_bounds: Callable[[Floats, Rows], Floats]


def _natural(theta_BxP: Floats, rows: Rows) -> tuple[Floats, ...]:
    E, c_n, c_d, alpha, beta = theta_BxP.T
    n, d = rows.centre_K
    return E, c_n * np.exp(alpha * n), c_d * np.exp(beta * d), alpha, beta, np.ones_like(E)


def _at_bound(theta_BxP: Floats, rows: Rows) -> Bools:
    lowest, steepest = separable.EXPONENT_BOUNDS
    low = np.array([1e-9 * rows.loss_R.min()] * 3 + [lowest * 1.001] * 2)
    high = np.array([np.inf] * 3 + [steepest * 0.999] * 2)
    bound = (theta_BxP <= low) | (theta_BxP >= high)
    return np.column_stack([bound, np.zeros(len(bound), bool)])


def _off_bounds(theta_P: Floats, rows: Rows) -> Floats:
    begin = theta_P.copy()
    begin[:3] = np.maximum(begin[:3], 1e-6 * rows.loss_R.min())
    return begin


def _coupled(name: str, title: str, parameters: int) -> Form:
    return Form(
        title,
        parameters,
        partial(coupled.starts, name),
        partial(coupled.polish, name),
        partial(coupled.model_of, name),
        coupled.natural,
        coupled.at_bound,
        coupled.off_bounds,
    )


FORMS: dict[str, Form] = {
    "surface": Form(
        "E + A/N^alpha + B/D^beta",
        5,
        starts.starts,
        separable.polish,
        partial(separable.model_of, 2),
        _natural,
        _at_bound,
        _off_bounds,
    ),
    "kaplan": _coupled("kaplan", "E + (A/N^alpha + B/D)^gamma", 5),
    "even": _coupled("even", "E + (A/N^alpha + B/D^beta)^beta", 5),
    **{
        f"gamma_{gamma}": _coupled(f"gamma_{gamma}", f"E + (A/N^alpha + B/D^beta)^{gamma}", 5)
        for gamma in coupled.FIXED_GAMMAS
    },
    "gamma": _coupled("gamma", "E + (A/N^alpha + B/D^beta)^gamma", 6),
}
