"""The runs at a forecast's budget in any table, of a forecast that rests on a table.

Its rows bear no digest. What can be told is checked: that these are other runs than those behind
the forecast, counted as they were. What cannot be told is a note of the verdict.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import flops, percentage
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fits import RunTable
from chinchilla_jax.scaling.register.metric import must_be_likely, of_loss, settled
from chinchilla_jax.scaling.register.registration import Basis, Predicted, Registration
from chinchilla_jax.scaling.register.verdict import Point, RunOutcome, Verdict, concluded, outcome
from chinchilla_jax.scaling.table.conditions import conditions, restricted, written
from chinchilla_jax.scaling.table.conditions import where as picked
from chinchilla_jax.scaling.table.conventions import FLOPS, PARAMS, under
from chinchilla_jax.scaling.table.kinds import ASKED, OURS
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

WITHIN = 0.05  # of the registered FLOPs: such runs are of that budget
_SAME_COUNT = 0.1  # by which FLOPs / (params x tokens) may differ from the forecast's
_NEAR = 1.5  # factor from N* to the size that stands for it: of sizes that double one is nearer
_EDGE = 1.05  # beyond the registered sizes a run is still forecast as they are
_SHOWN = 6
_TRUSTED = (
    "the runs stand in a table and bear no digest: that the forecast is older than they are, and "
    "that their corpus, recipe and evaluation are those of the runs behind it, is taken on trust"
)


def columns_of(table: RunTable) -> tuple[dict[str, str], dict[str, str]]:
    """A table's names of what is fitted with their factors, and the kinds that a person said."""
    names = {
        column.reason.removeprefix(OURS): column.name
        for column in table.columns
        if column.kind == "fitted" and column.reason.startswith(OURS)
    }
    fitted = {
        ours: f"{table.scale[ours]!r}*{name}" if ours in table.scale else name
        for ours, name in names.items()
    }
    return fitted, {one.name: one.kind for one in table.columns if one.reason == ASKED}


def file_digest(place: Path) -> str:
    """Of a table's file; "" where it is none."""
    return hashlib.sha256(storage.read_bytes(place)).hexdigest() if place.is_file() else ""


def at_budget(runs: Runs, budget: float) -> Runs | None:
    """The runs whose FLOPs lie within 5 % of `budget`, as if the table held no others."""
    near_R = np.abs(np.log(runs.flops / budget)) <= math.log1p(WITHIN)
    return restricted(runs, near_R, {}) if near_R.any() else None


def read(
    place: Path,
    basis: Basis,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
) -> Runs:
    """A table's runs, read, picked and counted as those behind a forecast were.

    Args:
      columns, where: further ones, as of `evaluate`; they go before the registered ones.
    Raises:
      UserError: the table cannot be read so.
    """
    names = {**(basis.columns or {}), **(columns or {})}
    of = f"the forecast is of runs of {basis.source}"
    try:
        runs = read_runs(place, names, basis.kinds)
    except UserError as error:
        if "no column" not in str(error):
            raise
        raise UserError(
            f"{error}; it is read as {basis.source} was: --columns=OURS=THEIRS names another column"
        ) from None
    condition = {**basis.condition, **(where or {})}
    try:
        runs = picked(runs, condition)
    except UserError as error:
        only = f"; {of} with {written(basis.condition)}" if basis.condition else ""
        raise UserError(f"{place}: {error}{only}") from None
    params, cost = basis.params_convention, basis.flops_convention
    counts = runs.params_convention, runs.flops_convention
    if counts == (params, cost):
        return runs
    if (params not in PARAMS and counts[0] != params) or (cost not in FLOPS and counts[1] != cost):
        raise UserError(
            f"{place}: counts parameters as '{counts[0]}' and FLOPs as '{counts[1]}', and {of}, "
            f"counted as '{params}' and '{cost}'; give a table that counts so"
        )
    return under(
        runs, params if params in PARAMS else "total", cost if cost in FLOPS else "as_given"
    )


