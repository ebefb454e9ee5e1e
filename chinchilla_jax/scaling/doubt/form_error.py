"""What bootstrap draws leave out: the error of a law's form.

Draws vary what chance did to the runs and keep the form. What the form misses beyond the runs is
seen where budgets were held out, and where other forecasts of the same runs (laws through the
minima, other forms of surface, other selections of runs) say something else. Both tell one
variance, which the interval of a forecast holds beside that of chance:

* that of held-out budgets grows with the squared distance (ln of FLOPs beyond the largest fitted).
  It is the mean over folds, and no less than that of the median forecast: the one with the lowest
  error of several is that by chance too.
* the mean square of what the others say otherwise, at the very budget asked for, counts as one more
  fold. With a single fold an error that was small by chance does not pass for none, nor one that
  was large for all that there is.

Without either, an interval is of chance alone and not called one of 95 %. How often such intervals
hold on tables of runs, and how wide they are: tests/benchmarks/held_out_intervals.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.doubt.holdout import Forecaster, HeldOut
from chinchilla_jax.scaling.fits import HeldOutError
from chinchilla_jax.scaling.fitting.optimum import Optima, Optimum


def held_out_error(
    results: Sequence[HeldOut], forecaster: Forecaster, among: Sequence[Forecaster] = ()
) -> HeldOutError | None:
    """What hold-out shows of a forecaster's error; None where it was never checked.

    It is no less than the median of those it was chosen `among`.
    """
    folds = _squares(results, forecaster)
    if not len(folds):
        return None
    rates = [_squares(results, other)[:, :2] for other in {forecaster, *among}]
    median = np.median([rate.mean(axis=0) for rate in rates if len(rate)], axis=0)
    loss, params = np.sqrt(np.maximum(folds[:, :2].mean(axis=0), median))
    forecasts, nearest = int(folds[:, 3].sum()), float(folds[:, 4].min())
    distance = float(np.sqrt(folds[:, 2].sum() / forecasts))
    return HeldOutError(
        float(loss) * distance, float(params) * distance, nearest, distance, forecasts, len(folds)
    )


def _squares(results: Sequence[HeldOut], forecaster: Forecaster) -> Floats:
    """[fold, 5]: squared errors of ln loss and of ln params over squared distances (sums by sums),
    those distances' sum, how many forecasts, and the smallest distance."""
    folds = []
    for found in results:
        distance = np.log(found.flops_H / found.fitted_up_to)
        known = np.isfinite(found.minimum_error_H) & np.isfinite(found.params_error_H)
        if found.forecaster == forecaster and known.any():
            square = np.sum(distance[known] ** 2)
            errors = (found.minimum_error_H[known], found.params_error_H[known])
            rates = (np.sum(error**2) / square for error in errors)
            folds.append([*rates, square, known.sum(), distance[known].min()])
    return np.array(folds, float).reshape(-1, 5)


@dataclass(frozen=True)
class FormError:
    """What is known of the error of a form: `largest` are the FLOPs up to which it was fitted."""

    held_out: HeldOutError | None
    others: Sequence[Optima]  # other forecasts of the same runs
    largest: float
    other_kind: bool = False  # laws through minima beside a surface, or the reverse

    @property
    def known(self) -> bool:
        """Whether anything checks the form: surfaces alone, of the same runs, check each other's
        little."""
        return self.held_out is not None or self.other_kind

    @silent()
    def at(self, flops: Floats, best: Optimum) -> tuple[Floats, Floats]:
        """Standard deviations of ln loss and of ln params around the form's own forecast."""
        loss, params, count = (np.zeros(np.shape(flops)) for _ in range(3))
        if self.held_out is not None:
            distance = np.log(flops / self.largest)
            # Of what is nearer than any held-out budget folds tell less, and nothing of the inside.
            count = self.held_out.folds * np.clip(distance / self.held_out.nearest, 0.0, 1.0)
            grown = count * (distance / self.held_out.distance) ** 2
            loss, params = self.held_out.loss**2 * grown, self.held_out.params**2 * grown
        found = [other(flops) for other in self.others]
        if found:
            loss = loss + _mean_square([one.loss for one in found], best.loss)
            params = params + _mean_square([one.params for one in found], best.params)
            count = count + 1.0
        count = np.maximum(count, np.finfo(float).tiny)
        return np.sqrt(loss / count), np.sqrt(params / count)

    def widened(self, drawn: Optima, best: Optima, draws: int, exponent: float) -> Optima:
        """`drawn` with the form's error in it; FLOPs are kappa params^exponent tokens."""
        z_loss, z_params = (_normal(draws, part) for part in range(2))

        def optima(flops: Floats) -> Optimum:
            found = drawn(flops)
            loss, params = self.at(flops, best(flops))
            shift = params * z_params  # along the budget: what is more in params is less in tokens
            return Optimum(
                found.flops,
                found.params * np.exp(shift),
                found.tokens * np.exp(-exponent * shift),
                None if found.loss is None else found.loss * np.exp(loss * z_loss),
            )

        return optima


def _mean_square(others: Sequence[Floats | None], own: Floats | None) -> Floats:
    """Of ln of the others over the form's own; 0 where none is known."""
    known = [np.log(other / own) ** 2 for other in others if other is not None and own is not None]
    if not known:
        return np.zeros(1)
    count = np.isfinite(known).sum(axis=0)
    return np.asarray(np.nansum(known, axis=0) / np.maximum(count, 1))


@functools.cache
def _normal(count: int, part: int) -> Floats:
    """Standard normal quantiles, evenly taken, in an order of their own that never changes."""
    inverse = NormalDist().inv_cdf
    values = np.array([inverse((i + 0.5) / count) for i in range(count)])
    return np.random.default_rng([count, part]).permutation(values)
