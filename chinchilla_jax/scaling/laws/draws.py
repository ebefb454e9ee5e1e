"""Bootstrap draws of a law over runs, all of them fitted at once (Efron 1979; percentiles).

Every draw starts at the table's own optimum, and at its other minima where it has some. A draw
whose runs do not determine a parameter has no value of it, so that an interval with an open end is
refused (`fitting/intervals.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.fitting.chance import resampled_of
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws.fit import (
    NEGLIGIBLE,
    Chosen,
    LawFit,
    doubts,
    polish,
    problem_of,
    relative_slopes,
)
from chinchilla_jax.scaling.laws.problem import Problem
from chinchilla_jax.techniques.law import Law

_PIECE = 20_000  # draws x rows that are fitted at a time
LENGTHS = (1.0, 2.0, 4.0, 10.0, 100.0)  # of training, at which choices are told
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class LawDraws:
    """Parameters by name, [B] draws; NaN where a draw's runs do not determine one.

    `failed` draws have no fit at all; they are NaN throughout.
    """

    parameters: dict[str, Floats]
    failed: int

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))


def law_draws(
    law: Law,
    columns: Mapping[str, Floats],
    loss: Floats,
    fitted: LawFit,
    objective: Objective,
    weights: Floats | None,
    draws: int,
    rng: np.random.Generator,
    trunk_R: Ints | None = None,
) -> LawDraws:
    """Refits `law` to `draws` resamples of its runs, or of trunks with all their runs.

    Args:
      columns, loss, objective, weights: as they were given to `fit`, which gave `fitted`.
    """
    weights_R = np.ones(len(loss)) if weights is None else np.asarray(weights, float)
    weights_BxR = resampled_of(weights_R > 0, trunk_R, draws, rng) * weights_R
    problem, z_BxP = refits(law, columns, loss, fitted, objective, weights_BxR)
    known_BxP = np.stack(
        [
            _determined(problem, z_P, weights_R > 0)
            for z_P, weights_R in zip(z_BxP, weights_BxR, strict=True)
        ]
    )
    values_BxP = np.where(known_BxP, np.exp(z_BxP), np.nan)
    failed = int(np.isnan(values_BxP).all(axis=1).sum())
    return LawDraws(dict(zip(law.parameters, values_BxP.T, strict=True)), failed)


def refits(
    law: Law,
    columns: Mapping[str, Floats],
    loss: Floats,
    fitted: LawFit,
    objective: Objective,
    weights_BxR: Floats,
) -> tuple[Problem, Floats]:
    """The problem, and ln of the parameters under each row of weights, [B, P].

    Parameters that a row of weights does not determine have some value here, as good as another.
    """
    begin_SxP = np.log(
        [
            [found[name] for name in law.parameters]
            for found in (fitted.parameters, *fitted.runner_up)
        ]
    )
    problem = problem_of(law, columns, loss, objective).with_pairs(begin_SxP)
    # Least absolute residuals need no corner to the last digit here: as for surfaces.
    delta = objective.huber_delta
    if objective.loss == "least_absolute":
        delta = max(delta, 0.02 * fitted.rms)
    step = max(1, _PIECE // len(loss))

    def solve(begin: int) -> Floats:
        with np.errstate(all="ignore"):
            return _refit(problem, begin_SxP, weights_BxR[begin : begin + step], delta)

    with ThreadPoolExecutor(_THREADS) as pool:  # NumPy leaves the interpreter lock
        found = list(pool.map(solve, range(0, len(weights_BxR), step)))
    return problem, np.concatenate(found)


def with_intervals(fitted: LawFit, draws: LawDraws) -> LawFit:
    """The fit with what its draws say of each parameter."""
    found = {name: interval(values) for name, values in draws.parameters.items()}
    return replace(fitted, interval=found, draws=len(draws), failed=draws.failed)


def with_choices(law: Law, fitted: LawFit, draws: LawDraws | None) -> LawFit:
    """The fit with what its law holds best at each of LENGTHS."""
    if law.choice is None or fitted.undetermined:
        return fitted
    length_K = np.array(LENGTHS)
    parameters = {name: np.asarray(value) for name, value in fitted.parameters.items()}
    value_K = law.choice.best(parameters, length_K)
    spread: list[Interval | None] = [None] * len(length_K)
    if draws is not None:
        drawn = {name: values[:, None] for name, values in draws.parameters.items()}
        spread = [interval(values) for values in law.choice.best(drawn, length_K).T]
    found = zip(LENGTHS, value_K.tolist(), spread, strict=True)
    return replace(fitted, choices=tuple(Chosen(*row) for row in found))


def _refit(problem: Problem, begin_SxP: Floats, weights_BxR: Floats, delta: float) -> Floats:
    """ln of the parameters of each draw, [B, P]: the best of all starts."""
    draws = len(weights_BxR)
    best_B, best_BxP = np.full(draws, np.inf), np.full((draws, begin_SxP.shape[1]), np.nan)
    for begin_P in begin_SxP:
        z_BxP = polish(problem, np.tile(begin_P, (draws, 1)), weights_BxR, delta)
        value_B = problem.objective(problem.predicted(z_BxP), weights_BxR, delta)
        wins = value_B < best_B
        best_B, best_BxP = np.where(wins, value_B, best_B), np.where(wins[:, None], z_BxP, best_BxP)
    return best_BxP


def _determined(problem: Problem, z_P: Floats, used_R: Bools) -> Bools:
    """[P]: whether a draw gives each parameter a value."""
    law = problem.law
    rows = np.stack([column[used_R] for column in problem.columns.values()])
    if len(np.unique(rows, axis=1).T) <= len(law.parameters) or not np.all(np.isfinite(z_P)):
        return np.zeros(len(z_P), bool)
    slopes_PxR = relative_slopes(problem, z_P[None])[0][:, used_R]
    lacking = {name for names, _ in doubts(law, slopes_PxR) for name in names}
    zero_P = np.exp(z_P) < NEGLIGIBLE * problem.loss_R.min()  # a value that it can have
    return np.asarray(zero_P | [name not in lacking for name in law.parameters])
