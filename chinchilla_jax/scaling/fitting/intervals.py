"""What a set of draws says of a number: its interval and its standard error."""

import numpy as np

from chinchilla_jax.scaling.arrays import Floats

LEVEL = 0.95
Interval = tuple[float, float]  # [low, high]


def interval(draws: Floats, level: float = LEVEL) -> Interval | None:
    """[low, high] percentiles; None where so many draws have no value that an end is open."""
    finite = draws[np.isfinite(draws)]
    if len(finite) < len(draws) * (1 + level) / 2 or len(finite) == 0:
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(draws: Floats) -> float | None:
    """Of the draws that have a value; None where fewer than two have."""
    finite = draws[np.isfinite(draws)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else None
