"""What bootstrap draws leave out: the error of a law's form.

Draws vary what chance did to the runs and keep the form. What the form misses beyond the runs is
seen twice: where budgets were held out, and where another form, fitted to the same runs, says
something else. The interval of a forecast therefore holds, in quadrature, chance and the larger of

* the rms error of that form on held-out budgets, which grows in proportion to the distance (ln of
  FLOPs beyond the largest fitted) further out than hold-out reached, and
* the distance to the forecast of the other form (the surface, or the laws through the minima).

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


def held_out_error(results: Sequence[HeldOut], forecaster: Forecaster) -> HeldOutError | None:
    """The errors of a forecaster over all folds; None where it was never checked."""
    found = [r for r in results if r.forecaster == forecaster]
    if not found:
        return None
    loss, params, distance = (
        np.concatenate(columns)
        for columns in zip(
            *((r.minimum_error_H, r.params_error_H, np.log(r.flops_H / r.fitted_up_to))
              for r in found),
            strict=True,
        )
    )  # fmt: skip
    known = np.isfinite(loss) & np.isfinite(params)
    if not known.any():
        return None
    rms = [float(np.sqrt(np.mean(x[known] ** 2))) for x in (loss, params, distance)]
    return HeldOutError(rms[0], rms[1], float(distance[known].min()), rms[2], int(known.sum()))


@dataclass(frozen=True)
class FormError:
    """What is known of the error of a form: `largest` are the FLOPs up to which it was fitted."""

    held_out: HeldOutError | None
    other: Optima | None  # of the other form
    largest: float

    @property
    def known(self) -> bool:
        return self.held_out is not None or self.other is not None

    @silent()
    def at(self, flops: Floats, best: Optimum) -> tuple[Floats, Floats]:
        """Standard deviations of ln loss and of ln params around the form's own forecast."""
        zero = np.zeros(np.shape(flops))
        loss, params = zero, zero
        if self.held_out is not None:
            grown = _grown(self.held_out, np.log(flops / self.largest))
            loss, params = self.held_out.loss * grown, self.held_out.params * grown
        if self.other is not None:
            other = self.other(flops)
            if best.loss is not None and other.loss is not None:
                loss = np.fmax(loss, np.abs(np.log(other.loss / best.loss)))
            params = np.fmax(params, np.abs(np.log(other.params / best.params)))
        return loss, params

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


def _grown(error: HeldOutError, distance: Floats) -> Floats:
    """The error at a distance over its rms: 0 inside the runs, 1 from the nearest held out on."""
    inside = np.clip(distance / error.nearest, 0.0, 1.0)
    return np.asarray(inside * np.maximum(1.0, distance / error.distance))


@functools.cache
def _normal(count: int, part: int) -> Floats:
    """Standard normal quantiles, evenly taken, in an order of their own that never changes."""
    inverse = NormalDist().inv_cdf
    values = np.array([inverse((i + 0.5) / count) for i in range(count)])
    return np.random.default_rng([count, part]).permutation(values)
