"""What is known of a forecast and of the losses of runs not made yet, as one covariance.

The bootstrap draws of the fitted surfaces are an ensemble: every draw has an N* and an L* at the
target, and a loss of any run. How these go together over the draws tells what a run would teach of
the target before it is made (Evensen 2003, Ocean Dynamics 53, the ensemble Kalman filter). With the
loss y of a run, of variance s^2 around a true value f,

    var(q | y) = var(q) - cov(q, f)^2 / (var(f) + s^2),

exact where all is normal, whatever y turns out to be. So designs are compared without their losses.

Beside chance stands the error of the law's form, as hold-out shows it (`doubt/form_error`): a shift
of ln L* and one of ln N*, none up to the largest budget fitted and from there in proportion to ln
FLOPs. A run within the budgets there are tells nothing of them, one beyond does: of the shift of
the loss by its distance, of that of the size by how the loss falls or rises with size where it is.

Array suffixes: B draws, C candidate runs, T the targets ln N* and ln L*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, silent
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel

TARGETS = ("params", "loss")
_LEAST_DRAWS = 40  # for a covariance that a candidate cannot mimic by chance
_OUTLYING = 3.0  # standard deviations, by the middle 68 %, beyond which a draw counts as there


@dataclass(frozen=True)
class Shift:
    """Standard deviations of the form's error at the target: of ln N*, of ln L*.

    `largest` are the FLOPs up to which it has none.
    """

    params: float
    loss: float
    largest: float


@dataclass(frozen=True)
class Ensemble:
    """The surfaces that the runs there are leave possible, and what they are asked for.

    `draws` are B of them, `surface` is the fit itself; `target` are FLOPs.
    """

    draws: Surface
    surface: Surface
    shift: Shift
    cost: FlopsModel
    target: float


@dataclass(frozen=True)
class Trials:
    """C runs not made yet: their sizes, and standard deviations of ln loss.

    `noise_C` is that of one run around what its cell is expected to have, `misfit_C` that of a cell
    around the surface.
    """

    params_C: Floats
    tokens_C: Floats
    noise_C: Floats
    misfit_C: Floats


@dataclass(frozen=True)
class Knowledge:
    """Covariance of (ln N*, ln L*) at the target and of ln loss of C candidate runs.

    `noise_C` is the standard deviation of ln loss of one run around what its cell is expected to
    have. A cell's own misfit (what no such surface says of it) is in the covariance: seeds
    do not average it out.
    """

    covariance: Floats  # [T + C, T + C]
    noise_C: Floats

    @property
    def variance_T(self) -> Floats:
        """Of ln N* and ln L*."""
        return np.asarray(np.diag(self.covariance)[: len(TARGETS)])

    def gain_C(self) -> Floats:
        """What each run would take from ln of the targets' variances, summed over both."""
        count = len(TARGETS)
        told = np.diag(self.covariance)[count:] + self.noise_C**2
        share_TxC = self.covariance[:count, count:] ** 2 / (told * self.variance_T[:, None])
        return np.asarray(-np.log1p(-np.minimum(share_TxC, 1 - 1e-9)).sum(axis=0))

    def after(self, candidate: int) -> Knowledge:
        """What will be known once that run is made."""
        column = self.covariance[:, len(TARGETS) + candidate]
        told = column[len(TARGETS) + candidate] + self.noise_C[candidate] ** 2
        return replace(self, covariance=self.covariance - np.outer(column, column) / told)


@silent()
def targets_of(surface_B: Surface, cost: FlopsModel, target: float) -> Floats:
    """[B, T]: ln N* and ln L* at `target` FLOPs under every draw, NaN where it has no optimum."""
    found = along(surface_B, cost)(np.asarray(target))
    assert found.loss is not None
    return np.log(np.column_stack([found.params, found.loss]))


@silent()
def knowledge(ensemble: Ensemble, trials: Trials) -> Knowledge | None:
    """What the draws know of the target and of trials; None where too few have an optimum there."""
    each = Surface(*(np.atleast_1d(x)[:, None] for x in ensemble.draws.columns()))
    log_loss = np.log(each.loss(trials.params_C, trials.tokens_C))
    targets = targets_of(ensemble.draws, ensemble.cost, ensemble.target)
    drawn = np.column_stack([targets, log_loss])
    drawn = drawn[usable(drawn)]
    if len(drawn) < _LEAST_DRAWS:
        return None
    covariance = np.cov(_without_tails(drawn), rowvar=False)
    count = len(TARGETS)
    covariance[range(count, len(covariance)), range(count, len(covariance))] += trials.misfit_C**2
    for size, slope in _shifts(ensemble, trials):
        covariance += size**2 * np.outer(slope, slope)
    return Knowledge(covariance, trials.noise_C)


def _shifts(ensemble: Ensemble, trials: Trials) -> list[tuple[float, Floats]]:
    """The form's errors: the size of each, and by how much it shifts targets and trials."""
    cost, shift = ensemble.cost, ensemble.shift
    flops_C = cost.flops(trials.params_C, trials.tokens_C)
    far_C = np.log(flops_C / shift.largest) / np.log(ensemble.target / shift.largest)
    far_C = np.clip(far_C, 0.0, 1.0)
    step = 1e-3

    def log_loss(log_shift: float) -> Floats:
        shifted = trials.params_C * np.exp(log_shift)
        return np.log(ensemble.surface.loss(shifted, cost.tokens(flops_C, shifted)))

    # Where N* is larger than thought, a loss is as that of a smaller model was thought to be.
    slope_C = -(log_loss(step) - log_loss(-step)) / (2 * step)
    return [
        (shift.params, np.concatenate([[1.0, 0.0], slope_C * far_C])),
        (shift.loss, np.concatenate([[0.0, 1.0], far_C])),
    ]


def usable(drawn: Floats) -> Bools:
    """Draws that are known throughout."""
    return np.asarray(np.isfinite(drawn).all(axis=1))


def _without_tails(drawn: Floats) -> Floats:
    """Draws far out brought in: a few that ran away would be all that a covariance sees."""
    low, middle, high = np.percentile(drawn, [16, 50, 84], axis=0)
    reach = _OUTLYING * (high - low) / 2
    return np.clip(drawn, middle - reach, middle + reach)
