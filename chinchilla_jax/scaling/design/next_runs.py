"""Which runs to make next, and how narrow they are expected to make the forecast.

    found = next_runs("runs/quickstart", budget=2e13)
    found.params.before, found.params.expected, found.runs

`before` is what a report forecasts of these runs. The bootstrap draws of their surface, and the
error of the form of law, make the covariance by which designs are made up and `expected` is said:
`before` with its width in ln shrunk as that says. Of several designs that one is taken after which
a report is expected to know most (`expected.py`). How realised widths compare with it, and what
such a design saves against a grid and against V-optimal ones: tests/benchmarks/next_runs.py.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from chinchilla_jax.experiment import halving, results, storage
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import count, flops
from chinchilla_jax.experiment.sizes import BUDGET_TOLERANCE
from chinchilla_jax.scaling import arguments
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.design import candidates
from chinchilla_jax.scaling.design.candidates import Pool, key_of
from chinchilla_jax.scaling.design.choose import Design, after, cheapest_of, designs
from chinchilla_jax.scaling.design.ensemble import TARGETS
from chinchilla_jax.scaling.design.expected import narrowest
from chinchilla_jax.scaling.design.known import LEAST_BEYOND, Known, known_of
from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.register.runs import Sweep, checking, sweep_of
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where as picked
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

_HELPS = 0.02  # of the width of an interval, by which the runs must shrink one to be made


@dataclass(frozen=True)
class Shrunk:
    """N* or L* at the target: its 95 % interval now, and as it is expected after the runs.

    `ratio` is the expected width over that of now, in ln. Intervals are None where one end is open.
    """

    value: float
    ratio: float
    before: Interval | None

    @property
    def expected(self) -> Interval | None:
        """Of the same shape about the value as it has now."""
        if self.before is None:
            return None
        logs = (self.ratio * np.log(end / self.value) for end in self.before)
        low, high = (float(self.value * np.exp(x)) for x in logs)
        return low, high


@dataclass(frozen=True)
class NextRun:
    """Runs to make of one cell; `loss` is what each is expected to have."""

    budget: float
    params: float
    tokens: float
    flops: float  # of one
    count: int
    made: int  # runs of it that there are
    loss: float


@dataclass(frozen=True)
class NextRuns:
    """A choice; no `runs` where none that can be paid for helps, for the reason told.

    `experiment` is that of the work folder with the runs in it; None of a table.
    """

    source: str
    target: float
    budget: float
    largest: float
    form: str  # of the law that the forecast rests on
    noise: float  # standard deviation of ln loss of a run at the largest budget
    noise_source: str
    params: Shrunk
    loss: Shrunk
    runs: tuple[NextRun, ...]
    waiting: int  # cells of the plan that are not over, and counted as made
    left_out: int  # cells of the plan that a search has left out: no sweep of it makes them
    reason: str = ""
    experiment: Experiment | None = None

    @property
    def flops(self) -> float:
        """Of all runs together."""
        return sum(run.flops * run.count for run in self.runs)


class TooLittle(UserError):
    """The budget is less than the cheapest run; `found` is what is known without one."""

    def __init__(self, message: str, found: NextRuns) -> None:
        super().__init__(message)
        self.found = found


@silent()
def next_runs(
    source: Any,
    budget: float,
    target: float | None = None,
    where: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    share: float = 1.0,
) -> NextRuns:
    """The runs of at most `budget` FLOPs together that tell most of the optimum at `target`.

    Args:
      source: a work folder, whose experiment is extended, or a table of runs as `read_runs` takes
        it, or what that has read.
      target: FLOPs; ten times the largest run by default.
      where: the condition, of runs of several.
      share: of the FLOPs of the design, whose cheapest runs are named alone: one at least.
    Raises:
      UserError: as `known_of`; an argument is of another kind; hardly a draw of the fit has an
        optimum at the target; `budget` is less than the cheapest run (`TooLittle`); or the
        folder's runs are of another model than this version trains.
    """
    began = time.monotonic()
    budget = arguments.finite("budget", budget)
    target = None if target is None else arguments.positive("target", target)
    where = arguments.texts("where", where) or {}
    runs = source if isinstance(source, Runs) else read_runs(source)
    settings = settings or Settings()
    known = known_of(picked(runs, where), settings, target)
    sweep = _sweep_of(source)
    rows = [] if sweep is None else results.collect(sweep.folder)
    over = {row["run_id"]: row for row in rows if row["status"] != "missing"}
    left_out = frozenset() if sweep is None else halving.left_out(sweep.folder, sweep.cells, over)
    pool, waiting = _pool(known, sweep, budget, over.keys() | left_out)
    knowledge = known.of(pool)
    if knowledge is None:
        raise UserError(
            f"at {flops(known.target)} FLOPs these runs tell too little to say which is next; "
            "train the plan's own cells first, or ask for a nearer --target"
        )
    now_T, counted = knowledge.variance_T, (len(waiting), len(left_out))
    waiting_C = np.bincount(waiting, minlength=len(pool))
    knowledge = after(knowledge, waiting_C)
    if budget < pool.flops_C.min() * (1 - 1e-9):
        cheapest = int(pool.flops_C.argmin())
        nothing = Design(np.zeros(len(pool), np.int64), knowledge)
        raise TooLittle(
            f"--flops={flops(budget)}: the cheapest run, {count(pool.params_C[cheapest])} "
            f"parameters, takes {flops(pool.flops_C[cheapest])}",
            _told(known, pool, nothing, budget, now_T, counted, sweep),
        )
    found = designs(known, knowledge, pool, budget)
    left = min(np.sqrt(one.after.variance_T / knowledge.variance_T).min() for one in found)
    reason = ""
    if left > 1 - _HELPS:
        reason = (
            f"no run of at most {flops(budget)} FLOPs narrows the interval of N* or L* by "
            f"{100 * _HELPS:g} %: what is left is told by larger budgets"
        )
        design = Design(np.zeros(len(pool), np.int64), knowledge)
    else:
        design = narrowest(known, pool, found, waiting_C, settings, began)
        if share < 1:
            design = cheapest_of(design, knowledge, pool.flops_C, share)
    return _told(known, pool, design, budget, now_T, counted, sweep, reason)


def _told(
    known: Known,
    pool: Pool,
    design: Design,
    budget: float,
    now_T: Floats,
    counted: tuple[int, int],
    sweep: Sweep | None,
    reason: str = "",
) -> NextRuns:
    ratio_T, forecast = np.sqrt(design.after.variance_T / now_T), known.forecast()
    shrunk = {
        name: Shrunk(value, float(ratio_T[TARGETS.index(name)]), ends)
        for name, (value, ends) in forecast.items()
    }
    runs, noise = known.each.runs, known.each.noise
    largest = float(runs.flops.max())
    extends = sweep is not None and not runs.picked and len(design) > 0
    return NextRuns(
        source=runs.source,
        target=known.target,
        budget=budget,
        largest=largest,
        form=known.source.forecaster.form,
        noise=float(known.noise(np.array([largest]))[0]),
        noise_source=noise.source,
        **shrunk,
        runs=_listed(known, pool, design),
        waiting=counted[0],
        left_out=counted[1],
        reason=reason,
        experiment=_extended(sweep, pool, design) if sweep is not None and extends else None,
    )


def _sweep_of(source: Any) -> Sweep | None:
    """The work folder that a source is; None of a table."""
    if not isinstance(source, str | PurePath):
        return None
    return sweep_of(str(source), storage.path(source) / "report" / "fits.json")


def _pool(
    known: Known, sweep: Sweep | None, budget: float, settled: Collection[str]
) -> tuple[Pool, list[int]]:
    """The candidates, and which of them a plan will make anyway, each as often as it stands.

    Args:
      settled: ids of the cells that are over or will never be made.
    """
    runs, cost = known.each.runs, known.each.flops_model
    most = min(budget, known.target)
    # So that the target can still be forecast once they are made.
    below = known.target / (LEAST_BEYOND * (1 + BUDGET_TOLERANCE))
    if sweep is None:
        pool = candidates.of_table(runs, cost, most, below=below)
        return candidates.near(pool, known.surface), []
    base = checking(sweep, runs.picked, None, sweep.experiment.name, float(runs.flops.max()), 1)
    best = float(np.ravel(known.surface.optimum(max(most, float(runs.flops.max())), cost)[0])[0])
    pool = candidates.of_sweep(sweep, base, runs, most, best, below)
    pool = candidates.near(pool, known.surface)
    places = {key_of(cells[0]): c for c, cells in enumerate(pool.cells)}
    left = [
        places[key_of(cell)]
        for cell in sweep.cells
        if cell.status == "planned" and cell.run.run_id not in settled and key_of(cell) in places
    ]
    return pool, left


def _listed(known: Known, pool: Pool, design: Design) -> tuple[NextRun, ...]:
    loss_C = known.surface.loss(pool.params_C, pool.tokens_C)
    order = sorted(
        map(int, np.flatnonzero(design.count_C)),
        key=lambda c: (pool.budget_C[c], pool.params_C[c]),
    )
    return tuple(
        NextRun(
            budget=float(pool.budget_C[c]),
            params=float(pool.params_C[c]),
            tokens=float(pool.tokens_C[c]),
            flops=float(pool.flops_C[c]),
            count=int(design.count_C[c]),
            made=int(pool.made_C[c]),
            loss=float(loss_C[c]),
        )
        for c in order
    )


def _extended(sweep: Sweep, pool: Pool, design: Design) -> Experiment:
    """The experiment of the folder with the cells of the design."""
    added = pool.points(design.count_C, sweep.cells)
    return replace(sweep.experiment, points=(*sweep.experiment.points, *added))
