"""Any table of training runs to columns of float64, with every doubt said.

`read_runs` accepts a CSV, TSV, JSONL, JSON or Parquet file, or a sweep's folder. A cell that cannot
be what its column says is a UserError with file, row and column. A run that did not finish, or has
no finite loss, is kept aside with its reason and never fitted. Doubts that leave the numbers usable
are warnings that travel with the table into the report.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from chinchilla_jax import techniques
from chinchilla_jax.experiment import plans, results
from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.rows import columns as columns_of
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.table import logs
from chinchilla_jax.scaling.table.cells import budgets
from chinchilla_jax.scaling.table.checks import check_units, doubts
from chinchilla_jax.scaling.table.columns import (
    NamedTable,
    is_empty,
    labels,
    named,
    numbers,
    numbers_or_none,
    one_spelling,
    text_among_numbers,
    texts,
)
from chinchilla_jax.scaling.table.conditions import by_column
from chinchilla_jax.scaling.table.conventions import PARAMS
from chinchilla_jax.scaling.table.cost import complete, of_teacher
from chinchilla_jax.scaling.table.curves import curves_of_sweep
from chinchilla_jax.scaling.table.derived import with_derived
from chinchilla_jax.scaling.table.finished import unfinished
from chinchilla_jax.scaling.table.folders import is_sweep, read_file, read_folder
from chinchilla_jax.scaling.table.kinds import Column, Labels, Sizes, kinds_of
from chinchilla_jax.scaling.table.names import ALIASES, NONE
from chinchilla_jax.scaling.table.readers import Cell, Raw, in_memory, read_raw
from chinchilla_jax.scaling.table.runs import Aside, Runs
from chinchilla_jax.scaling.table.stated import with_budgets
from chinchilla_jax.scaling.table.tasks import parts, with_tasks

_FITTED = ("params", "tokens", "flops")
_CORE = (*_FITTED, "loss")
_TEXT = ("run_id", "status", "reason", "experiment", "flops_convention", "definition")
_POSITIVE = (
    *_CORE, "budget", "learning_rate", "weight", "unique_tokens", "params_total",
    "params_non_embedding", "params_matmul", "flops_matmul", "flops_chinchilla", "flops_six_nd",
)  # fmt: skip
_NUMBERS = {*ALIASES, *_POSITIVE} - {"seed", "step"}  # seeds may be names, steps are a log's
# What --columns can name: what is read by name, here, by a convention of counting, or by a law.
_OURS = tuple(
    dict.fromkeys(
        (
            *ALIASES, *_TEXT, *_POSITIVE, *(f"params_{name}" for name in PARAMS),
            "params_embedding", "vocab_size", "batch", "batch_tokens", "sequence", "weight_decay",
            *(n for law in techniques.laws() for n in law.columns),
        )
    )
)  # fmt: skip
_MOST = 1e100  # of a loss or a count, and 1/_MOST the least: beyond, arithmetic itself ends
_OUR_STATUSES = {"diverged", "missing", "failed", "duplicate", "unfinished"}
_NAMED = 3  # rows of a kind that a message names
_PARAMS_CONVENTION = {
    "params_total": "total",
    "params_non_embedding": "non_embedding",
    "params_matmul": "matmul",
}


@silent()
def read_runs(
    source: Any,
    columns: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    rows: str | None = None,
    derived: bool = False,
) -> Runs:
    """The runs of a sweep's folder, of a file, of a folder with a file per run
    (`folders.read_folder`), or of a table in memory (`readers.in_memory`). Behind a path and a
    comma stand results of lm-eval (`tasks.with_tasks`).

    `columns` maps our names to the table's, {"params": "N", ...}; `kinds` says what a column is
    where that is known better, {"batch": "condition", ...} (`kinds.KINDS`); `rows` whether a row is
    a finished run or a logged step, of `logs.ROWS`, where that is known; `derived` adds the further
    rows that a technique has measured of a run (`techniques.derived`).

    Raises:
      UserError: no such file, no table, or a cell that cannot be what its column says.
    """
    if rows not in (None, *logs.ROWS):
        raise UserError(f"--rows={rows} is none of {', '.join(logs.ROWS)}")
    for ours, theirs in (columns or {}).items():
        if ours not in _OURS:
            raise UserError(
                f"--columns={ours}={theirs}: we have no column '{ours}'{nearest(ours, _OURS)} "
                f"(there are {', '.join(_OURS)})"
            )
    columns, kinds = columns or {}, kinds or {}
    if not isinstance(source, (str, PurePath)):
        return _runs_of(named(_whole(in_memory(source), derived), columns), columns, kinds, rows)
    path, results = parts(source)
    sweep = is_sweep(path)
    raw = _sweep(path) if sweep else read_folder(path) if path.is_dir() else read_file(path)
    raw = with_tasks(raw, results) if results else raw
    table = named(_whole(raw, derived), columns)
    if not sweep:
        return _runs_of(table, columns, kinds, rows)
    runs = _runs(table, columns, kinds)
    trained = set(raw.columns.get("run_id", ()))  # derived rows have no curves
    here = [i for i, name in enumerate(runs.run_id_R) if name in trained]
    names = tuple(runs.run_id_R[i] for i in here)
    curves, said = curves_of_sweep(path, names, runs.params[here])
    return replace(runs, curves=curves, notes=runs.notes + said)


def _whole(raw: Raw, derived: bool) -> Raw:
    return with_derived(raw) if derived else raw


def _runs_of(
    table: NamedTable, columns: Mapping[str, str], kinds: Mapping[str, str], rows: str | None
) -> Runs:
    """Runs of a table with a row per run, or a row per logged step."""
    if not logs.is_log(table, rows):
        return _runs(table, columns, kinds)
    ends, curves = logs.ends_of(table)
    runs = _runs(ends, columns, kinds)
    return replace(runs, curves=tuple(c for c in curves if c.run_id in runs.run_id_R))


def _sweep(folder: Path) -> Raw:
    """The rows of a sweep as its plan and results say now, else its results.csv."""
    if not plans.has_plan(folder):
        return read_raw(folder / "results.csv")
    rows = results.collect(folder)
    found: dict[str, list[Cell]] = {
        name: [_cell(row.get(name)) for row in rows] for name in columns_of(rows)
    }
    return Raw(str(folder), found, list(range(2, len(rows) + 2)))  # as in results.csv


def _cell(value: Any) -> Cell:
    """What stands in results.csv: lists, as the parts of a mixture, as their text."""
    return str(value) if isinstance(value, list) else value


def _runs(table: NamedTable, asked: Mapping[str, str], kinds: Mapping[str, str]) -> Runs:
    """Splits finished from unfinished rows, checks every number that will be fitted.

    `asked` has the columns that were named, `kinds` what some were said to be.
    """
    kinds = by_column(kinds, list(table.raw.columns))
    over = [*table.raw.columns] if asked.get("status") == NONE else [*kinds]
    ids = texts(table, "run_id")
    aside, flags, notes = unfinished(table, over)
    table = replace(table, warnings=(*table.warnings, *notes))
    kept = [i for i in range(len(ids)) if i not in aside]
    table = with_budgets(table, asked, kept)
    core = {name: numbers(table, name, kept) for name in _CORE if name in table.cells}
    for i in kept:
        if not math.isfinite(loss := core["loss"][i]) and not loss < 0:
            said = str(table.cells["loss"][i]).strip().lower() in ("nan", "inf", "-inf", "infinity")
            missing = is_empty(table.cells["loss"][i]) and not said
            aside[i] = ("missing", "no loss") if missing else ("diverged", f"loss is {loss:g}")
    for name in (*_FITTED, "weight"):
        if name not in table.cells:
            continue
        values = core[name] if name in core else numbers(table, name, kept)
        for i in kept:
            if math.isnan(values[i]):
                aside.setdefault(i, ("missing", f"no {name}"))
    for i, first in _repeated(table, [i for i in kept if i not in aside]).items():
        aside[i] = ("duplicate", f"the same as row {first}")
    kept = [i for i in kept if i not in aside]
    if not kept:
        rows = len(table.raw.line)
        raise UserError(
            f"{table.raw.source}: none of {rows} rows is a finished run with a loss; "
            f"{_left_out(aside, ids, table, flags)}"
        )
    read = {
        name: core[name] if name in core
        else numbers(table, name, kept) if name in _NUMBERS
        else numbers_or_none(table, name, kept)
        for name in table.cells if name not in _TEXT
    }  # fmt: skip
    columns = {name: values for name, values in read.items() if values is not None}
    _must_be_positive(table, core | columns, kept)

    index = np.array(kept)
    whole = complete(core, of_teacher(columns, len(ids)))
    core = {name: values[index] for name, values in whole.items()}
    columns = {name: values[index] for name, values in columns.items()}
    given = tuple(name for name in _FITTED if name in table.cells)
    sizes = Sizes(*(core[name] for name in _FITTED))
    spelled = {name: labels(table, name, kept) for name in table.raw.columns}
    labels_of = {name: one_spelling(label_R) for name, label_R in spelled.items()}
    ours = {theirs: name for name, theirs in table.title.items() if name in ALIASES}
    group_R, budget_G, source = budgets(core["flops"], columns.get("budget"))
    named = texts(table, "flops_convention")
    conventions = sorted({named[i] for i in kept if named[i]})
    found = kinds_of(labels_of, ours, sizes, kinds)
    runs = Runs(
        source=table.raw.source,
        row_R=np.array(table.raw.line, np.int64)[index],
        index_R=np.arange(len(index)),
        run_id_R=tuple(ids[i] or f"row {table.raw.line[i]}" for i in kept),
        group_R=group_R,
        budget_G=budget_G,
        budgets_from=source,
        params_convention=_PARAMS_CONVENTION.get(table.title.get("params", ""), "as_given"),
        flops_convention=conventions[0] if len(conventions) == 1 else "as_given",
        columns=columns,
        labels=labels_of,
        kinds=found,
        title=table.title,
        scale=table.scale,
        given=given,
        aside=tuple(Aside(table.raw.line[i], ids[i], *aside[i]) for i in sorted(aside)),
        notes=(
            *table.warnings,
            *text_among_numbers(table, asked, kept),
            *filter(None, [_left_out(aside, ids, table, flags)]),
            *_repeated_names(table, kept),
            *_mixed(conventions),
            *_spellings(found, spelled, labels_of),
        ),
        params=core["params"],
        tokens=core["tokens"],
        flops=core["flops"],
        loss=core["loss"],
    )
    check_units(runs)
    return replace(runs, doubts=doubts(runs))


def _left_out(
    aside: Mapping[int, tuple[str, str]],
    ids: Sequence[str],
    table: NamedTable,
    flags: Sequence[str],
) -> str:
    """How many rows are not fitted, why, and the first of each kind by name; "" for none.

    `flags` are the columns of yes and no by which some are not.
    """
    groups: dict[str, list[int]] = {}
    for i in sorted(aside):
        groups.setdefault(aside[i][0], []).append(i)
    never = groups.pop("rejected", [])  # planned by nobody
    if not groups:
        return ""
    parts = []
    for status, rows in groups.items():
        reasons = {aside[i][1] for i in rows}
        why = f", {reasons.pop()}" if len(reasons) == 1 and reasons != {""} else ""
        names = [ids[i] or f"row {table.raw.line[i]}" for i in rows[:_NAMED]]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        parts.append(f"{len(rows)} {status}{why} ({', '.join(names)}{more})")
    foreign = {*groups} - _OUR_STATUSES
    keep = f"; --columns=status={NONE} keeps those that have a loss" if foreign else ""
    if flags and not foreign:
        asked = items([f"{name}=outcome" for name in flags])
        keep = f"; --kinds={asked} keeps those that have a loss"
    count = sum(map(len, groups.values()))
    return f"{count} of {len(ids) - len(never)} rows are left out: {', '.join(parts)}{keep}"


def _spellings(
    found: Mapping[str, Column], spelled: Mapping[str, Labels], merged: Mapping[str, Labels]
) -> list[str]:
    """Values that were taken for one though they are not written alike."""
    said = []
    for name, column in found.items():
        if column.kind not in ("condition", "setting", "seed"):
            continue
        for value in dict.fromkeys(merged[name][spelled[name] != merged[name]]):
            ways = ", ".join(f"'{x}'" for x in sorted(set(spelled[name][merged[name] == value])))
            said.append(f"column '{name}': {ways} are one value in different spelling")
    return said


def _repeated(table: NamedTable, kept: list[int]) -> dict[int, int]:
    """Rows equal to an earlier row in every cell, and that row's line."""
    first: dict[tuple[Cell, ...], int] = {}
    again = {}
    for i in kept:
        line = first.setdefault(
            tuple(cells[i] for cells in table.raw.columns.values()), table.raw.line[i]
        )
        if line != table.raw.line[i]:
            again[i] = line
    return again


