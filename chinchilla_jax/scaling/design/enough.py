"""The smallest grid whose forecast is expected to be narrow enough.

Grids are the first budgets of a ladder, some sizes of each and some seeds. Cheapest first, each is
made up on the law with its noise, several times, and evaluated as `evaluate` does: the median of
the intervals that it would state is what is expected of it. Grids of which even chance alone, by
the linearised surface, leaves more than is asked are not made up.

Array suffix: R runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from chinchilla_jax.experiment import grid, storage
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import flops
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.design.ensemble import TARGETS
from chinchilla_jax.scaling.design.known import BEYOND, known_of
from chinchilla_jax.scaling.design.linear import linear
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.register.runs import sweep_of
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where as picked
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.read import read_runs

_LEAST_BUDGETS = 3
_SIZES, _SEEDS = (4, 5, 6, 7, 8), (1, 2, 3)
_REPEATS = 5  # of each grid, made up anew
_MOST_TRIED = 8
_MOST_NOISE = 0.2  # beyond it a percentage is meant
_DRAWS = Settings(bootstrap=200)
_95 = 2 * 1.96

Columns = Mapping[str, Floats]
"""params, tokens, flops and budget of runs, each [R]."""


@dataclass(frozen=True)
class Ladder:
    """A grid: its first budgets, sizes of each and seeds of each size.

    `width` is the upper end of N*'s 95 % interval over the lower, as it is expected, and
    `loss_width` that of L*; None where the grid was not made up.
    """

    budgets: tuple[float, ...]
    sizes: int
    seeds: int
    runs: int
    flops: float
    width: float | None = None
    loss_width: float | None = None


@dataclass(frozen=True)
class Enough:
    """The smallest grid that is wide enough, None where none is, and those that were tried."""

    target: float
    asked: float
    noise: float
    found: Ladder | None
    tried: tuple[Ladder, ...]
    untried: int = 0  # dearer grids that chance alone would allow


def enough_for(
    width: float,
    target: float | None = None,
    source: Any = None,
    experiment: Experiment | None = None,
    law: str = "",
    noise: float | None = None,
    where: Mapping[str, str] | None = None,
) -> Enough:
    """`enough` by the surface and the noise of runs, or by a published law.

    Args:
      source: a work folder, whose experiment it is where none is given, or a table of runs.
      law: by name; noise: standard deviation of ln loss, by default what the runs show.
      where: the condition, of runs of several.
    Raises:
      UserError: as `enough`; both or neither of `source` and `law`; a law that is no surface, or
        has no `noise` beside it; a noise that is a percentage; a condition of a law; no experiment.
    """
    if bool(source) == bool(law):
        raise UserError("--enough: give --runs, whose law and noise count, or --law and --noise")
    if noise is not None and not noise <= _MOST_NOISE:
        raise UserError(
            f"--noise={noise:g}: is a fraction of loss, at most {_MOST_NOISE:g}; 1 % is 0.01"
        )
    if law and where:
        raise UserError("--where: picks runs of --runs; a --law has none")
    surface: Surface | None
    if law:
        surface = law_named(law).surface
        if surface is None or noise is None:
            lacks = "is no surface" if surface is None else "has no noise; give --noise, as 0.01"
            raise UserError(f"--law={law}: {lacks}")
    else:
        known = known_of(picked(read_runs(source), where or {}), _DRAWS)
        surface, sweep = known.surface, None
        if isinstance(source, str | PurePath):
            sweep = sweep_of(str(source), storage.path(source))
        if noise is None:
            noise = float(known.noise(np.array([known.source.largest]))[0])
        experiment = experiment or (None if sweep is None else sweep.experiment)
    if experiment is None:
        raise UserError("--enough: give --config, whose ladder it is; nothing else tells one")
    return enough(experiment, surface, noise, width, target)


@silent()
def enough(
    experiment: Experiment,
    surface: Surface,
    noise: float,
    width: float,
    target: float | None = None,
) -> Enough:
    """The cheapest grid of an experiment's ladder that is expected to meet a width.

    Args:
      surface: whose losses its runs are expected to have; noise: standard deviation of ln loss.
      width: of N*'s 95 % interval at the target, upper end over lower.
      target: FLOPs; ten times the largest budget of the experiment by default.
    Raises:
      UserError: a width not over 1, fewer than three budgets, or a target within them.
    """
    if not 1 < width < np.inf:
        raise UserError(f"--enough={width:g}: upper end of the interval over the lower, as 1.5")
    budgets = tuple(sorted(experiment.budgets))
    if len(budgets) < _LEAST_BUDGETS:
        raise UserError(f"--enough: {len(budgets)} budgets; a grid of three or more is needed")
    target = BEYOND * budgets[-1] if target is None else target
    if target <= budgets[-1]:
        raise UserError(
            f"--target={flops(target)}: the grid goes up to {flops(budgets[-1])} FLOPs, and what "
            "lies within it is measured, not forecast; give a larger one"
        )
    tried: list[Ladder] = []
    untried = 0
    for ladder, cells in _ladders(experiment, budgets):
        cost = FlopsModel.of(cells["params"], cells["tokens"], cells["flops"])
        least = _chance(surface, cost, cells, noise, target)
        if np.exp(_95 * least) > width:
            continue
        if len(tried) == _MOST_TRIED:
            untried += 1
            continue
        wide = _expected(surface, cells, noise, target)
        tried.append(replace(ladder, width=wide[0], loss_width=wide[1]))
        if wide[0] <= width:
            return Enough(target, width, noise, tried[-1], tuple(tried))
    return Enough(target, width, noise, None, tuple(tried), untried)


def _ladders(experiment: Experiment, budgets: Sequence[float]) -> Iterator[tuple[Ladder, Columns]]:
    """Grids of separate runs with their cells, the cheapest first."""
    found: list[tuple[Ladder, Columns]] = []
    known = set()
    for sizes in _SIZES:
        base = replace(
            experiment, budgets=tuple(budgets), vary={}, panel={}, points=(),
            ladder=replace(
                experiment.ladder, sizes_per_budget=(sizes,), replicates_up_to=(), branches=False
            ),
        )  # fmt: skip
        cells = [cell for cell in grid.plan(base) if cell.status == "planned"]
        for count, seeds in itertools.product(range(_LEAST_BUDGETS, len(budgets) + 1), _SEEDS):
            part = [c for c in cells if c.run.budget in budgets[:count]]
            if (key := (count, seeds, len(part))) in known:  # the ladder has no more sizes
                continue
            known.add(key)
            columns = {
                "params": np.repeat([float(c.params) for c in part], seeds),
                "tokens": np.repeat([float(c.tokens) for c in part], seeds),
                "flops": np.repeat([float(c.flops) for c in part], seeds),
                "budget": np.repeat([c.run.budget for c in part], seeds),
                "seed": np.tile(np.arange(float(seeds)), len(part)),
            }
            spent = float(columns["flops"].sum())
            runs = len(part) * seeds
            found.append((Ladder(tuple(budgets[:count]), sizes, seeds, runs, spent), columns))
    return iter(sorted(found, key=lambda item: item[0].flops))


def _chance(
    surface: Surface, cost: FlopsModel, cells: Columns, noise: float, target: float
) -> float:
    """Standard error of ln N* by the linearised surface."""
    at = cells["params"], cells["tokens"]
    slopes = linear(surface, *at)
    told, wanted = slopes.losses(*at), slopes.targets(cost, target)[TARGETS.index("params")]
    return float(noise * np.sqrt(wanted @ np.linalg.pinv(told.T @ told) @ wanted))


def _expected(surface: Surface, cells: Columns, noise: float, target: float) -> tuple[float, float]:
    """Medians of the widths that reports of made-up losses state; infinite where one is open."""
    widths: list[list[float]] = []
    for repeat in range(_REPEATS):
        random = np.random.default_rng(repeat)
        scatter = np.exp(noise * random.standard_normal(len(cells["params"])))
        loss = surface.loss(cells["params"], cells["tokens"]) * scatter
        try:
            known = known_of(read_runs({**cells, "loss": loss}), _DRAWS, target)
        except UserError:  # no surface, as of a report: it states nothing
            widths.append([np.inf, np.inf])
            continue
        widths.append([e[1] / e[0] if e else np.inf for _, e in known.forecast().values()])
    first, second = (float(x) for x in np.median(np.array(widths), axis=0))
    return first, second
