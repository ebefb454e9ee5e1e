"""Columns by their usual names, and cells as numbers, with the place of whatever is wrong."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.readers import Cell, Raw

# Usual names of each column, best first; compared without case, spaces and punctuation.
ALIASES: dict[str, tuple[str, ...]] = {
    "params": (
        "params", "params_total", "n_params", "num_params", "parameters", "n_parameters",
        "num_parameters", "total_params", "model_size", "model_params", "N", "nonzero_params",
    ),
    "tokens": (
        "tokens", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "total_tokens",
        "tokens_seen", "D",
    ),
    "flops": (
        "flops", "flop", "training_flop", "training_flops", "train_flops", "total_flops",
        "compute", "C",
    ),
    "loss": (
        "loss", "final_loss", "val_loss", "validation_loss", "eval_loss", "test_loss", "L",
    ),
    "loss_se": ("loss_se", "loss_stderr", "loss_standard_error"),
    "budget": ("budget", "flops_budget", "compute_budget", "isoflop_budget"),
    "learning_rate": ("learning_rate", "lr", "peak_lr", "max_lr"),
    "seed": ("seed", "rng_seed"),
    "step": ("step", "steps_done", "global_step"),
    "weight": ("weight", "fit_weight"),
    "params_non_embedding": (
        "params_non_embedding", "non_embedding_params", "n_params_non_embedding",
    ),
    "run_id": ("run_id", "run", "run_name", "name", "id", "model"),
    "status": ("status", "state"),
}  # fmt: skip
# A column that is one of these cannot be another of them too.
_ALONE = ("params", "tokens", "flops", "loss", "loss_se", "learning_rate", "seed", "step", "weight")
FITTED = ("params", "tokens", "flops", "loss")
_EMPTY = {"", "nan", "null", "none", "na", "n/a", "-"}


@dataclass(frozen=True)
class NamedTable:
    """Canonical names over raw cells, and the file's own name of each, for messages."""

    raw: Raw
    cells: dict[str, list[Cell]]
    title: dict[str, str]
    warnings: tuple[str, ...] = ()

    def where(self, i: int, name: str) -> str:
        return f"{self.raw.source}, row {self.raw.line[i]}, column '{self.title[name]}'"

    def keep(self, index: Sequence[int]) -> "NamedTable":
        """The rows of `index`, in that order."""
        columns, cells = (
            {name: [column[i] for i in index] for name, column in of.items()}
            for of in (self.raw.columns, self.cells)
        )
        line = [self.raw.line[i] for i in index]
        return replace(self, raw=replace(self.raw, columns=columns, line=line), cells=cells)


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def named(raw: Raw, columns: Mapping[str, str]) -> NamedTable:
    """The columns that `columns` names, then those with usual names.

    Raises:
      UserError: one lacks, or one of the file would be two of ours.
    """
    cells, title, said = dict(raw.columns), {name: name for name in raw.columns}, []
    by_key: dict[str, str] = {}
    for name in raw.columns:
        by_key.setdefault(_key(name), name)
    for ours, theirs in columns.items():
        if theirs not in raw.columns:
            raise UserError(
                f"{raw.source}: no column '{theirs}' for {ours}{nearest(theirs, [*raw.columns])} "
                f"(there are {', '.join(raw.columns)})"
            )
        cells[ours], title[ours] = raw.columns[theirs], theirs
    taken = {theirs for ours, theirs in columns.items() if ours in _ALONE}
    for ours, names in ALIASES.items():
        if ours in columns:
            continue
        found = list(dict.fromkeys(by_key[_key(n)] for n in names if _key(n) in by_key))
        if ours in _ALONE:  # what is fitted and has our very name is not given away in silence
            kept = ours if ours in FITTED else ""
            found = [name for name in found if name not in taken or name == kept]
        if found:
            cells[ours], title[ours] = raw.columns[found[0]], found[0]
            if len(found) > 1 and ours in FITTED:
                rest = ", ".join(f"'{name}'" for name in found[1:])
                if found[0] != ours:
                    said.append(f"column '{found[0]}' is taken as {ours}; there is also {rest}")
    if "params" not in cells and "params_non_embedding" in cells:
        title["params"] = "params_non_embedding"
        cells["params"] = cells["params_non_embedding"]
        said.append("params are those outside the embedding, the only count that the table has")
    missing = [name for name in ("loss",) if name not in cells]
    have = [name for name in ("params", "tokens", "flops") if name in cells]
    if missing or len(have) < 2:
        need = "loss" if missing else "two of params, tokens, flops"
        raise UserError(
            f"{raw.source}: no column for {need} among {', '.join(raw.columns)}; "
            "name them with --columns=params=N,loss=..."
        )
    given_away = taken - {*columns, *FITTED}
    _must_differ({ours: title[ours] for ours in _ALONE if ours in {*cells} - given_away}, raw)
    return NamedTable(raw, cells, title, tuple(said))


def _must_differ(title: Mapping[str, str], raw: Raw) -> None:
    first: dict[str, str] = {}
    for ours, theirs in title.items():
        if first.setdefault(theirs, ours) != ours:
            raise UserError(
                f"{raw.source}: column '{theirs}' cannot be both {first[theirs]} and {ours}: name "
                f"another one with columns {first[theirs]}=... or {ours}=...; there are "
                f"{', '.join(raw.columns)}"
            )


def _is_empty(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _EMPTY)


def _number(cell: Cell) -> float:
    """NaN for an empty cell; ValueError for what is no number."""
    if _is_empty(cell):
        return math.nan
    if isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
        raise ValueError  # float() reads True as 1 and 1_0 as 10
    return float(cell)  # type: ignore[arg-type]


def numbers(table: NamedTable, name: str, rows: Iterable[int] | None = None) -> Floats:
    """The column as float64; only cells of `rows` must be numbers, others may be NaN."""
    must = range(len(table.raw.line)) if rows is None else set(rows)
    values = np.full(len(table.raw.line), math.nan)
    for i, cell in enumerate(table.cells[name]):
        try:
            values[i] = _number(cell)
        except (ValueError, OverflowError):
            if i in must:
                hint = "; write 7e9 for 7B, 1e6 for 1,000,000" if str(cell)[:1].isdigit() else ""
                message = f"{table.where(i, name)}: {cell!r:.60} is not a number{hint}"
                raise UserError(message) from None
    return values


def is_numeric(cells: list[Cell]) -> bool:
    """Whether all of a column that nobody asked for reads as numbers; text stays text."""
    try:
        return any(not math.isnan(_number(cell)) for cell in cells)
    except (ValueError, OverflowError):
        return False


def texts(table: NamedTable, name: str) -> list[str]:
    cells = table.cells.get(name, [None] * len(table.raw.line))
    return ["" if cell is None else str(cell) for cell in cells]


def labels(table: NamedTable, name: str, rows: Sequence[int]) -> npt.NDArray[np.str_]:
    """The cells of a column of the file as text, in `rows`: see `label`."""
    cells = table.raw.columns[name]
    return np.array([label(cells[i]) for i in rows], np.str_)


def label(cell: Cell) -> str:
    """A cell as text: equal numbers alike, however they are written; "" for an empty one."""
    try:
        value = _number(cell)
    except (ValueError, OverflowError):
        return str(cell).strip()
    return "" if math.isnan(value) else f"{value:.15g}"