def _repeated_names(table: NamedTable, kept: list[int]) -> tuple[str, ...]:
    if table.title.get("run_id") not in ("run_id", "run", "id"):
        return ()
    ids = texts(table, "run_id")
    twice = [name for name, n in Counter(ids[i] for i in kept).items() if name and n > 1]
    if not twice:
        return ()
    return (f"{len(twice)} runs stand more than once with different numbers ('{twice[0]}' first)",)


def _mixed(conventions: list[str]) -> tuple[str, ...]:
    """FLOPs of several counts in one column."""
    if len(conventions) < 2:
        return ()
    return (f"column 'flops_convention' mixes {', '.join(conventions[:4])} in one fit",)


def _must_be_positive(table: NamedTable, columns: Mapping[str, Floats], kept: list[int]) -> None:
    for name in _POSITIVE:
        if name not in columns:
            continue
        values = columns[name][kept]
        outside = ~np.isnan(values) & ~((values >= 1 / _MOST) & (values <= _MOST))
        for k in np.flatnonzero(outside)[:1]:
            rule = f"and no run has a {name} outside {1 / _MOST:g} to {_MOST:g}"
            if not 0 < values[k] < math.inf:
                rule = "a positive number is needed"
            raise UserError(f"{table.where(kept[k], name)}: {values[k]:g}, {rule}")
