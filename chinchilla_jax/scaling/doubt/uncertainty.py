"""What the data leave open: percentile bootstrap over runs, and influence beside it."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.fitting import one_step
from chinchilla_jax.scaling.fitting.chance import resampled_of
from chinchilla_jax.scaling.fitting.surface import (
    Refits,
    Surface,
    SurfaceFit,
    draw_delta,
    refit,
    refit_searched,
)

log = logging.getLogger(__name__)
_WEIGHTS = 2_000_000  # weights, draws x runs, that are held at a time
_AUDITED = 50  # draws, at most and at most a tenth, that are searched from a grid too
_TOLERATED = 0.02  # share of them that may do better there


@dataclass(frozen=True)
class SurfaceDraws(Refits):
    """Bootstrap surfaces of B draws, and the residual noise of each; NaN where a draw has no fit.

    `audited` of them were searched again from a grid of their own, `improved` is the share that
    found a better optimum.
    """

    noise: Floats  # standard deviation of the log residuals
    audited: int
    improved: float

    @property
    def failed(self) -> int:
        """Draws without a fit."""
        return int(np.isnan(self.noise).sum())

    def __len__(self) -> int:
        return len(self.noise)


def surface_draws(
    fit: SurfaceFit,
    draws: int,
    rng: np.random.Generator,
    like: SurfaceDraws | None = None,
    trunk_R: Ints | None = None,
) -> SurfaceDraws:
    """Refits `draws` resamples of the fit's runs (weights multiply how often a run was drawn).

    Every draw starts at the table's own optimum. Where an audit finds that more than 2 % of draws
    have a better optimum elsewhere, all get further starts. Of thousands of runs a draw takes one
    step, where the draws audited end no further from their optimum than a tenth of their scatter.

    Args:
      like: draws of the same runs counted otherwise, whose audit holds here too.
      trunk_R: of runs that are branches, which are resampled together.
    """
    used_R = fit.weights_R > 0
    runs = int(used_R.sum())
    freedom = max(1, runs - fit.parameters)
    square_R = np.where(used_R, fit.residual_R, 0.0) ** 2
    parts: list[Refits] = []
    noises = []
    audited, improved = 0, 0.0
    refitted: Callable[[Floats], Refits] = functools.partial(refit, fit)
    step = max(1, _WEIGHTS // len(fit.weights_R))
    for begin in range(0, draws, step):
        count = resampled_of(used_R, trunk_R, min(step, draws - begin), rng)
        weights = count * fit.weights_R
        if begin == 0:
            audited = min(_AUDITED, -(-draws // 10), len(count))
            few = weights[:audited]
            started = refit(fit, few)
            if like is None:
                searched = refit_searched(
                    fit, few, draw_delta(fit, audited), quick=True
                ).objective_B
                improved = float(np.mean(~(started.objective_B <= searched * (1 + 1e-6))))
            else:
                improved = like.improved
            if runs > one_step.MANY_ROWS and not fit.at_bound and not improved:
                stepped = one_step.stepper(fit)
                if one_step.near(stepped(few), started):
                    refitted = stepped
            if improved > _TOLERATED:
                refitted = functools.partial(refit, fit, thorough=True)
                _tell_loose()
        found = refitted(weights)
        parts.append(found)
        noises.append(np.sqrt(count @ square_R / freedom))
    objective = np.concatenate([part.objective_B for part in parts])
    columns = np.concatenate([np.stack(part.surface.columns()) for part in parts], axis=1)
    fitted = np.isfinite(objective)
    return SurfaceDraws(
        surface=Surface(*np.where(fitted, columns, np.nan)),
        objective_B=objective,
        bound_BxP=np.concatenate([part.bound_BxP for part in parts]),
        noise=np.where(fitted, np.concatenate(noises), np.nan),
        audited=audited,
        improved=improved,
    )


@functools.cache  # once, however many conditions or parts of a table are loose
def _tell_loose() -> None:
    log.info(
        "loose runs: resamples are fitted from several starts, which takes a few times as long"
    )


DELTAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
DROPPED = (0, 1, 3, 5, 8, 20)


@dataclass(frozen=True)
class Influence(Refits):
    """Surfaces of the same table with something left out, or another delta; B variants."""

    kind: str  # "leave_one_budget_out", "drop_top" or "delta"
    key: str  # what `value_B` is: "budget", "dropped", "delta"
    value_B: Floats


def influence(fit: SurfaceFit, group_R: npt.NDArray[np.int64], budget_G: Floats) -> list[Influence]:
    """Leave one budget out, drop the highest losses, sweep delta; often beyond the interval.

    Variants that would leave fewer than 8 runs, or one budget, are not made.
    """
    variants: dict[tuple[str, str], list[tuple[float, Floats]]] = {}
    if len(budget_G) > 2:
        variants["leave_one_budget_out", "budget"] = [
            (float(c), (group_R != g).astype(float)) for g, c in enumerate(budget_G)
        ]
    rank_R = np.argsort(np.argsort(-fit.rows.loss_R, kind="stable"), kind="stable")
    variants["drop_top", "dropped"] = [(float(k), (rank_R >= k).astype(float)) for k in DROPPED]
    made = []
    for (kind, key), pairs in variants.items():
        good = [(value, mask) for value, mask in pairs if mask.sum() >= 8]
        if good:
            weights = np.stack([mask for _, mask in good]) * fit.weights_R
            found = refit_searched(fit, weights)
            values = np.array([value for value, _ in good])
            made.append(Influence(**vars(found), kind=kind, key=key, value_B=values))
    if fit.objective.named_delta is not None:
        deltas = np.array(DELTAS)
        weights = np.tile(fit.weights_R, (len(deltas), 1))
        found = refit_searched(fit, weights, deltas)
        made.append(Influence(**vars(found), kind="delta", key="delta", value_B=deltas))
    return made
