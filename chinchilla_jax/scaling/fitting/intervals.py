"""What a set of draws says of a number: its interval and its standard error.

A draw without a value (no optimum, a surface on a bound) stands beyond one of the ends, and nobody
knows which. Where such draws are so many that a percentile could fall among them, that end of the
interval is open, and nothing is given: neither the other draws' interval nor a standard error. Nor
is anything given of so few draws that none is expected beyond a percentile (`least`).
"""

from collections.abc import Mapping

import numpy as np

from chinchilla_jax.scaling.arrays import Floats

LEVEL = 0.95
Interval = tuple[float, float]  # [low, high]
# By the name of the quantity: None where an end is open, no entry where nothing was drawn.
Intervals = dict[str, Interval | None]


def least(level: float = LEVEL) -> int:
    """The fewest draws that say anything of an interval: one of them beyond each end."""
    return round(2 / (1 - level))


def interval(draws: Floats, level: float = LEVEL) -> Interval | None:
    """[low, high] percentiles of the draws; None where an end is open, or of too few draws."""
    low, high = band(draws[:, None], level)[:, 0]
    return (float(low), float(high)) if np.isfinite(low) else None


def band(draws_BxK: Floats, level: float = LEVEL) -> Floats:
    """[2, K]: the interval of every column; NaN where an end is open, or of too few draws."""
    ends = (1 - level) / 2, (1 + level) / 2
    found = np.full((2, draws_BxK.shape[1]), np.nan)
    if len(draws_BxK) < least(level):
        return found
    known_BxK = np.isfinite(draws_BxK)
    whole_K = known_BxK.all(axis=0)
    found[:, whole_K] = np.quantile(draws_BxK[:, whole_K], ends, axis=0)
    for k in np.flatnonzero(~whole_K):
        finite = draws_BxK[known_BxK[:, k], k]
        if not _open(len(finite), len(draws_BxK), level):
            found[:, k] = np.quantile(finite, ends)
    return found


def open_ends(intervals: Mapping[str, Interval | None]) -> str | None:
    """Which intervals are not given and why, in a sentence; None where all are."""
    names = ", ".join(name for name, ends in intervals.items() if ends is None)
    if not names:
        return None
    return (
        f"an end of the {100 * LEVEL:g} % interval of {names} is open and none is given: more than "
        f"{50 * (1 - LEVEL):g} % of the bootstrap draws have no such value (no optimum, or a "
        "surface on a bound)"
    )


def standard_error(draws: Floats) -> float | None:
    """Standard deviation of the draws; None where an end is open, or of too few."""
    finite = draws[np.isfinite(draws)]
    if len(draws) < least() or _open(len(finite), len(draws), LEVEL):
        return None
    return float(finite.std(ddof=1))


def _open(finite: int, draws: int, level: float) -> bool:
    return finite < draws * (1 + level) / 2 or finite == 0
