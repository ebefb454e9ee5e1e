"""Whether a surface misses runs in a way that is no chance: its residuals follow N and D.

The residuals are fitted by a cubic in (ln N, ln D). What that explains beyond the surface's own
parameters is compared with what it leaves (F test, p by Paulson's approximation 1942); where runs
are too few for a cubic, nothing is said. The region that is missed most is told in words.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, Ints, silent
from chinchilla_jax.scaling.fits import LackOfFit, MissedRegion
from chinchilla_jax.scaling.fitting.surface import SurfaceFit
from chinchilla_jax.scaling.table.runs import Runs

_LEAST_LEFT = 10  # runs more than the cubic has terms
_FAR = 4.0  # standard deviations at which a residual is cut, so that one run is no trend
_SIZES = ("small", "middling", "large")
_LENGTHS = ("short", "as usual", "long")
_LEAST_RUNS = 4  # of a region
LEVEL = 1e-3  # of p, from which it is told


@silent()
def lack_of_fit(fit: SurfaceFit, runs: Runs) -> LackOfFit | None:
    """None where the runs are too few to tell."""
    basis = _cubic(np.log(runs.params), np.log(runs.tokens))
    left = len(runs) - basis.shape[1]
    residual = _cut(fit.residual_R)
    if left < _LEAST_LEFT or not np.isfinite(residual).all():
        return None
    weights = np.sqrt(fit.weights_R)
    rows = basis * weights[:, None]
    solved, _, rank, _ = np.linalg.lstsq(rows, residual * weights, rcond=1e-9)
    missed = basis @ solved
    more = int(rank) - fit.parameters
    rest = float(np.sum((weights * (residual - missed)) ** 2)) / (len(runs) - int(rank))
    if more < 1 or not rest > 0:
        return None
    explained = float(np.sum((weights * residual) ** 2)) - rest * (len(runs) - int(rank))
    return LackOfFit(
        p=_beyond(explained / more / rest, more, len(runs) - int(rank)),
        missed=float(np.sqrt(np.mean(missed**2))),
        noise=float(np.sqrt(rest)),
        regions=_regions(residual, float(np.sqrt(rest)), runs),
    )


def sentence(found: LackOfFit | None) -> str | None:
    """What the surface misses, where it is no chance."""
    if found is None or found.p > LEVEL or not found.regions:
        return None
    told = " and ".join(
        f"{100 * abs(region.missed):.1f} % {'high' if region.missed > 0 else 'low'} for "
        f"{region.size} models trained {region.length} ({region.runs} runs)"
        for region in found.regions
    )
    return (
        f"parametric: its residuals follow size and tokens (lack of fit, {_chance(found.p)}): the "
        f"surface is {told}; forms that couple the two stand beside it"
    )


def _chance(p: float) -> str:
    return f"p = {p:.1g}" if p >= 1e-9 else "p < 1e-9"


def _cubic(log_params: Floats, log_tokens: Floats) -> Floats:
    x, y = ((z - z.mean()) / (z.std() or 1.0) for z in (log_params, log_tokens))
    return np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=1)


def _cut(residual: Floats) -> Floats:
    middle = np.median(residual)
    size = 1.4826 * np.median(np.abs(residual - middle))
    return np.asarray(np.clip(residual, middle - _FAR * size, middle + _FAR * size))


def _beyond(f: float, more: int, left: int) -> float:
    """P(F > f) of (more, left) degrees of freedom."""
    a, b = 2 / (9 * more), 2 / (9 * left)
    root = max(f, 0.0) ** (1 / 3)
    return NormalDist().cdf(-((1 - b) * root - (1 - a)) / np.sqrt(b * root**2 + a))


def _regions(residual: Floats, noise: float, runs: Runs) -> tuple[MissedRegion, ...]:
    """Of nine by size and tokens per parameter, the one most too low and the one most too high."""
    size, length = _thirds(np.log(runs.params)), _thirds(np.log(runs.tokens_per_param))
    found = []
    for i, named in enumerate(_SIZES):
        for j, trained in enumerate(_LENGTHS):
            here = (size == i) & (length == j)
            if (count := int(here.sum())) >= _LEAST_RUNS:
                mean = float(residual[here].mean())
                found.append((mean * np.sqrt(count), MissedRegion(named, trained, mean, count)))
    ends = [min(found, key=lambda x: x[0]), max(found, key=lambda x: x[0])] if found else []
    told = [x for x in ends if abs(x[0]) > 3 * noise]
    return tuple(region for _, region in sorted(told, key=lambda x: -abs(x[0])))


def _thirds(x: Floats) -> Ints:
    return np.asarray(np.searchsorted(np.quantile(x, [1 / 3, 2 / 3]), x), np.int64)
