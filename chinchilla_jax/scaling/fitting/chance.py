"""Chance as runs share it: branches of one trunk scatter together, other runs each by themselves.

Array suffixes: B draws, R runs of a table, S some of them, U those resampled, F directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints

# Of the noise's variance, what branches of a trunk have in common where their runs do not tell:
# two seeds of two sizes moved all four branches of a trunk together (.95), and it counts like two
# trunks that have a replicate.
_USUAL_SHARED, _USUAL_TRUNKS = 0.9, 2.0
_MANY = 1000  # runs


def resampled(trunk_U: Ints | None, runs: int, draws: int, rng: np.random.Generator) -> Ints:
    """How often each run is in each draw of a bootstrap, [draws, U].

    Trunks are drawn, each with all its branches, since they are what is independent.

    Args:
      trunk_U: the number of each run's trunk; None where each run is its own.
    """
    if trunk_U is None and runs > _MANY:  # the same by another way, four times as fast
        drawn = (rng.integers(0, runs, runs) for _ in range(draws))
        return np.stack([np.bincount(which, minlength=runs) for which in drawn])
    if trunk_U is None:
        return rng.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    _, place_U = np.unique(trunk_U, return_inverse=True)
    trunks = int(place_U.max()) + 1
    return rng.multinomial(trunks, np.full(trunks, 1 / trunks), size=draws)[:, place_U]


def resampled_of(
    used_R: Bools, trunk_R: Ints | None, draws: int, rng: np.random.Generator
) -> Floats:
    """`resampled` of the runs of a table that are used, [draws, R]; 0 of the others."""
    count_BxR = np.zeros((draws, len(used_R)))
    trunk_U = None if trunk_R is None else trunk_R[used_R]
    count_BxR[:, used_R] = resampled(trunk_U, int(used_R.sum()), draws, rng)
    return count_BxR


@dataclass(frozen=True)
class Chance:
    """B draws of standard normal noise of every run, of which `shared` of the variance is its
    trunk's."""

    rng: np.random.Generator
    draws: int
    noise_BxR: Floats | None  # None where all runs are independent

    @classmethod
    def of(
        cls, rng: np.random.Generator, draws: int, trunk_R: Ints | None = None, shared: float = 0.0
    ) -> Chance:
        if trunk_R is None or not shared:
            return cls(rng, draws, None)
        of_trunk = rng.standard_normal((draws, int(trunk_R.max()) + 1))[:, trunk_R]
        own = rng.standard_normal((draws, len(trunk_R)))
        return cls(rng, draws, np.sqrt(shared) * of_trunk + np.sqrt(1 - shared) * own)

    def along(self, row_S: Ints, frame_SxF: Floats | None = None) -> Floats:
        """The noise of some runs, [B, S], or along orthonormal directions of it, [B, F].

        That of independent runs is drawn anew at each call.
        """
        if self.noise_BxR is None:
            shape = (self.draws, (frame_SxF.shape[1] if frame_SxF is not None else len(row_S)))
            return self.rng.standard_normal(shape)
        noise_BxS = self.noise_BxR[:, row_S]
        return noise_BxS if frame_SxF is None else noise_BxS @ frame_SxF


def shared_variance(z_R: Floats, trunk_R: Ints, replicates: float) -> float:
    """The share of the variance of z that runs of one trunk have in common, from 0 to 1.

    The mean product of two of a trunk over the mean square (an intraclass correlation), drawn
    towards what was measured elsewhere where few trunks tell it.

    Args:
      z_R: deviations of runs, on one scale.
      replicates: how many trunks' deviations are independent.
    """
    size_T = np.bincount(trunk_R)
    sum_T, square_T = np.bincount(trunk_R, z_R), np.bincount(trunk_R, z_R**2)
    several = float((size_T - 1) @ square_T)
    products = float((sum_T**2 - square_T).sum())
    found = min(max(products / several, 0.0), 1.0) if several > 0 else _USUAL_SHARED
    weight = replicates if several > 0 else 0.0
    return (_USUAL_TRUNKS * _USUAL_SHARED + weight * found) / (_USUAL_TRUNKS + weight)


def independent(freedom: float, trunk_R: Ints, shared: float) -> float:
    """Degrees of freedom of a variance whose squares are correlated inside trunks."""
    size_T = np.bincount(trunk_R).astype(float)
    branches = float((size_T @ size_T) / size_T.sum())
    return freedom / (1 + (branches - 1) * shared**2)
