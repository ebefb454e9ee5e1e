"""L(C) = E + A / C^a through the minima of iso-FLOP profiles, many sets of minima at a time."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.separable import Objective, Rows, polish
from chinchilla_jax.scaling.fitting.starts import starts

_SQUARED = Objective("squared")


@dataclass(frozen=True)
class LossLaw:
    """E + A / flops^exponent; fields are floats or arrays of B."""

    E: Floats
    A: Floats
    exponent: Floats

    def loss(self, flops: Floats | float) -> Floats:
        return np.asarray(self.E + self.A * np.exp(-self.exponent * np.log(np.asarray(flops))))


def fit_loss_law(
    flops_G: Floats, loss_BxG: Floats, weights_BxG: Floats | None = None
) -> LossLaw | None:
    """Weighted least squares of log residuals; arrays of B. None with fewer than three budgets.

    Every set of losses starts at the best of its own grid of exponents, E = 0 among them.
    """
    if len(flops_G) < 3:
        return None
    weights = np.ones_like(loss_BxG) if weights_BxG is None else weights_BxG
    rows = Rows.of(loss_BxG[0], flops_G)
    begin = starts(rows, weights, _SQUARED, tied=False, count=1, loss_BxR=loss_BxG)[:, 0]
    found = polish(rows, weights, begin, _SQUARED, loss_BxR=loss_BxG)
    E, c, exponent = found.theta_BxP.T
    return LossLaw(E, c * np.exp(exponent * rows.centre_K[0]), exponent)