@silent()
def judged(
    registration: Registration,
    place: Path,
    file: Path | str = "",
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict on a forecast by the rows of a table.

    Args:
      file: the forecast's, for messages; columns, where: as of `read`.
    Raises:
      UserError: the table is the one that the forecast rests on, is counted otherwise, has no run
        of the budget or too few to judge anything by.
    """
    file, basis = file or registration.name, registration.basis
    if basis.digest and file_digest(place) == basis.digest:
        raise UserError(
            f"{place}: is the very table that {file} rests on; give one with runs of "
            f"{flops(registration.flops)} FLOPs that were trained since"
        )
    table = read(place, basis, columns, where)
    runs = _of_the_budget(table, registration, place, file)
    points = [
        Point(*map(float, one)) for one in zip(runs.params, runs.tokens, runs.loss, strict=True)
    ]
    outcomes = _outcomes(runs, registration)
    best = registration.params.value
    nearest = min((one.params for one in points), key=lambda size: abs(math.log(size / best)))
    chosen = nearest if abs(math.log(nearest / best)) <= math.log(_NEAR) else best
    notes = [_TRUSTED, of_loss(table, basis, columns or {}, place, file)]
    if not settled(columns or {}):
        least = (min(one.loss for one in points), registration.loss.value)
        of_runs = [(float(one.measured or 0), one.predicted) for one in outcomes]
        must_be_likely(of_runs or [least], table.title.get("loss", "loss"), place, file)
    if beyond := len(points) - len(outcomes):
        notes.append(
            f"{beyond} of {len(points)} runs of the budget are of sizes whose loss was not "
            "forecast, and serve the minimum alone"
        )
    if table.aside:
        left = Counter(one.status for one in table.aside)
        why = ", ".join(f"{number} {status}" for status, number in left.items())
        notes.append(f"{len(table.aside)} rows of {place} are left out: {why}")
    return concluded(registration, points, outcomes, chosen, measured(runs), notes, str(place))


def measured(runs: Runs) -> list[tuple[str, float]]:
    """Run and loss of each."""
    return [(name, float(x)) for name, x in zip(runs.run_id_R, runs.loss, strict=True)]


def _of_the_budget(runs: Runs, registration: Registration, place: Path, file: Path | str) -> Runs:
    """The runs that check a forecast: of its budget, new, of one condition, counted as it was."""
    budget, basis = registration.flops, registration.basis
    here = at_budget(runs, budget)
    if here is None:
        raise UserError(
            f"{place}: no run has FLOPs within {percentage(WITHIN)} of the {flops(budget)} that "
            f"{file} is of ({_budgets(runs)})"
        )
    if here.flops.min() <= basis.largest * (1 + 1e-9):
        raise UserError(
            f"{place}: row {here.row_R[here.flops.argmin()]} has {flops(float(here.flops.min()))} "
            f"FLOPs, and {file} rests on runs up to {flops(basis.largest)}: they are no check of it"
        )
    several = conditions(here)
    if len(several) > 1:
        most = max(several, key=lambda one: len(one.runs))
        raise UserError(
            f"{place}: its runs of {flops(budget)} FLOPs are of {len(several)} conditions; pick "
            f"one, as --where={written(most.values, ',')}"
        )
    ratio = float(np.exp(np.median(np.log(here.flops / here.params / here.tokens))))
    wanted = budget / registration.params.value / registration.tokens.value
    if abs(math.log(ratio / wanted)) > math.log1p(_SAME_COUNT):
        raise UserError(
            f"{place}: FLOPs / (params x tokens) is {ratio:.3g} in the median run of the budget, "
            f"and {wanted:.3g} in {file}: it counts otherwise; see --columns, or give a table that "
            f"counts as {basis.source}"
        )
    return here.best()


def _budgets(runs: Runs) -> str:
    """What a message says of the budgets of a table."""
    found = [flops(float(budget)) for budget in runs.budget_G]
    if not found:
        return f"its runs have {flops(float(runs.flops.min()))} to {flops(float(runs.flops.max()))}"
    more = f" and {len(found) - _SHOWN} smaller" if len(found) > _SHOWN else ""
    return f"its budgets are {', '.join(found[-_SHOWN:])}{more}"


def _outcomes(runs: Runs, registration: Registration) -> list[RunOutcome]:
    """The runs whose loss was forecast."""
    seed_R = runs.columns.get("seed", np.zeros(len(runs)))
    found = []
    for i, params in enumerate(map(float, runs.params)):
        expected = _expected(registration, params)
        if expected is None:
            continue
        one = outcome("run", expected, float(runs.loss[i]))
        seed = int(seed_R[i]) if np.isfinite(seed_R[i]) else 0
        size = params / registration.params.value
        found.append(
            RunOutcome(**vars(one), run_id=runs.run_id_R[i], size=size, params=params, seed=seed)
        )
    return found


def _expected(registration: Registration, params: float) -> Predicted | None:
    """Where a run of the budget was to fall: between the registered sizes, by straight lines in ln.

    Sizes are sqrt 2 apart, so that a line misses the curve by less than 1e-3. None beyond them.
    """
    known = sorted((run.params, run.loss) for run in registration.runs if run.loss is not None)
    if len(known) < 2 or not known[0][0] / _EDGE <= params <= known[-1][0] * _EDGE:
        return None
    at = np.log([size for size, _ in known])

    def between(values: list[float]) -> float:
        return float(np.exp(np.interp(math.log(params), at, np.log(values))))

    middle = Predicted(between([one.value for _, one in known]), None)
    ends = [one.interval for _, one in known if one.interval is not None]
    if len(ends) < len(known):
        return middle
    return replace(middle, interval=(between([a for a, _ in ends]), between([b for _, b in ends])))
