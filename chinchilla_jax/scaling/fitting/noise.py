"""How much a loss scatters by chance, and what that does to weights and to minima."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.fitting.chance import independent, shared_variance
from chinchilla_jax.scaling.fitting.isoflop import Profile


@dataclass(frozen=True)
class Noise:
    """Standard deviation of ln loss between runs that differ in nothing but chance.

    Where seeds allow it follows FLOPs: ln of it is a straight line in ln FLOPs of slope `trend`,
    which is level outside `range` of the FLOPs that have replicates. `log_loss_G` is per profile,
    drawn towards that line where a budget has few replicates.
    """

    log_loss: float  # of all that tell it
    freedom: int
    source: str  # "seeds", "surface residuals", "curve residuals" or "none"
    log_loss_G: Floats
    trend: float = 0.0
    middle: float = 1.0  # FLOPs at which the line has the value `log_loss`
    range: tuple[float, float] = (1.0, 1.0)  # FLOPs
    # Of runs that are branches: their trunks, and what they share of the variance.
    trunk_R: Ints | None = None
    shared: float = 0.0

    def at(self, flops: Floats | float) -> Floats:
        """Standard deviation at any FLOPs."""
        x = (
            np.log(np.clip(flops, *self.range) / self.middle)
            if self.trend
            else np.zeros_like(flops)
        )
        return np.asarray(self.log_loss * np.exp(self.trend * x))


_LEAST_FREEDOM = 3
_PRIOR_FREEDOM = 4  # with as many degrees of its own, a budget's noise counts half
_TRENDS = np.linspace(-1.5, 1.5, 301)  # of ln sigma in ln FLOPs
_USUAL_TREND = 0.25  # standard deviation of the prior around 0
_NEAR = 1.08  # times a budget's lowest loss
_LEAST_BUDGETS = 3  # FLOPs a factor of two apart that have replicates


def noise_model(
    found: Sequence[Profile],
    cell_R: npt.NDArray[np.int64],
    loss_R: Floats,
    flops_R: Floats,
    trunk_R: Ints | None = None,
) -> Noise:
    """From replicated cells where they give 3 degrees of freedom, else from curve residuals.

    Those are of each budget's parabola, which holds what a parabola misses of the true profile.
    Branches of one trunk (`trunk_R`) scatter together, and tell of the noise as one run or a little
    more.
    """
    noise = _noise_of_runs(found, cell_R, loss_R, flops_R)
    if trunk_R is None:
        return noise
    shared = shared_variance(np.zeros(len(trunk_R)), trunk_R, 0.0)
    if noise.source == "seeds":
        count_C = np.bincount(cell_R)
        mean_C = np.bincount(cell_R, np.log(loss_R)) / np.maximum(count_C, 1)
        left_R = 1 - 1 / count_C[cell_R]  # of a run's variance around the mean of its cell
        many_R = count_C[cell_R] > 1
        with np.errstate(invalid="ignore", divide="ignore"):
            z_R = (np.log(loss_R) - mean_C[cell_R]) / (noise.at(flops_R) * np.sqrt(left_R))
        trunks = np.unique(trunk_R[many_R]).size
        replicates = trunks * noise.freedom / max(int(many_R.sum()), 1)
        shared = shared_variance(z_R[many_R], trunk_R[many_R], replicates)
    return _of_trunks(noise, trunk_R, shared)


def _of_trunks(noise: Noise, trunk_R: Ints, shared: float) -> Noise:
    freedom = max(1, round(independent(noise.freedom, trunk_R, shared))) if noise.freedom else 0
    return replace(noise, freedom=freedom, trunk_R=trunk_R, shared=shared)


def _noise_of_runs(
    found: Sequence[Profile], cell_R: npt.NDArray[np.int64], loss_R: Floats, flops_R: Floats
) -> Noise:
    log_loss = np.log(loss_R)
    cells = np.bincount(cell_R)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, x = (np.bincount(cell_R, y) / cells for y in (log_loss, np.log(flops_R)))
    square_R = (log_loss - mean[cell_R]) ** 2
    freedom = len(cell_R) - int(np.count_nonzero(cells))
    if freedom >= _LEAST_FREEDOM and square_R.any():
        many = cells > 1
        squares, free = np.bincount(cell_R, square_R)[many], cells[many] - 1.0
        of_seeds = _of_seeds(found, cell_R, square_R, squares, free, x[many])
        return _no_less_than_around_curves(of_seeds, found, cell_R)
    squares_left, freedom = 0.0, 0
    for profile in found:
        of_curve, left = _around_parabola(profile)
        squares_left, freedom = squares_left + of_curve, freedom + left
    size = float(np.sqrt(squares_left / freedom)) if freedom else 0.0
    source = "curve residuals" if freedom else "none"
    return Noise(size, freedom, source, np.full(len(found), size))


def _around_parabola(profile: Profile) -> tuple[float, int]:
    """Sum of squares of ln loss around it, and its degrees of freedom; none where all sizes lie
    on it."""
    if profile.sizes <= 3:
        return 0.0, 0
    z, y = profile.log_params_S - profile.log_params_S.mean(), np.log(profile.loss_S)
    return float(np.sum((y - np.polyval(np.polyfit(z, y, 2), z)) ** 2)), len(z) - 3


def _no_less_than_around_curves(
    noise: Noise, found: Sequence[Profile], cell_R: npt.NDArray[np.int64]
) -> Noise:
    """Where replicates are of other budgets, a budget's noise is no less than its curve shows.

    Seeds of the cheapest budget alone may scatter less than runs of the next. Curves of all
    budgets without replicates tell together, by their runs near the minimum.
    """
    alone_G = np.array([len(set(cell_R[p.row_S])) == len(p.row_S) for p in found], bool)
    squares, freedom = 0.0, 0
    for profile, size, alone in zip(found, noise.log_loss_G, alone_G, strict=True):
        near = profile.only(profile.loss_S <= _NEAR * profile.loss_S.min())
        of_curve, left = _around_parabola(near) if alone else (0.0, 0)
        squares, freedom = squares + of_curve / size**2, freedom + left
    if squares <= freedom:
        return noise
    factor = (squares / freedom) ** (0.5 * freedom / (freedom + _PRIOR_FREEDOM))
    return replace(noise, log_loss_G=noise.log_loss_G * np.where(alone_G, factor, 1.0))


def _of_seeds(
    found: Sequence[Profile],
    cell_R: npt.NDArray[np.int64],
    square_R: Floats,
    squares: npt.NDArray[Any],
    free: npt.NDArray[Any],
    log_flops: npt.NDArray[Any],
) -> Noise:
    """The line by its likelihood and a prior, then each budget's own scatter drawn towards it."""
    middle = float(free @ log_flops / free.sum())
    x = log_flops - middle
    apart = 1 + int(np.sum(np.diff(np.sort(log_flops)) > np.log(2.0)))
    trend, pooled = 0.0, float(squares.sum() / free.sum())
    if apart >= _LEAST_BUDGETS:
        scaled_T = np.exp(-2 * _TRENDS[:, None] * x) @ squares  # at the best level of every trend
        log_p = -0.5 * free.sum() * np.log(scaled_T) - 0.5 * (_TRENDS / _USUAL_TREND) ** 2
        p = np.exp(log_p - log_p.max())
        trend = float(p @ _TRENDS / p.sum())
        pooled = float(np.exp(-2 * trend * x) @ squares / free.sum())
    ends = (float(np.exp(log_flops.min())), float(np.exp(log_flops.max())))
    line = Noise(
        float(np.sqrt(pooled)), int(free.sum()), "seeds", np.empty(0), trend,
        float(np.exp(middle)), ends,
    )  # fmt: skip
    budgets = np.array([p.flops for p in found])
    size_G = np.broadcast_to(line.at(budgets), budgets.shape).copy()
    for g, profile in enumerate(found):
        rows = profile.row_S
        here = len(rows) - len(set(cell_R[rows]))
        if here:  # in logs, as a scale: a noisy budget must not lift a quiet one
            ratio = max(square_R[rows].sum() / (here * size_G[g] ** 2), 1e-4)
            size_G[g] *= np.exp(0.5 * here / (here + _PRIOR_FREEDOM) * np.log(ratio))
    return replace(line, log_loss_G=size_G)


