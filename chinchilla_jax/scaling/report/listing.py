"""What was read, as tables: every run, and every column with what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.energy import TITLES, totals
from chinchilla_jax.experiment.numbers import coefficient, count, percent, ratio
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.report.table import Rows, Table
from chinchilla_jax.scaling.table.conditions import lost_to, written
from chinchilla_jax.scaling.table.kinds import KINDS, Column
from chinchilla_jax.scaling.table.runs import Aside, Runs

LISTED = 3000  # runs; figures draw no more as points that a page can be asked about
BUDGET, CONDITION = "budget", "condition"  # what a reader switches on and off
_HEAD = (
    "run", "status", CONDITION, BUDGET, "FLOPs", "N", "D", "D/N", "steps", "learning rate", "seed",
    "loss", "surface's error", "reason",
)  # fmt: skip


def runs(
    table: Runs, fitted: Runs, residual_R: Floats | None, condition_R: Sequence[str] = ()
) -> Table:
    """All runs of the table: what went wrong or is missing first, what was never planned last.

    `residual_R` is that of the runs `fitted`; the others say which settings did better. A run's key
    is `run` and its `index_R`, as figures name it.

    Args:
      condition_R: of each run of `table`; by default what was picked for all.
    """
    misses = {} if residual_R is None else dict(zip(fitted.index_R, residual_R, strict=True))
    beaten = lost_to(table)
    wrong, rejected = (
        [run for run in table.aside if (run.status == "rejected") == never][:LISTED]
        for never in (False, True)
    )
    condition_R = condition_R or [written(table.picked)] * len(table)
    budget_G = [numbers.flops(budget) for budget in table.budget_G] + [""]  # the last of group -1
    steps, seeds = (_text_R(table, name) for name in ("steps", "seed"))
    rate_R = table.columns.get("learning_rate", np.full(len(table), np.nan))
    rows: Rows = [_aside(run) for run in wrong]
    marks = dict.fromkeys(range(len(wrong)), "aside")
    keys = [""] * len(wrong)
    for i in range(min(len(table), LISTED)):
        miss = None if i in beaten else misses.get(table.index_R[i])
        if i in beaten:
            marks[len(rows)] = "aside"
        keys.append(f"run {table.index_R[i]}")
        rows.append(
            (
                table.run_id_R[i] or f"row {table.row_R[i]}", "done", condition_R[i],
                budget_G[table.group_R[i]], numbers.flops(table.flops[i]), count(table.params[i]),
                count(table.tokens[i]), ratio(table.tokens_per_param[i]), steps[i],
                coefficient(rate_R[i], 4), seeds[i], f"{table.loss[i]:.4f}", percent(miss),
                beaten.get(i, ""),
            )
        )  # fmt: skip
    marks |= dict.fromkeys(range(len(rows), len(rows) + len(rejected)), "aside")
    rows += [_aside(run) for run in rejected]
    keys += [""] * len(rejected)
    left = len(table) + len(table.aside) - len(rows)
    note = f"{left} more rows are in the table." if left else ""
    switches = {BUDGET: BUDGET, CONDITION: CONDITION}
    return Table("All runs", _HEAD, rows, note, marks, keys, switches)


def _text_R(table: Runs, ours: str) -> Sequence[str]:
    """A column as the file writes it; empty where it has none."""
    found = table.labels.get(table.title.get(ours, ours))
    return [""] * len(table) if found is None else found.tolist()


def columns(found: Sequence[Column]) -> Table | None:
    """What each column of the file was taken for."""
    order = list(KINDS)
    rows = [
        (column.name, column.kind, column.reason, str(column.values))
        for column in sorted(found, key=lambda column: order.index(column.kind))
    ]
    note = (
        f"{'; '.join(f'{kind}: {KINDS[kind]}' for kind in KINDS)}. "
        "--kinds=COLUMN=KIND overrules; --by=COLUMN compares the values of any, a shape's too."
    )
    head = ("column", "taken for", "because", "values")
    return Table("Columns", head, rows, note) if rows else None


def energy(table: Runs) -> Table | None:
    """What the runs took, by kind, where anything is known; measured and estimated never as one."""
    names = [name for name in (*TITLES, "grams_co2e_per_kwh") if name in table.columns]
    rows = [{name: table.columns[name][i] for name in names} for i in range(len(table))]
    found = [
        (
            total.title, f"{total.runs} of {len(table)}", coefficient(total.kwh, 3),
            f"{coefficient(total.kg_co2e, 3)}"
            + f" ({total.emitting} runs)" * (total.emitting < total.runs)
            if total.emitting else "",
        )
        for total in totals(rows)
    ]  # fmt: skip
    note = (
        "Of finished runs. Accelerators are counted by themselves, without their host; a process's "
        "part of a processor and of memory goes by processor time. An estimate is the power that "
        "the maker states, for as long as the run took. CO2e where a run states "
        "execution.grams_co2e_per_kwh."
    )
    head = ("", "runs", "kWh", "kg CO2e")
    return Table("Energy", head, found, note).without_empty_columns() if found else None


def kinds_line(found: Sequence[Column]) -> str:
    """The same in one line: what decides is named, the rest counted."""
    names = {kind: [column.name for column in found if column.kind == kind] for kind in KINDS}
    parts = [
        f"{kind} {', '.join(names[kind])}"
        for kind in ("fitted", "condition", "setting", "seed")
        if names[kind]
    ]
    counted = [kind for kind in ("count", "outcome", "identifier", "constant") if names[kind]]
    parts += [f"{len(names[kind])} {kind}{'s' * (len(names[kind]) > 1)}" for kind in counted]
    return f"columns: {'; '.join(parts)} (the report lists them, --kinds=COLUMN=KIND overrules)"


def _aside(run: Aside) -> tuple[str, ...]:
    return (run.run_id or f"row {run.row}", run.status, *[""] * (len(_HEAD) - 3), run.reason)
