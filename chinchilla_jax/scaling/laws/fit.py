"""Fits any `Law`: variable projection to start, a second-order polish of the law's own form to end.

The best and most different of many points (`starts.py`) are polished in the logs of all parameters
(`problem.py`). The surface E + A/N^alpha + B/D^beta, which is fitted thousands of times, has its
own batched engine in `scaling/fitting/separable.py`; a test holds the two to the same optimum.

Array suffixes: S starts, R rows, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws.problem import Problem, derivatives, descend
from chinchilla_jax.scaling.laws.starts import starts
from chinchilla_jax.techniques.law import Law

_SAME = 1e-7  # relative difference of objectives below which two optima are one
_FLAT = 1e-7  # singular value of the scaled Jacobian below which a direction is not determined
_MIXED = 0.01  # share of a flat direction from which a parameter is part of it
NEGLIGIBLE = 1e-6  # share of the loss below which a term counts as absent
_WIDE = 1e-3  # Huber's delta from which a smaller one is approached


@dataclass(frozen=True)
class Chosen:
    """What a law holds best of a column at a length of training (`Law.choice`)."""

    length: float
    value: float
    interval: Interval | None  # 95 %, None where an end is open or nothing was drawn


@dataclass(frozen=True)
class LawFit:
    """A fitted law; what `laws` in fits.json holds.

    Attributes:
      law: its name; formula, source: as in `Law`.
      parameters: by name, in the units of the law's source.
      interval: 95 % percentile interval of each parameter, None where an end is open or the runs
        do not determine it; empty without draws (`draws.py`).
      draws: bootstrap draws behind it; failed: those without a fit.
      objective: the minimum, in the unit of `loss` (a weighted sum over runs).
      loss: name of the objective; delta: its Huber delta where it has one.
      gradient_norm: of the objective in the logs of the parameters.
      starts_agreeing: share of the polished starts that ended in this minimum.
      runner_up: parameters of the other minima, the best first.
      rms: root mean square of ln(predicted/observed).
      runs: rows fitted.
      undetermined: parameters that the runs do not determine.
      warnings: why they do not, in sentences.
      choices: what it holds best at several lengths of training; empty for a law without such a
        choice, or whose parameters the runs do not determine.
    """

    law: str
    formula: str
    source: str
    parameters: dict[str, float]
    objective: float
    loss: str
    delta: float | None
    gradient_norm: float
    starts_agreeing: float
    runner_up: tuple[dict[str, float], ...]
    rms: float
    runs: int
    undetermined: tuple[str, ...]
    warnings: tuple[str, ...]
    interval: dict[str, Interval | None] = field(default_factory=dict)
    draws: int = 0
    failed: int = 0
    choices: tuple[Chosen, ...] = ()


def fit(
    law: Law,
    columns: Mapping[str, Floats],
    loss: Floats,
    objective: Objective | None = None,
    weights: Floats | None = None,
    count: int = 16,
    searched: int = 2048,
) -> LawFit:
    """Fits `law` to runs.

    Args:
      columns: [R] arrays by name; those in `law.columns` are used.
      loss: [R], nats per token, positive.
      objective: what is summed over runs; log-Huber with delta 1e-3 by default.
      weights: [R], what each run's term is multiplied by; 1 by default.
      count: points that are polished; searched: points of the nonlinear variables tried first.

    Raises:
      UserError: a column is missing, or there are too few runs to determine the parameters.
    """
    objective = objective or Objective()
    problem = problem_of(law, columns, loss, objective)
    weights_R = np.ones(len(loss)) if weights is None else np.asarray(weights, float)
    delta = objective.huber_delta
    with np.errstate(all="ignore"):
        begin = starts(problem, weights_R, count, searched)
        problem = problem.with_pairs(begin)
        z_SxP = polish(problem, begin, weights_R[None], delta)
        value_S = problem.objective(problem.predicted(z_SxP), weights_R, delta)
        minima = _minima(value_S)
        best = minima[0]
        z_1xP = z_SxP[best : best + 1]
        gradient = derivatives(problem, z_1xP, weights_R[None], delta, exact=False).gradient_SxP
        found = list(doubts(law, relative_slopes(problem, z_1xP)[0]))
    unit = delta if objective.loss == "least_absolute" else 1.0  # Huber(r)/delta -> |r|
    residual = np.log(problem.predicted(z_1xP)[0] / problem.loss_R)
    return LawFit(
        law=law.name,
        formula=law.formula,
        source=law.source,
        parameters=problem.named(z_SxP[best]),
        objective=float(value_S[best]) / unit,
        loss=objective.loss,
        delta=objective.named_delta,
        gradient_norm=float(np.linalg.norm(gradient)) / unit,
        starts_agreeing=float(np.mean(_same(value_S, value_S[best]))),
        runner_up=tuple(problem.named(z_SxP[i]) for i in minima[1:4]),
        rms=float(np.sqrt(np.mean(residual**2))),
        runs=len(loss),
        undetermined=tuple(dict.fromkeys(name for names, _ in found for name in names)),
        warnings=tuple(sentence for _, sentence in found),
    )


def _same(value_S: Floats, value: float) -> Bools:
    return np.asarray(value_S <= value * (1 + _SAME) + 1e-15)


def _minima(value_S: Floats) -> list[int]:
    """One start of each different objective, the lowest first."""
    found: list[int] = []
    for i in map(int, np.argsort(value_S)):
        if np.isfinite(value_S[i]) and not (found and _same(value_S, value_S[found[-1]])[i]):
            found.append(i)
    return found


def problem_of(
    law: Law, columns: Mapping[str, Floats], loss: Floats, objective: Objective
) -> Problem:
    """The law on the rows; UserError for a missing column or too few different runs."""
    missing = [name for name in law.columns if name not in columns]
    if missing:
        raise UserError(
            f"law {law.name} ({law.formula}) needs the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; the table has {', '.join(sorted(columns))}"
        )
    chosen = {name: np.asarray(columns[name], float) for name in law.columns}
    different = len(np.unique(np.stack(list(chosen.values())), axis=1).T)
    if different <= len(law.parameters):
        raise UserError(
            f"law {law.name} has {len(law.parameters)} parameters; "
            f"{different} different runs cannot determine them, "
            f"{len(law.parameters) + 1} or more can"
        )
    return Problem(law, chosen, np.asarray(loss, float), objective.on_logs)


def polish(problem: Problem, z_SxP: Floats, weights_SxR: Floats, last: float) -> Floats:
    """From starts to stationary points; a delta far below the residuals in steps of 4."""
    delta = max(last, min(_WIDE, last) if np.isinf(last) else _WIDE)
    z_SxP = descend(problem, z_SxP, weights_SxR, delta, exact=False, iterations=60)
    while True:
        z_SxP = descend(problem, z_SxP, weights_SxR, delta, exact=True, iterations=200)
        if delta <= last:
            return z_SxP
        delta = max(last, delta / 4)


def relative_slopes(problem: Problem, z_SxP: Floats) -> Floats:
    """[S, P, R]: d ln(prediction) / d ln(parameter)."""
    return np.asarray(problem.slopes(z_SxP) / problem.predicted(z_SxP)[:, None])


def doubts(law: Law, slopes_PxR: Floats) -> Iterator[tuple[list[str], str]]:
    """Parameters that rows do not determine, and why: terms that vanish, columns that do not vary.

    Args:
      slopes_PxR: `relative_slopes` of these rows.
    """
    size_P = np.abs(slopes_PxR).max(axis=1)
    for name, size in zip(law.parameters, size_P, strict=True):
        if not size >= NEGLIGIBLE:
            yield (
                [name],
                f"{law.name}: {name} does not matter on these runs; it is not determined",
            )
    kept = size_P >= NEGLIGIBLE
    scaled = (slopes_PxR[kept] / size_P[kept, None]).T
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    names = np.array(law.parameters)[kept]
    for value, direction in zip(singular, directions, strict=True):
        if value < _FLAT * singular[0]:
            mixed = [str(n) for n in names[np.abs(direction) > _MIXED * np.abs(direction).max()]]
            yield (
                mixed,
                f"{law.name}: these runs determine {', '.join(mixed)} only together; "
                "runs that vary the columns independently would separate them",
            )
