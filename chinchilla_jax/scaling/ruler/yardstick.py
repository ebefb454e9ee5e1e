"""The ruler itself: the law of the dense runs, and what is moved along it.

L0(N, D) = E + (A N^-alpha + B D^-beta)^gamma is fitted to the dense runs alone: no technique bends
the ruler by which the others are measured. Runs of a law with an outer power (`fitting/coupled.py`)
are so measured rightly, and those of one without no less sharply. A multiplier m moves one of three
things along it:

    size      E + (A (m N)^-alpha + B D^-beta)^gamma             N in the currency asked for
    tokens    E + (A N^-alpha + B (m D)^-beta)^gamma
    compute   E + (m^-c (A N^-alpha + B D^-beta))^gamma          c = alpha beta / (alpha + p beta)

The last is what m times the FLOPs buy where both are scaled along the compute-optimal frontier of
C = kappa N^p D, on which the bracket falls as C^-c (Hoffmann et al. 2022, equation 4).
So each of them is E + (f exp(-g_1 u) + s exp(-g_2 u))^gamma with u = ln m.

Array suffixes: B draws, of which the first is the fit to all runs; R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.surface import Surface, SurfaceFit, fit_surface, refit
from chinchilla_jax.scaling.laws.further import law_weights
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

AXES = ("size", "tokens", "compute")
_LEAST_CELLS = 9  # for six parameters; below, the outer power is 1


@dataclass(frozen=True)
class Yardstick:
    """The law of the dense runs and its draws, sizes in units of `unit`."""

    unit: float
    fit: SurfaceFit
    surface: Surface  # arrays of B
    known_B: Bools  # draws whose law tells both size and tokens

    def moved(self, axis: str, amount_R: Floats, tokens_R: Floats, cost: FlopsModel) -> Moved:
        """The law at these rows, to be moved along an axis of AXES."""
        s = Surface(*(np.asarray(x)[:, None] for x in self.surface.columns()))
        size = s.A * np.exp(-s.alpha * np.log(amount_R / self.unit))
        data = s.B * np.exp(-s.beta * np.log(tokens_R))
        both = s.alpha * s.beta / (s.alpha + cost.exponent * s.beta)
        none = np.zeros_like(both)
        rates = {"size": (s.alpha, none), "tokens": (none, s.beta), "compute": (both, both)}
        return Moved(np.asarray(s.E), size, data, *map(np.asarray, (*rates[axis], s.gamma)))


@dataclass(frozen=True)
class Moved:
    """E + (first exp(-first_rate u) + second exp(-second_rate u))^gamma, [B, R] or [B, 1]."""

    E: Floats
    first: Floats
    second: Floats
    first_rate: Floats
    second_rate: Floats
    gamma: Floats

    def at(self, u_BxR: Floats | float) -> tuple[Floats, Floats]:
        """ln loss, and its slope in u."""
        first = self.first * np.exp(-self.first_rate * u_BxR)
        second = self.second * np.exp(-self.second_rate * u_BxR)
        bracket = first + second
        reducible = bracket**self.gamma
        loss = self.E + reducible
        fall = self.gamma * (self.first_rate * first + self.second_rate * second) / bracket
        return np.log(loss), -fall * reducible / loss

    def shifted(self, u_R: Floats) -> Moved:
        """With u counted from u_R."""
        return Moved(
            self.E,
            self.first * np.exp(-self.first_rate * u_R),
            self.second * np.exp(-self.second_rate * u_R),
            self.first_rate,
            self.second_rate,
            self.gamma,
        )

    def draws(self, index: slice | Ints) -> Moved:
        """Some of the draws."""
        return Moved(*(x[index] for x in vars(self).values()))


def yardstick(dense: Runs, amount_R: Floats, settings: Settings, weights_BxR: Floats) -> Yardstick:
    """Fits the dense runs, sizes counted as `amount_R`.

    Args:
      weights_BxR: how often a draw has each run of `dense`; ones in the first row.
    """
    objective = Objective(settings.objective, settings.delta)
    weights_R = law_weights(dense, objective)
    unit = float(np.exp(np.log(amount_R).mean()))
    fit = fit_surface(
        amount_R / unit, dense.tokens, dense.loss, weights_R, objective, settings.tied,
        form="gamma" if len(np.unique(dense.cell_R())) >= _LEAST_CELLS else "surface",
    )  # fmt: skip
    columns, known = [np.array([x]) for x in fit.surface.columns()], [fit.identified]
    if len(weights_BxR) > 1:
        drawn = refit(fit, weights_BxR[1:] * weights_R)
        found = (np.asarray(x) for x in drawn.surface.columns())
        columns = [np.concatenate(pair) for pair in zip(columns, found, strict=True)]
        known = [*known, *drawn.identified_B]
    return Yardstick(unit, fit, Surface(*columns), np.array(known))


def cell_weights(cells: int, draws: int, rng: np.random.Generator) -> Floats:
    """[1 + draws, cells]: how much each counts in a draw; 1 in the first row. Cells that share
    trunks count as one (`pairs.joined`).

    The Bayesian bootstrap (Rubin 1981, Annals of Statistics 9): weights of a flat Dirichlet's. Of
    pairs, draws that leave cells out scatter more than tables do, through the law's slopes.
    """
    drawn = cells * rng.dirichlet(np.ones(cells), size=draws)
    return np.concatenate([np.ones((1, cells)), drawn])


def cell_draws(cells: int, draws: int, rng: np.random.Generator) -> Floats:
    """[1 + draws, cells]: how often each was drawn, with replacement; once in the first row.

    For laws that stand by themselves, whose interval needs all of that scatter.
    """
    drawn = rng.multinomial(cells, np.full(cells, 1.0 / cells), size=draws)
    return np.concatenate([np.ones((1, cells)), drawn.astype(float)])
