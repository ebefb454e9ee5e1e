"""What runs say of a target: draws of their surface, and how much a run scatters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import flops
from chinchilla_jax.scaling.approaches import Fitted, basis
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.ensemble import TARGETS, Knowledge, knowledge, targets_of
from chinchilla_jax.scaling.doubt.uncertainty import surface_draws
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import choice, conditions
from chinchilla_jax.scaling.table.conventions import under
from chinchilla_jax.scaling.table.runs import Runs

BEYOND = 10.0  # times the largest run: the target where none is asked for
_LEAST_BEYOND = 1.01
_DRAWS = 500


@dataclass(frozen=True)
class Known:
    """What the runs there are say of a target.

    Attributes:
      draws: bootstrap surfaces; NaN for a draw without an optimum.
      misfit: standard deviation of ln loss of a cell around the surface, seeds averaged.
    """

    each: Fitted
    target: float
    draws: Surface
    misfit: float

    @property
    def surface(self) -> Surface:
        """The fit itself."""
        assert self.each.fit is not None
        return self.each.fit.surface

    def of(self, pool: Pool) -> Knowledge | None:
        """With the losses of candidates."""
        noise_C = self.noise(pool.flops_C)
        averaged_C = 1 + pool.made_C * (self.misfit / np.maximum(noise_C, 1e-9)) ** 2
        misfit_C = self.misfit / np.sqrt(averaged_C)
        return knowledge(
            self.draws, self.each.flops_model, self.target, pool.params_C, pool.tokens_C,
            noise_C, misfit_C,
        )  # fmt: skip

    def noise(self, flops_C: Floats) -> Floats:
        """Standard deviation of ln loss of one run of each."""
        known, fit = self.each.noise, self.each.fit
        assert fit is not None
        size_C = known.at(flops_C) if known.log_loss > 0 else np.full(len(flops_C), fit.noise)
        return np.maximum(size_C, 1e-6)

    def intervals(self) -> dict[str, tuple[float, Interval | None]]:
        """Of N* and L* at the target: what the fit says, and the 95 % interval of the draws."""
        point = Surface(*(np.array([x]) for x in self.surface.columns()))
        cost = self.each.flops_model
        value, drawn = (np.exp(targets_of(x, cost, self.target)) for x in (point, self.draws))
        return {name: (float(value[0, t]), interval(drawn[:, t])) for t, name in enumerate(TARGETS)}


@silent()
def known_of(runs: Runs, settings: Settings, target: float | None = None) -> Known:
    """Fits the surface and draws from it.

    Raises:
      UserError: runs of several conditions, a target that is not beyond them, or no surface that
        they determine.
    """
    if len(conditions(runs)) > 1:
        raise UserError(choice(runs))
    runs = under(runs.best(), settings.params, settings.flops)
    largest = float(runs.flops.max())
    target = BEYOND * largest if target is None else target
    if not target >= _LEAST_BEYOND * largest:
        raise UserError(
            f"--target={flops(target)}: the runs go up to {flops(largest)} FLOPs, and what lies "
            "within them is measured, not forecast; give a larger one"
        )
    each = basis(runs, settings)
    if each.fit is None or not each.fit.identified:
        why = each.refusal.sentence if each.refusal is not None else "the surface is on a bound"
        raise UserError(
            f"{runs.source}: nothing tells which run is next before a surface is fitted: {why}"
        )
    rng = np.random.default_rng([settings.seed, 0])
    drawn = surface_draws(each.fit, _DRAWS, rng).frontier
    misfit = 0.0
    if each.noise.source == "seeds":
        misfit = float(np.sqrt(max(each.fit.noise**2 - each.noise.log_loss**2, 0.0)))
    return Known(each, target, drawn, misfit)
