"""Runs far from the optimum that pull a budget's parabola below every run of it.

A parabola follows the highest losses most. Where it passes below the lowest run, or below the three
runs nearest its minimum, by more than the noise allows and by more than a hundredth, the highest
losses are left out, one after the other, until it does not; where that does not help the budget has
no minimum (`minima.fit_minima`). How far a minimum lies between two runs plays no part.
"""

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.fitting.curves import Polynomial
from chinchilla_jax.scaling.fitting.isoflop import Profile

_SIGMAS = 4.0  # of the noise of a usual budget
_LEAST_DIP = 0.01  # of ln loss: less may be the profile's own asymmetry
_LEAST_SIZES = 4
_NEAREST = 3


@silent()
def without_outlying(found: Sequence[Profile]) -> list[Profile]:
    """The profiles, without the highest losses where the parabola through all passes too low."""
    noise, allowed = _usual_noise(found), allowed_dip(found)
    return [_without(profile, noise, allowed) for profile in found]


def allowed_dip(found: Sequence[Profile]) -> float:
    """How far in ln loss a parabola may pass below the runs that tell its minimum."""
    return max(_LEAST_DIP, _SIGMAS * _usual_noise(found))


def _usual_noise(found: Sequence[Profile]) -> float:
    """The median over budgets of the scatter around each one's own parabola.

    One budget with outlying runs does not lift it.
    """
    scatter = [_scatter(profile) for profile in found if profile.sizes >= _LEAST_SIZES]
    return float(np.median(scatter)) if scatter else 0.0


def dip(profile: Profile) -> float:
    """How far in ln loss the parabola passes below the runs that tell it; 0 without a minimum."""
    if profile.sizes < _NEAREST:
        return 0.0
    if not Polynomial.of(2, profile.log_params_S, profile.loss_S).minima().good_B[0]:
        return 0.0
    x: Floats = profile.log_params_S - profile.log_params_S.mean()
    curve = np.polyfit(x, profile.loss_S, 2)
    above_S = np.log(profile.loss_S / np.polyval(curve, x))
    near = np.argsort(np.abs(x + 0.5 * curve[1] / curve[0]), kind="stable")[:_NEAREST]
    return max(0.0, float(above_S[profile.loss_S.argmin()]), float(above_S[near].min()))


def _scatter(profile: Profile) -> float:
    x: Floats = profile.log_params_S - profile.log_params_S.mean()
    y = np.log(profile.loss_S)
    residual = y - np.polyval(np.polyfit(x, y, 2), x)
    return float(np.sqrt(np.sum(residual**2) / (len(x) - 3)))


def _without(profile: Profile, noise: float, allowed: float) -> Profile:
    """The whole profile where its minimum is not too low, or no number of runs left out helps."""
    if dip(profile) <= allowed:
        return profile
    best, left = profile, profile
    while left.sizes > _LEAST_SIZES and dip(best) > noise:
        keep = np.arange(len(left.loss_S)) != left.loss_S.argmax()
        left = left.only(keep)
        best = left if dip(left) < dip(best) else best
    return best if dip(best) <= allowed else profile
