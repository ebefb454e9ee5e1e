"""Approach 1: the lower envelope of training curves (Hoffmann et al. 2203.15556, section 3.1).

Every curve is smoothed and interpolated to a map from FLOPs to loss. At 1500 log-spaced FLOP values
the run with the lowest loss is taken; power laws of its params and tokens follow. What is read off
in the middle of a learning-rate decay is a loss that has not come down yet: the paper's points all
lie in the last 15 % of training, and the share that does so is part of the result. Where the
smallest or largest size tried is the best one, a better size may lie beyond: those points are drawn
and not fitted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.experiment.numbers import percentage
from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws, power_laws
from chinchilla_jax.scaling.table.curves import Curve

POINTS = 1500
LAST = 0.15
_WINDOW = 0.05  # of the run's tokens, the smoothing window
_RANKS = 64  # of curves at a point that draws look at first
_SKIP = 0.02  # of the run's tokens: the first loss drop is no scaling


@dataclass(frozen=True)
class Envelope:
    """Points of the envelope, F FLOP values; `loss_CxF` has every curve, NaN where it is not."""

    flops_F: Floats
    curve_F: npt.NDArray[np.intp]
    loss_F: Floats
    params_F: Floats
    tokens_F: Floats
    progress_F: Floats  # share of the chosen run's training done at the point
    loss_CxF: Floats
    used_F: Bools  # points that the power laws rest on
    laws: PowerLaws  # of one entry

    @property
    def last_share(self) -> float:
        """Share of points, sizes at the edge apart, in the last 15 % of their run."""
        inner = _inner(self.params_F)
        return float(np.mean(self.progress_F[inner] >= 1 - LAST)) if inner.any() else 0.0


def smooth(curve: Curve) -> Floats:
    """Running mean of the loss over 5 % of the run's tokens, narrower towards the ends.

    The window stays centred, since a lopsided one would lag behind a falling loss, and within a
    tenth of the tokens seen, since an early loss bends within a wider one.
    """
    tokens = curve.tokens_S
    half_S = np.minimum(0.5 * _WINDOW * tokens[-1], 0.1 * tokens)
    half_S = np.minimum(half_S, np.minimum(tokens - tokens[0], tokens[-1] - tokens))
    low = np.searchsorted(tokens, tokens - half_S * (1 + 1e-12), side="left")
    high = np.searchsorted(tokens, tokens + half_S * (1 + 1e-12), side="right")
    total = np.concatenate([[0.0], np.cumsum(curve.loss_S)])
    return np.asarray((total[high] - total[low]) / (high - low))


def envelope(curves: list[Curve], points: int = POINTS) -> Envelope | None:
    """The envelope where at least two sizes overlap; None with fewer than three sizes on it."""
    if len({curve.params for curve in curves}) < 3:
        return None
    ends = np.log([[c.flops_S[0], c.flops_S[-1]] for c in curves])
    log_flops = np.linspace(ends[:, 0].min(), ends[:, 1].max(), points)
    loss = np.full((len(curves), points), np.nan)
    for i, curve in enumerate(curves):
        late = curve.tokens_S >= _SKIP * curve.tokens_S[-1]
        x = np.log(curve.flops_S[late])
        inside = (log_flops >= x[0]) & (log_flops <= x[-1])
        loss[i, inside] = np.interp(log_flops[inside], x, smooth(curve)[late])
    params_C = np.array([curve.params for curve in curves])
    present = np.isfinite(loss)
    several = np.array([len(set(params_C[here])) > 1 for here in present.T])
    if not several.any():
        return None
    log_flops, loss = log_flops[several], loss[:, several]
    chosen = np.nanargmin(loss, axis=0)
    if len(set(params_C[chosen])) < 3:
        return None
    tokens = np.array(
        [
            np.exp(np.interp(x, np.log(curves[i].flops_S), np.log(curves[i].tokens_S)))
            for i, x in zip(chosen, log_flops, strict=True)
        ]
    )
    params = params_C[chosen]
    progress = tokens / np.array([c.tokens_S[-1] for c in curves])[chosen]
    used = _used(params, progress)
    return Envelope(
        flops_F=np.exp(log_flops),
        curve_F=chosen,
        loss_F=loss[chosen, np.arange(len(chosen))],
        params_F=params,
        tokens_F=tokens,
        progress_F=progress,
        loss_CxF=loss,
        used_F=used,
        laws=power_laws(
            log_flops, np.log(params)[None], np.log(tokens)[None], used.astype(float)[None]
        ),
    )


def _inner(params_F: Floats) -> Bools:
    return np.asarray((params_F > params_F.min()) & (params_F < params_F.max()))


def _used(params_F: Floats, progress_F: Floats) -> Bools:
    """Inner sizes at the end of their runs, as far as three sizes are left."""
    inner = _inner(params_F)
    for mask in (inner & (progress_F >= 1 - LAST), inner):
        if len(np.unique(params_F[mask])) >= 3:
            return mask
    return np.ones(len(params_F), bool)


def envelope_draws(
    found: Envelope,
    curves: list[Curve],
    draws: int,
    rng: np.random.Generator,
    trunk_C: Ints | None = None,
) -> PowerLaws:
    """Exponents under resampling of whole curves, the unit that is independent, or of trunks."""
    trunk_C = (
        np.arange(len(curves)) if trunk_C is None else np.unique(trunk_C, return_inverse=True)[1]
    )
    trunks = int(trunk_C.max()) + 1
    log_flops = np.log(found.flops_F)
    log_params_C = np.log([curve.params for curve in curves])
    log_tokens_CxF = np.array(
        [np.interp(log_flops, np.log(c.flops_S), np.log(c.tokens_S)) for c in curves]
    )
    # Ranked once: a draw's envelope is, at every point, the first of its curves in rank.
    order_CxF = np.argsort(np.where(np.isnan(found.loss_CxF), np.inf, found.loss_CxF), axis=0)
    exists_CxF = np.isfinite(np.take_along_axis(found.loss_CxF, order_CxF, axis=0))
    more = exists_CxF[_RANKS:].any(axis=0)  # a draw nearly always has one of the first few
    end_C = np.array([curve.tokens_S[-1] for curve in curves])
    point = np.arange(len(log_flops))
    parts = []
    for _ in range(draws):
        drawn_T = np.zeros(trunks, bool)
        drawn_T[rng.integers(trunks, size=trunks)] = True
        drawn = drawn_T[trunk_C]
        usable = drawn[order_CxF[:_RANKS]] & exists_CxF[:_RANKS]
        if np.any(more & ~usable.any(axis=0)):
            usable = drawn[order_CxF] & exists_CxF
        chosen = order_CxF[usable.argmax(axis=0), point]
        # Points count as in the envelope itself, where the draw has a curve at all.
        some = usable.any(axis=0)
        progress = np.exp(log_tokens_CxF[chosen, point]) / end_C[chosen]
        weights = np.zeros(len(point))
        weights[some] = _used(np.exp(log_params_C[chosen[some]]), progress[some])
        parts.append(
            power_laws(
                log_flops,
                log_params_C[chosen][None],
                log_tokens_CxF[chosen, point][None],
                weights[None],
            )
        )
    columns = ("a", "log_params_1", "b", "log_tokens_1")
    return PowerLaws(*(np.concatenate([getattr(p, c) for p in parts]) for c in columns))


def doubts(found: Envelope, curves: list[Curve]) -> list[str]:
    """Why the envelope's exponents may not be those of finished runs."""
    said = []
    if found.last_share < 0.9:
        said.append(
            f"envelope: {percentage(found.last_share)} of its points lie in the last 15 % of a "
            "run; the others were cut out of a longer decay and their loss is too high (more "
            "horizons per size mend it)"
        )
    cut = [curve for curve in curves if curve.decayed is False]
    if cut:
        said.append(
            f"envelope: {len(cut)} of {len(curves)} curves end before their learning rate decayed"
        )
    if all(curve.decayed is None for curve in curves):
        said.append("envelope: without learning rates nobody can say whether curves were cut short")
    return said
