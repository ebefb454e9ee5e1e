"""Until a forecast is narrow enough: train, evaluate, choose, and again.

The plan and its runs are the only state. So whatever ends the process, the same call goes on: it
first makes what the plan has and lacks, then evaluates all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.numbers import count, flops
from chinchilla_jax.experiment.plans import has_plan, read_plan
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.sizes import BUDGET_TOLERANCE
from chinchilla_jax.experiment.trunks import marginal_flops
from chinchilla_jax.scaling.design.known import BEYOND, must_be_beyond
from chinchilla_jax.scaling.design.next_runs import NextRuns, TooLittle, next_runs
from chinchilla_jax.scaling.settings import Settings

_SHARE = 0.5  # of a design's FLOPs, the cheaper runs: what they tell may change the rest

ENOUGH, SPENT = 0, 1  # exit statuses


@dataclass(frozen=True)
class Goal:
    """When to end.

    Attributes:
      width: the upper end of N*'s 95 % interval at the target over its lower one.
      flops: of all runs of the work folder together, at most.
      target: FLOPs; by default ten times the largest budget of the grid.
    """

    width: float
    flops: float
    target: float | None = None

    def __post_init__(self) -> None:
        if not 1 < self.width < np.inf:
            raise UserError(
                f"--until={self.width:g}: is the upper end of the interval of N* over the lower "
                "one, a number over 1, as 1.5"
            )


def until(
    asked: Experiment | None,
    workdir: Path,
    goal: Goal,
    train: Callable[[Experiment], int],
    tell: Callable[[str], None] = print,
    settings: Settings | None = None,
) -> int:
    """Trains and chooses until the interval of N* is narrow enough or the FLOPs are spent.

    Args:
      asked: the grid to begin with; None to go on with the plan that is there.
      train: makes the runs of an experiment that are not over; its exit status.
    Returns:
      0 the interval is narrow enough; 1 no FLOPs are left that would narrow it, or as `train`.
    Raises:
      UserError: as `next_runs` and `train`, no plan and none asked for, or runs to begin with that
        take more than the goal's FLOPs or reach its target, of which none is made.
    """
    experiment = _begun(asked, workdir)
    target = BEYOND * max(experiment.budgets) if goal.target is None else goal.target
    _must_suit(experiment, workdir, goal, target)
    while True:
        if status := train(experiment):
            return status
        cells = read_plan(workdir)[1]
        spent = sum(marginal_flops(cell.run) for cell in cells if cell.status == "planned")
        try:
            found = next_runs(workdir, goal.flops - spent, target, settings=settings, share=_SHARE)
        except TooLittle as little:
            tell(f"{_stands(little.found, spent, goal)}; no run can be paid for any more")
            return ENOUGH if _narrow(little.found, goal) else SPENT
        said = _stands(found, spent, goal)
        if _narrow(found, goal):
            tell(f"{said}: enough")
            return ENOUGH
        if found.experiment is None:
            tell(f"{said}; {found.reason}")
            return SPENT
        number = sum(run.count for run in found.runs)
        tell(f"{said}; next: {number} run{'s' * (number > 1)}, {flops(found.flops)} FLOPs")
        experiment = found.experiment


def _begun(asked: Experiment | None, workdir: Path) -> Experiment:
    """The grid that is asked for, with the runs that were chosen for it before."""
    if not has_plan(workdir):
        if asked is None:
            raise UserError(f"--config: is missing, and {workdir} has no plan to go on with")
        return asked
    there = read_plan(workdir)[0]
    if asked is None:
        return there
    further = tuple(point for point in there.points if point not in asked.points)
    return replace(asked, points=(*asked.points, *further))


def _must_suit(experiment: Experiment, workdir: Path, goal: Goal, target: float) -> None:
    """Raises UserError where the runs to begin with reach the target, or take too many FLOPs."""
    cells = [cell for cell in plan(experiment) if cell.status == "planned"]
    must_be_beyond(target, max((cell.flops for cell in cells), default=0.0))
    runs = [cell.run for cell in cells]
    total = sum(map(marginal_flops, runs))
    left = (run for run in runs if run_directory(workdir, run.run_id).result() is None)
    if total > (1 + BUDGET_TOLERANCE) * goal.flops and any(left):
        raise UserError(
            f"--flops={flops(goal.flops)}: the {len(runs)} runs to begin with take {flops(total)} "
            "by themselves; give more than that, or a smaller grid"
        )


def _narrow(found: NextRuns, goal: Goal) -> bool:
    ends = found.params.before
    return ends is not None and ends[1] / ends[0] <= goal.width


def _stands(found: NextRuns, spent: float, goal: Goal) -> str:
    """How wide the interval is, and what was spent."""
    ends = found.params.before
    wide = "open"
    if ends is not None:
        wide = f"{count(ends[0])} to {count(ends[1])}, {ends[1] / ends[0]:.3g} x"
    return (
        f"N* at {flops(found.target)} FLOPs: {wide} ({goal.width:g} x asked); {flops(spent)} of "
        f"{flops(goal.flops)} FLOPs spent"
    )
