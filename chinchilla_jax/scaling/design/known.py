"""What runs say of a target: the forecast that a report gives, and how much a run scatters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import flops
from chinchilla_jax.scaling.approaches import Approaches, approaches
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.ensemble import Ensemble, Knowledge, Shift, Trials, knowledge
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.fitting.optimum import Optimum
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.candidates import candidates
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import choice, conditions
from chinchilla_jax.scaling.table.conventions import under
from chinchilla_jax.scaling.table.runs import Runs

BEYOND = 10.0  # times the largest run: the target where none is asked for
LEAST_BEYOND = 1.01


@dataclass(frozen=True)
class Known:
    """What the runs there are say of a target.

    Attributes:
      source: what their forecast rests on, as `evaluate` chooses it.
      draws: bootstrap surfaces; NaN for a draw without an optimum.
      misfit: standard deviation of ln loss of a cell around the surface, seeds averaged.
    """

    each: Approaches
    target: float
    source: Source
    draws: Surface
    misfit: float

    @property
    def surface(self) -> Surface:
        """The fit itself."""
        assert self.each.fit is not None
        return self.each.fit.surface

    def of(self, pool: Pool, form: bool = True) -> Knowledge | None:
        """With the losses of candidates; `form` for the error of the form, too."""
        noise_C = self.noise(pool.flops_C)
        averaged_C = 1 + pool.made_C * (self.misfit / noise_C) ** 2
        shift = Shift(*(self.form_error() if form else (0.0, 0.0)), self.source.largest)
        misfit_C = self.misfit / np.sqrt(averaged_C)
        return knowledge(
            Ensemble(self.draws, self.surface, shift, self.each.flops_model, self.target),
            Trials(pool.params_C, pool.tokens_C, noise_C, misfit_C),
        )

    def form_error(self) -> tuple[float, float]:
        """Standard deviations of ln N* and of ln L* at the target, as hold-out shows them."""
        return form_error(self.source, self.target)

    def noise(self, flops_C: Floats) -> Floats:
        """Standard deviation of ln loss of one run of each."""
        known, fit = self.each.noise, self.each.fit
        assert fit is not None
        size_C = known.at(flops_C) if known.log_loss > 0 else np.full(len(flops_C), fit.noise)
        return np.maximum(size_C, 1e-6)

    def forecast(self) -> dict[str, tuple[float, Interval | None]]:
        """N* and L* at the target, and their 95 % intervals: what a report says."""
        at = np.array([self.target])
        value, drawn = self.source.best(at), self.source.drawn
        spread = None if drawn is None else drawn(at)

        def one(name: str) -> tuple[float, Interval | None]:
            ends = None if spread is None else interval(np.ravel(_of(spread, name)))
            return float(np.ravel(_of(value, name))[0]), ends

        return {name: one(name) for name in ("params", "loss")}


def _of(found: Optimum, name: str) -> Floats:
    values = getattr(found, name)
    return np.asarray(values)


def form_error(source: Source, target: float) -> tuple[float, float]:
    """Standard deviations of ln N* and of ln L* at `target` FLOPs, as hold-out shows them."""
    at = np.array([target])
    loss, params = source.error.at(at, source.best(at))
    return float(params[0]), float(loss[0])


def must_be_beyond(target: float, largest: float) -> None:
    """Raises UserError where runs of `largest` FLOPs leave nothing to forecast at `target`."""
    if not target >= LEAST_BEYOND * largest:
        raise UserError(
            f"--target={flops(target)}: the runs go up to {flops(largest)} FLOPs, and what lies "
            "within them is measured, not forecast; give a larger one"
        )


@silent()
def known_of(runs: Runs, settings: Settings, target: float | None = None) -> Known:
    """Fits and chooses as `evaluate` does.

    Raises:
      UserError: runs of several conditions, a target that is not beyond them, or no surface that
        they determine.
    """
    if len(conditions(runs)) > 1:
        raise UserError(choice(runs, compares=False))
    largest = float(runs.best().flops.max())
    target = BEYOND * largest if target is None else target
    must_be_beyond(target, largest)
    each, source = fitted(runs, settings)
    assert each.fit is not None and each.surface_draws is not None
    misfit = 0.0
    if each.noise.source == "seeds":
        misfit = float(np.sqrt(max(each.fit.noise**2 - each.noise.log_loss**2, 0.0)))
    return Known(each, target, source, each.surface_draws.frontier, misfit)


@silent()
def fitted(runs: Runs, settings: Settings) -> tuple[Approaches, Source]:
    """The fits of runs of one condition, and what `evaluate` would forecast from.

    Raises:
      UserError: no surface that they determine.
    """
    runs = under(runs.best(), settings.params, settings.flops)

    def stream(*part: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, *part])  # as in `analysis`

    each = approaches(runs, settings, stream, every=False)
    if each.fit is None or not each.fit.identified:
        why = each.refusal.sentence if each.refusal is not None else "the surface is on a bound"
        raise UserError(
            f"{runs.source}: nothing tells which run is next before a surface is fitted: {why}"
        )
    return each, candidates(each, settings, stream(4)).sources[0]
