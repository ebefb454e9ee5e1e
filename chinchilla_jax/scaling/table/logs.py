"""Tables with a row per logged step: which rows are of one run, its curve, and its last row."""

from dataclasses import replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.columns import NamedTable, is_empty, label, numbers
from chinchilla_jax.scaling.table.cost import complete
from chinchilla_jax.scaling.table.curves import MINIMUM_POINTS, Curve, curves_of_rows

RUNS, CURVES = "runs", "curves"
ROWS = (RUNS, CURVES)  # what --rows may say a row of the table is
# Names that a run shares with others of its size: they make a log only where there are many rows.
_SHARED = ("model", "name")
# A run has one of these; rows of one name that differ in them are different runs.
_ONE_A_RUN = ("params", "seed", "budget")


def is_log(table: NamedTable, rows: str | None = None) -> bool:
    """Whether a row is a logged step and no finished run; `rows` of ROWS says so where it is known.

    Rows of one name are steps of one run where they differ in step and in nothing that a run has
    one of, and are as many as a curve has points where several runs may have that name.

    Raises:
      UserError: `rows` is "curves" and the table has no column of names, or none of steps.
    """
    if rows == RUNS:
        return False
    absent = [name for name in ("run_id", _steps(table)) if name not in table.cells]
    if absent and rows == CURVES:
        raise UserError(
            f"{table.raw.source}: --rows=curves needs a column of {' and one of '.join(absent)}"
        )
    if rows == CURVES:
        return True
    if "run_id" not in table.cells or "step" not in table.cells:
        return False
    names = list(map(str, table.cells["run_id"]))
    index: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        index.setdefault(name, []).append(i)
    several = [rows for rows in index.values() if len(rows) > 1]
    if not several:
        return False
    if table.title["run_id"] in _SHARED and np.median([*map(len, several)]) < MINIMUM_POINTS:
        return False
    for name in _ONE_A_RUN:
        cells = table.cells.get(name)
        if cells and any(len({label(cells[i]) for i in rows} - {""}) > 1 for rows in several):
            return False
    step = numbers(table, "step")
    return all(len(set(step[rows])) == len(rows) for rows in several)


def _steps(table: NamedTable) -> str:
    return "tokens" if "step" not in table.cells and "tokens" in table.cells else "step"


def ends_of(table: NamedTable) -> tuple[NamedTable, tuple[Curve, ...]]:
    """The last row of every run that has a loss, and the curves of all their rows."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(table.cells["run_id"]):
        rows.setdefault(str(name), []).append(i)
    step = numbers(table, _steps(table))
    core: dict[str, Floats] = {
        name: numbers(table, name)
        for name in ("params", "tokens", "flops", "loss", "learning_rate")
        if name in table.cells
    }
    known = complete(core)
    curves, ends = [], []
    for name, index in rows.items():
        ordered = sorted(index, key=lambda i: step[i])
        measured = [i for i in ordered if not is_empty(table.cells["loss"][i])]
        ends.append((measured or ordered)[-1])
        curves.append(curves_of_rows(name, {k: v[ordered] for k, v in known.items()}))
    said = (
        f"{len(ends)} runs of many rows each: the last row with a loss is the run's result, all "
        "its curve; --rows=runs takes every row for a run"
    )
    kept = table.keep(sorted(ends))
    kept = replace(kept, warnings=(*kept.warnings, said))
    return kept, tuple(curve for curve in curves if curve is not None)
