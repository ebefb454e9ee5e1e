"""A surface linearised: by how much losses and forecasts change with its parameters.

So the information of a design is a matrix of 5 x 5, and its inverse the covariance that runs leave,
where draws of a fit would tell the same at a thousand times the work.

Array suffixes: P the parameters ln E, ln of both terms at the middle of the runs, alpha and beta;
C runs; T the targets ln N* and ln L*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.design.ensemble import targets_of
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel

_STEP = 1e-5
_LEAST_E = 1e-3  # whose logarithm a surface without one has


@dataclass(frozen=True)
class Linear:
    """The slopes of `surface`, whose terms are taken at `log_params` and `log_tokens`."""

    surface: Surface
    log_params: float
    log_tokens: float

    def losses(self, params_C: Floats, tokens_C: Floats) -> Floats:
        """[C, P]: of ln losses."""
        return self._slopes(lambda surface: np.log(np.ravel(surface.loss(params_C, tokens_C))))

    def targets(self, cost: FlopsModel, target: float) -> Floats:
        """[T, P]: of ln N* and ln L* at `target` FLOPs."""
        return self._slopes(lambda surface: targets_of(surface, cost, target)[0])

    @silent()
    def _slopes(self, values: Callable[[Surface], Floats]) -> Floats:
        steps = _STEP * np.eye(5)
        pairs = [(values(self._at(x)), values(self._at(-x))) for x in steps]
        return np.stack([(up - down) / (2 * _STEP) for up, down in pairs], axis=-1)

    def _at(self, change_P: Floats) -> Surface:
        s = self.surface
        E, A, B, alpha, beta = (float(np.ravel(x)[0]) for x in s.columns()[:5])
        a, b = np.log(A) - alpha * self.log_params, np.log(B) - beta * self.log_tokens
        theta = np.array([np.log(max(E, _LEAST_E)), a, b, alpha, beta]) + change_P
        a, b = theta[1] + theta[3] * self.log_params, theta[2] + theta[4] * self.log_tokens
        values = np.exp(theta[0]), np.exp(a), np.exp(b), theta[3], theta[4], s.gamma
        return Surface(*(np.array([float(x)]) for x in values))


def linear(surface: Surface, params_R: Floats, tokens_R: Floats) -> Linear:
    """Of `surface`, its terms at the middle of runs."""
    return Linear(surface, float(np.log(params_R).mean()), float(np.log(tokens_R).mean()))
