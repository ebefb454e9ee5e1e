"""How much a loss scatters by chance, and what that does to weights and to minima."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.isoflop import Profile, parabola_minima


@dataclass(frozen=True)
class Noise:
    """Standard deviation of ln loss between runs that differ in nothing but chance.

    `log_loss_G` is per profile, drawn towards the whole table's where a budget has few replicates.
    """

    log_loss: float
    freedom: int
    source: str  # "seeds", "parabola residuals" or "none"
    log_loss_G: Floats


_PRIOR_FREEDOM = 4  # with as many degrees of its own, a budget's noise counts half


def noise_model(found: Sequence[Profile], cell_R: npt.NDArray[np.int64], loss_R: Floats) -> Noise:
    """From replicated cells where they give 3 degrees of freedom, else from parabola residuals.

    Residuals also hold what a parabola misses of the true profile: that estimate is an upper one.
    """
    log_loss = np.log(loss_R)
    mean = np.bincount(cell_R, log_loss) / np.maximum(np.bincount(cell_R), 1)
    square_R = (log_loss - mean[cell_R]) ** 2
    freedom = len(cell_R) - len(np.unique(cell_R))
    if freedom >= 3:
        pooled = float(np.sum(square_R)) / freedom
        budgets = [
            (square_R[p.row_S].sum(), len(p.row_S) - len(set(cell_R[p.row_S]))) for p in found
        ]
        # In logs, as a scale: a noisy budget must not lift a quiet one.
        log_ratio = [
            f / (f + _PRIOR_FREEDOM) * np.log(max(s / (f * pooled), 1e-4)) if f and pooled else 0.0
            for s, f in budgets
        ]
        by_budget = np.sqrt(pooled * np.exp(np.array(log_ratio)))
        return Noise(float(np.sqrt(pooled)), freedom, "seeds", by_budget)
    squares = 0.0
    freedom = 0
    for profile in found:
        if profile.sizes > 3:
            x = profile.log_params_S - profile.log_params_S.mean()
            y = np.log(profile.loss_S)
            squares += float(np.sum((y - np.polyval(np.polyfit(x, y, 2), x)) ** 2))
            freedom += len(x) - 3
    size = float(np.sqrt(squares / freedom)) if freedom else 0.0
    source = "parabola residuals" if freedom else "none"
    return Noise(size, freedom, source, np.full(len(found), size))


def run_weights(
    noise: Noise, found: Sequence[Profile], rows: int, squared: bool, given_R: Floats | None
) -> Floats:
    """Weights of runs in the surface's objective, of mean 1.

    A table's own column of weights wins. Else, where seeds tell the noise of a budget, 1/sigma for
    losses that grow like |r| and 1/sigma^2 for squares; else all 1.
    """
    if given_R is not None:
        return np.asarray(given_R / given_R.mean())
    weights = np.ones(rows)
    if noise.source == "seeds" and noise.log_loss > 0:
        for profile, size in zip(found, noise.log_loss_G, strict=True):
            weights[profile.row_S] = (noise.log_loss / size) ** (2 if squared else 1)
    return np.asarray(weights / weights.mean())


@dataclass(frozen=True)
class MinimaErrors:
    """Standard errors of each parabola's vertex: of ln params and of ln loss there."""

    log_params_G: Floats
    log_loss_G: Floats


def minima_errors(found: Sequence[Profile], noise: Noise) -> MinimaErrors:
    """What the noise model makes of the vertices, to first order in the losses."""
    at, height = [], []
    for profile, size in zip(found, noise.log_loss_G, strict=True):
        step = 1e-4
        if profile.sizes < 3:
            at.append(np.nan)
            height.append(np.nan)
            continue
        losses = profile.loss_S * (1 + step * np.eye(len(profile.loss_S) + 1)[:, 1:])
        moved = parabola_minima(profile.log_params_S, losses)
        with np.errstate(divide="ignore", invalid="ignore"):  # a flat profile has no vertex
            shift = (moved.log_params_B[1:] - moved.log_params_B[0]) / step
            rise = (moved.loss_B[1:] - moved.loss_B[0]) / (step * abs(moved.loss_B[0]))
        at.append(size * float(np.linalg.norm(shift)))
        height.append(size * float(np.linalg.norm(rise)))
    return MinimaErrors(np.array(at), np.array(height))