def with_surface(
    noise: Noise, found: Sequence[Profile], residual_R: Floats, parameters: int
) -> Noise:
    """The noise by the surface's residuals where no seeds tell it and a curve's are smaller.

    Of the runs near a minimum, for far ones say nothing of it; what the form misses is in it.
    """
    near = [p.row_S[p.loss_S <= _NEAR * p.loss_S.min()] for p in found]
    rows = np.concatenate(near) if near else np.empty(0, int)
    left = 1 - parameters / len(residual_R)  # of a run's degree of freedom
    freedom = int(left * len(rows))
    if noise.source == "seeds" or freedom < _LEAST_FREEDOM:
        return noise
    size = float(np.sqrt(np.mean(residual_R[rows] ** 2) / left))
    if not size > noise.log_loss:
        return noise
    larger = Noise(size, freedom, "surface residuals", np.full(len(found), size))
    if noise.trunk_R is None:
        return larger
    trunks = np.unique(noise.trunk_R).size
    shared = shared_variance(residual_R, noise.trunk_R, max(trunks - parameters, 0))
    return _of_trunks(larger, noise.trunk_R, shared)


def run_weights(
    noise: Noise, found: Sequence[Profile], flops_R: Floats, squared: bool, given_R: Floats | None
) -> Floats:
    """Weights of runs in the surface's objective, of mean 1.

    A table's own column of weights wins. Else, where seeds tell the noise of a budget, 1/sigma for
    losses that grow like |r| and 1/sigma^2 for squares; else all 1.
    """
    if given_R is not None:
        return np.asarray(given_R / given_R.mean())
    weights = np.ones(len(flops_R))
    if noise.source == "seeds" and noise.log_loss > 0:
        weights /= noise.at(flops_R)
        for profile, size in zip(found, noise.log_loss_G, strict=True):
            weights[profile.row_S] = 1 / size
        weights = weights ** (2 if squared else 1)
    return np.asarray(weights / weights.mean())
