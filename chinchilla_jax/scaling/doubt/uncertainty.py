"""What the data leave open: percentile bootstrap over runs, and influence beside it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.surface import (
    Surface,
    SurfaceFit,
    draw_delta,
    refit,
    refit_searched,
)

_WEIGHTS = 2_000_000  # weights, draws x runs, that are held at a time
_AUDITED = 50  # draws, at most and at most a tenth, that are searched from a grid too
_TOLERATED = 0.02  # share of them that may do better there


@dataclass(frozen=True)
class SurfaceDraws:
    """Bootstrap surfaces, arrays of draws, and the residual noise of each.

    `failed` draws have no finite optimum and are left out. `audited` of them were searched again
    from a grid of their own, `improved` is the share that found a better optimum.
    """

    surface: Surface
    noise: Floats
    failed: int
    audited: int
    improved: float

    def __len__(self) -> int:
        return len(self.noise)


def surface_draws(fit: SurfaceFit, draws: int, rng: np.random.Generator) -> SurfaceDraws:
    """Refits `draws` resamples of the fit's runs (weights multiply how often a run was drawn).

    Every draw starts at the table's own optimum. Where an audit finds that more than 2 % of draws
    have a better optimum elsewhere, all get further starts.
    """
    used = np.flatnonzero(fit.weights_R > 0)
    share = np.full(len(used), 1.0 / len(used))
    freedom = max(1, len(used) - (4 if fit.tied else 5))
    squares_U = fit.residual_R[used] ** 2
    surfaces, objectives, noises = [], [], []
    audited, improved = 0, 0.0
    step = max(1, _WEIGHTS // len(fit.weights_R))
    for begin in range(0, draws, step):
        count = rng.multinomial(len(used), share, size=min(step, draws - begin))
        weights = np.zeros((len(count), len(fit.weights_R)))
        weights[:, used] = count * fit.weights_R[used]
        surface, objective = refit(fit, weights, thorough=improved > _TOLERATED)
        if begin == 0:
            audited = min(_AUDITED, -(-draws // 10), len(count))
            _, searched = refit_searched(fit, weights[:audited], draw_delta(fit, audited))
            improved = float(np.mean(~(objective[:audited] <= searched * (1 + 1e-6))))
            if improved > _TOLERATED:
                surface, objective = refit(fit, weights, thorough=True)
        surfaces.append(np.stack([np.asarray(x) for x in surface.columns()]))
        objectives.append(objective)
        noises.append(np.sqrt(count @ squares_U / freedom))
    good = np.isfinite(np.concatenate(objectives))
    columns = np.concatenate(surfaces, axis=1)[:, good]
    noise = np.concatenate(noises)[good]
    return SurfaceDraws(Surface(*columns), noise, int((~good).sum()), audited, improved)


DELTAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
DROPPED = (0, 1, 3, 5, 8, 20)


@dataclass(frozen=True)
class Influence:
    """Surfaces of the same table with something left out, or another delta; B variants."""

    kind: str  # "leave_one_budget_out", "drop_top" or "delta"
    key: str  # what `value_B` is: "budget", "dropped", "delta"
    value_B: Floats
    surface: Surface
    objective_B: Floats


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
            surface, objective = refit_searched(fit, weights)
            values = np.array([value for value, _ in good])
            made.append(Influence(kind, key, values, surface, objective))
    if fit.objective.named_delta is not None:
        deltas = np.array(DELTAS)
        weights = np.tile(fit.weights_R, (len(deltas), 1))
        surface, objective = refit_searched(fit, weights, deltas)
        made.append(Influence("delta", "delta", deltas, surface, objective))
    return made
