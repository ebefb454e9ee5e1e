"""Budgets that a table states: which column holds them, and whether they are what was spent."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.scaling.table import names
from chinchilla_jax.scaling.table.checks import could_cost
from chinchilla_jax.scaling.table.columns import NamedTable, is_empty, is_numeric, numbers
from chinchilla_jax.scaling.table.cost import complete

_APART = 3.0  # of FLOPs from their budgets in the middle row: two ways of counting differ by less
_ALONE = 1.4  # the same of one budget for all runs, which may be what they are meant to foretell
_SIZES = ("params", "tokens", "flops")


def with_budgets(table: NamedTable, columns: Mapping[str, str], kept: list[int]) -> NamedTable:
    """The table with the budgets of its `kept` rows, and with FLOPs where budgets are all it has.

    A column that `columns` does not name is one of budgets only where the runs spent about as much.
    """
    return _spent(table if "budget" in columns else _of_the_runs(table, kept), kept)


def _of_the_runs(table: NamedTable, kept: list[int]) -> NamedTable:
    """Without budgets that are none: a number of a profile, a label, what a forecast is for."""
    if "budget" not in table.cells or sum(name in table.cells for name in _SIZES) < 2:
        return table
    chosen = table.title["budget"], table.scale.get("budget", 1.0)
    usual = names.usual("budget", list(table.raw.columns))
    said: list[str] = []
    for name, factor in (chosen, *(one for one in usual if one[0] != chosen[0])):
        cells = table.cells["budget"] if name == chosen[0] else table.raw.columns[name]
        found = replace(
            table,
            cells=table.cells | {"budget": cells},
            title=table.title | {"budget": name},
            scale=table.scale | {"budget": factor},
            warnings=(*table.warnings, *said),
        )
        wrong = _wrong(found, kept)
        if not wrong:
            return found if said else table
        said.append(f"column '{name}' is not taken for budgets: {wrong}")
    return replace(
        table,
        cells={name: cells for name, cells in table.cells.items() if name != "budget"},
        title={ours: theirs for ours, theirs in table.title.items() if ours != "budget"},
        scale={ours: factor for ours, factor in table.scale.items() if ours != "budget"},
        warnings=(*table.warnings, *said),
    )


def _wrong(table: NamedTable, kept: list[int]) -> str:
    """Why the budgets of a table are none of its runs'; "" where they are."""
    cells = [table.cells["budget"][i] for i in kept]
    if not is_numeric(cells):
        full = [cell for cell in cells if not is_empty(cell)]
        odd = next((cell for cell in full if not is_numeric([cell])), None)
        return "" if odd is None else f"{odd!r:.60} is no number"
    core = {name: numbers(table, name, kept)[kept] for name in _SIZES if name in table.cells}
    budget_R = numbers(table, "budget", kept)[kept]
    ratio_R = complete(core)["flops"] / budget_R
    ratio_R = ratio_R[~np.isnan(ratio_R)]
    apart = float(np.median(np.abs(np.log(ratio_R)))) if len(ratio_R) else 0.0
    most = _APART if len(np.unique(budget_R[~np.isnan(budget_R)])) > 1 else _ALONE
    if apart <= np.log(most):
        return ""
    return (
        f"the middle run spent {np.median(ratio_R):.2g} times as much; "
        f"--columns={items(['budget=' + table.title['budget']])} takes it for them"
    )


def _spent(table: NamedTable, kept: list[int]) -> NamedTable:
    """Without a column of FLOPs a stated budget is what was spent, where it can be."""
    if "flops" in table.cells or "budget" not in table.cells:
        return table
    spent = numbers(table, "budget", kept)[kept]
    if np.any(np.isnan(spent)):
        return table
    if "params" in table.cells and "tokens" in table.cells:
        params, tokens = (numbers(table, name, kept)[kept] for name in ("params", "tokens"))
        if not could_cost(params, tokens, spent):
            return table
    title = table.title["budget"]
    return replace(
        table,
        cells=table.cells | {"flops": table.cells["budget"]},
        title=table.title | {"flops": title},
        scale=table.scale | {"flops": table.scale.get("budget", 1.0)},
        warnings=(
            *table.warnings,
            f"the table has no flops: those of '{title}' are taken as spent; --columns=budget=none "
            "counts 6 params tokens",
        ),
    )
