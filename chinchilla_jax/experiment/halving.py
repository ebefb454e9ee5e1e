"""Successive halving: which of many shapes is the best, for a part of what the full grid costs.

All candidates train at the smallest budget, the best 1/factor of them at the next, and so on; what
is left at the largest budget is picked by its loss there (Jamieson & Talwalkar 2016, arXiv
1502.07943; Li et al. 2018, arXiv 1603.06560). The grid is the experiment's own, one run of each
candidate and seed at each budget, so that the sweep of all its cells is what a search is judged by,
and makes only the runs that the search left out.

Everything follows from the results of runs that are over: a search that is stopped goes on. A work
folder says in search.json that a search is what it is for: the runs that this leaves out are not
waited for. A sweep of all cells takes it back.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import json_data, results, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.numbers import fixed, flops
from chinchilla_jax.experiment.schema import require, typed
from chinchilla_jax.experiment.tables import table
from chinchilla_jax.experiment.trunks import marginal_flops

OVER = ("done", "diverged")
LEFT_OUT = "left out"  # status of a run that a search does not make
_FILE = "search.json"  # of a work folder
Rows = Mapping[str, Mapping[str, Any]]  # of results, by run id


@dataclass(frozen=True)
class Rung:
    """A budget of the search: whoever trains there, best first as far as losses are known."""

    budget: float
    cells: tuple[tuple[Cell, ...], ...]  # of each candidate, one for each seed
    losses: tuple[float | None, ...]  # of candidates, the mean over seeds; None where one diverged
    kept: int  # candidates that go on; at the last budget one is picked

    @property
    def runs(self) -> list[Cell]:
        """All cells of the rung."""
        return [cell for cells in self.cells for cell in cells]


def candidate(run: RunConfig) -> RunConfig:
    """What the runs of one candidate share over budgets and seeds."""
    optimizer = replace(run.optimizer, learning_rate=1.0, weight_decay=0.0)
    return replace(run, run_id="candidate", budget=1.0, batch_size=1, steps=1, seed=0, needs=(),
                   optimizer=optimizer)  # fmt: skip


def ladder(cells: Sequence[Cell]) -> dict[float, dict[RunConfig, tuple[Cell, ...]]]:
    """Planned cells by budget, smallest first, and candidate.

    Raises:
      UserError: branches of trunks; one budget; runs of a budget that differ in what no search can
        tell; a candidate that lacks a run at a larger budget.
    """
    if any(cell.run.parent for cell in cells):
        raise UserError(
            "--halving: branches need their trunk, the longest run of a size, before all others; "
            "set ladder.branches=False"
        )
    found: dict[float, dict[RunConfig, tuple[Cell, ...]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.run.budget, cell.index)):
        if cell.status == "planned":
            rung = found.setdefault(cell.run.budget, {})
            rung[candidate(cell.run)] = (*rung.get(candidate(cell.run), ()), cell)
    if len(found) < 2:
        raise UserError("--halving: needs two budgets or more: each lets fewer candidates pass")
    smallest, *larger = found.values()
    for rung in found.values():
        for same in rung.values():
            seeds = [cell.run.seed for cell in same]
            if len(set(seeds)) < len(seeds):
                raise UserError(
                    f"--halving: {same[0].run.run_id} and {same[1].run.run_id} differ in more than "
                    "shape, technique and seed; vary recipe.lr_multiplier for rates"
                )
    for budget, rung in zip(list(found)[1:], larger, strict=True):
        for who, same in smallest.items():
            there = len(rung.get(who, ()))
            if there and there != len(same):
                raise UserError(
                    f"--halving: {same[0].run.run_id} has {len(same)} seeds, and {there} at "
                    f"{flops(budget)} FLOPs; give all budgets the same by vary.seed, and no "
                    "ladder.replicates_up_to"
                )
            if not there:
                raise UserError(
                    f"--halving: {same[0].run.run_id} has no run of every seed at {flops(budget)} "
                    "FLOPs; set ladder.sizes_per_budget=0 and wider limits of tokens per parameter"
                )
    return found


def search(cells: Sequence[Cell], rows: Rows, factor: float) -> list[Rung]:
    """The rungs as far as they are decided; the last has runs that are not over, or is the end.

    Args:
      rows: results of the runs that are over, by id.
      factor: of the candidates of a rung 1/factor go on, and at least one.
    Raises:
      UserError: as `ladder`, a factor of at most 1, or all candidates of a rung diverged.
    """
    if not 1 < factor < math.inf:
        raise UserError(f"--halving={factor:g}: must be above 1; 3 lets a third of them pass")
    budgets = ladder(cells)
    left = list(next(iter(budgets.values())))
    rungs: list[Rung] = []
    for budget, rung in budgets.items():
        kept = 1 if len(rungs) + 1 == len(budgets) else max(1, math.floor(len(left) / factor))
        trained = tuple(rung[who] for who in left)
        if any(cell.run.run_id not in rows for same in trained for cell in same):
            return [*rungs, Rung(budget, trained, (None,) * len(trained), kept)]
        losses = [_loss([rows[cell.run.run_id] for cell in same]) for same in trained]
        order = sorted(
            (i for i, loss in enumerate(losses) if loss is not None),
            key=lambda i: (losses[i], i),
        )
        if not order:
            raise UserError(
                f"--halving: all runs at {flops(budget)} FLOPs diverged; none is picked"
            )
        diverged = [i for i, loss in enumerate(losses) if loss is None]
        places = [*order, *diverged]
        kept = min(kept, len(order))
        rungs.append(
            Rung(budget, tuple(trained[i] for i in places), tuple(losses[i] for i in places), kept)
        )
        left = [left[i] for i in order[:kept]]
    return rungs


def _loss(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean of the seeds; None where one of them diverged."""
    losses = [row["loss"] for row in rows]
    return None if None in losses else statistics.fmean(losses)


def over(workdir: Path) -> dict[str, dict[str, Any]]:
    """Result rows of the runs that are over, by id."""
    return {row["run_id"]: row for row in results.collect(workdir) if row["status"] in OVER}


def begin(workdir: Path, cells: Sequence[Cell], factor: float) -> None:
    """Writes down that these cells are searched in a work folder."""
    names = [cell.run.run_id for cell in cells if cell.status == "planned"]
    content = json.dumps({"halving": factor, "runs": names}) + "\n"
    storage.write_text_atomic(workdir / _FILE, content)


def end(workdir: Path) -> None:
    """Takes it back: all cells are to be made."""
    storage.remove(workdir / _FILE)


def left_out(workdir: Path, cells: Sequence[Cell], rows: Rows) -> frozenset[str]:
    """Ids of the runs that the search of a work folder has decided not to make.

    Args:
      cells: of its plan; rows: results of the runs that are over, by id.
    Raises:
      UserError: what is written of the search is damaged.
    """
    if not storage.exists(workdir / _FILE):
        return frozenset()
    try:
        content = json_data.read_json(workdir / _FILE)
        names = set(typed(tuple[str, ...], content["runs"], "runs"))
        factor = typed(float, content["halving"], "halving")
        require(bool(names) and 1 < factor < math.inf, "halving", factor, "more than 1 is needed")
    except (TypeError, ValueError, LookupError, UserError):
        raise UserError(
            f"{workdir / _FILE}: says nothing of a search; remove it, or go on with --halving"
        ) from None
    searched = [cell for cell in cells if cell.run.run_id in names]
    try:
        rungs, budgets = search(searched, rows, factor), ladder(searched)
    except UserError:  # nobody goes on; or the plan has changed, and another search begins
        return frozenset()
    last = rungs[-1]
    decided = any(loss is not None for loss in last.losses)
    further = last.cells[: last.kept] if decided else last.cells
    stages = [*(rung.cells for rung in rungs), *[further] * (len(budgets) - len(rungs))]
    found = []
    for stage, rung in zip(stages, budgets.values(), strict=True):
        goes_on = {candidate(same[0].run) for same in stage}
        found += [cell for who, same in rung.items() if who not in goes_on for cell in same]
    return frozenset(cell.run.run_id for cell in found if cell.run.run_id not in rows)


def mark(workdir: Path, cells: Sequence[Cell], rows: Sequence[dict[str, Any]]) -> None:
    """Writes into the result rows of a plan which runs its search has left out.

    Raises:
      UserError: as `left_out`.
    """
    done = {row["run_id"]: row for row in rows if row["status"] in OVER}
    out = left_out(workdir, cells, done)
    for row in rows:
        if row["run_id"] in out:
            row |= {
                "status": LEFT_OUT,
                "reason": "by the search; a sweep without --halving runs it",
            }


def is_over(rungs: Sequence[Rung], cells: Sequence[Cell]) -> bool:
    """Whether the search has picked."""
    largest = max(cell.run.budget for cell in cells if cell.status == "planned")
    return rungs[-1].budget == largest and any(loss is not None for loss in rungs[-1].losses)


def text(rungs: Sequence[Rung], cells: Sequence[Cell], rows: Rows) -> str:
    """What was searched, what is picked, and, where the whole grid was trained, the regret."""
    seeds = len(rungs[0].cells[0])
    loss_of = "loss" if seeds == 1 else f"mean of {seeds} seeds"
    header = ("FLOPs", "candidates", "go on", "best", loss_of, "last to go on", loss_of)
    lines = []
    for rung in rungs:
        last = rung.kept - 1
        lines.append(
            (flops(rung.budget), str(len(rung.cells)), str(rung.kept), _name(rung, 0),
             fixed(rung.losses[0]), _name(rung, last), fixed(rung.losses[last]))
        )  # fmt: skip
    spent = sum(marginal_flops(cell.run) for rung in rungs for cell in rung.runs)
    grid = ladder(cells)[rungs[-1].budget]
    full = sum(marginal_flops(cell.run) for same in grid.values() for cell in same)
    model, loss = rungs[-1].cells[0][0].run.model, rungs[-1].losses[0]
    assert loss is not None
    said = [
        table(header, lines),
        f"picked {_name(rungs[-1], 0)}: width {model.width}, depth {model.depth}, {model.heads} "
        f"heads of {model.head_size} ({model.kv_heads} of keys and values), feed-forward "
        f"{model.ff_size}; for {flops(spent, 3)} FLOPs, {spent / full:.2f} of the {flops(full, 3)} "
        f"that all {len(grid)} take at {flops(rungs[-1].budget)}",
    ]
    if all(cell.run.run_id in rows for same in grid.values() for cell in same):
        named = {same[0].run.run_id: same for same in grid.values()}
        losses = {name: _loss([rows[c.run.run_id] for c in same]) for name, same in named.items()}
        lowest, best = min((value, name) for name, value in losses.items() if value is not None)
        said.append(
            f"of the full grid the best is {best} with {fixed(lowest)}: what is picked lies "
            f"{100 * (loss / lowest - 1):.2f} % above"
        )
        if seeds == 1 and loss > lowest:
            said[-1] += (
                f"; the lowest of {len(losses)} single runs is low by chance too: other seeds of "
                "both (--config.vary.seed) compare them"
            )
    return "\n".join(said)


def _name(rung: Rung, place: int) -> str:
    return rung.cells[place][0].run.run_id
