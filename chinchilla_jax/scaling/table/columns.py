"""Columns by their usual names, and cells as numbers, with the place of whatever is wrong."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax import techniques
from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table import computed, units
from chinchilla_jax.scaling.table import names as names_of
from chinchilla_jax.scaling.table.delimited import EITHER
from chinchilla_jax.scaling.table.names import ALIASES, ALONE, FITTED, NONE
from chinchilla_jax.scaling.table.readers import Cell, Raw
from chinchilla_jax.scaling.table.shapes import shape_of

_PERCENT = re.compile(r"^[-+]?\d+(\.\d*)?\s*%$")
_EMPTY = {
    "", "nan", "null", "none", "na", "n/a", "n.a.", "#n/a", "#na", "-", "--", "\u2013", "\u2014",
    "?", "tbd", "missing",
}  # fmt: skip


@dataclass(frozen=True)
class NamedTable:
    """Canonical names over raw cells, the file's own name of each for messages, and its unit."""

    raw: Raw
    cells: dict[str, list[Cell]]
    title: dict[str, str]
    scale: dict[str, float] = field(default_factory=dict)  # of our columns that are in other units
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


def named(raw: Raw, columns: Mapping[str, str]) -> NamedTable:
    """The columns that `columns` names, then those with usual names.

    Raises:
      UserError: one lacks, or one of the file would be two of ours.
    """
    if shape := shape_of(raw.columns):
        raw = _with_sums(raw, shape.sums)
    raw = _without_percent(raw)
    names, said = list(raw.columns), list(raw.notes)
    given = names_of.asked(columns, names, raw.source)
    raw = _with_computed(raw, given.values())
    filled = [name for name, cells in raw.columns.items() if {*cells} - {None, ""}]
    gone = [ours for ours in FITTED if ours != "loss" and ours not in filled]
    gone += [ours for ours, text in columns.items() if text == NONE]
    title = {name: name for name in names if name not in gone}
    taken = {theirs for ours, (theirs, _) in given.items() if ours in ALONE}
    found: dict[str, names_of.Found] = dict(given)
    if shape and (known := {o: f for o, f in shape.found(filled).items() if o not in columns}):
        found |= known
        said.append(shape.told(known))
    for ours in ALIASES:
        if ours in columns or ours in found:
            continue
        likely = names_of.usual(ours, names if ours == "loss" else filled)
        if ours == "step":  # nobody needs it: what is no number is another one's
            likely = [one for one in likely if is_numeric(raw.columns[one[0]])]
        whole = _with_computed(raw, likely)
        likely = _filled_most(likely, whole)
        if ours in ALONE:  # what is fitted and has our very name is not given away in silence
            kept = ours if ours in FITTED else ""
            likely = [one for one in likely if one[0] not in taken or one[0] == kept]
        if likely:
            found[ours] = likely[0]
            raw = _with_computed(raw, likely[:1])
            others = [
                one for one in likely[1:]
                if is_numeric(whole.columns[one[0]]) and not _equal(one[0], likely[0][0], whole)
                and (one[0] in raw.columns or likely[0][0] not in names)
            ]  # fmt: skip
            if ours == "loss":
                seen = {name for name, _ in likely}
                seen |= {computed.parts(name, names)[0] for name in seen}
                others += [
                    (n, 1.0) for n in names_of.held_out(filled)
                    if n not in seen and is_numeric(raw.columns[n])
                    and not _equal(n, likely[0][0], raw)
                ]  # fmt: skip
            said += names_of.told(ours, likely[0], others) if ours in FITTED else []
    if "params" not in found and "params_non_embedding" in found:
        found["params"] = found["params_non_embedding"]
        said.append("params are those outside the embedding, the only count that the table has")
    cells = {name: raw.columns[name] for name in title}
    for ours, (theirs, _) in found.items():
        cells[ours], title[ours] = raw.columns[theirs], theirs
        if ours in names_of.COUNTS:
            by_person = columns.get(ours, theirs) != theirs
            cells[ours], found[ours], notes = _counted(raw, names, ours, found[ours], by_person)
            said += [note for note in notes if note not in said]
    for ours in (*FITTED, "budget", "run_id", "status"):
        if title.get(ours) in raw.twice:
            raise UserError(f"{raw.source}: column '{title[ours]}' stands twice in the header")
    need = [ours for ours in FITTED if ours not in found]
    have = {ours: theirs for ours, (theirs, _) in found.items()}
    cost = {*have} & {"params", "tokens", "flops", "budget"}
    if "loss" in need or len(cost) < 2:
        raise UserError(names_of.lacking(need, have, filled, raw.source))
    rest = [name for name in filled if name not in have.values()] if need else []
    free = [name for name in rest if is_numeric(raw.columns[name])]
    for ours in need:
        if guess := names_of.near(ours, free):
            asked = items([f"{ours}={guess}"])
            said.append(f"no column has a usual name of {ours}: --columns={asked}?")
    said += names_of.told_metric(*found["loss"])
    given_away = taken - {*columns, *FITTED}
    _must_differ({ours: title[ours] for ours in ALONE if ours in {*found} - given_away}, raw)
    scale = {
        ours: factor
        for ours, (theirs, factor) in found.items()
        if (factor, names_of.in_unit(ours, theirs, names)) != (1.0, 1.0)
    }
    return NamedTable(raw, cells, title, scale, tuple(said))


def text_among_numbers(table: NamedTable, asked: Iterable[str], rows: Sequence[int]) -> list[str]:
    """Columns of a law, or asked for, that are no numbers for the sake of a few cells of `rows`."""
    said = []
    of_laws = {name for law in techniques.laws() for name in law.columns}
    for name in sorted({*of_laws, *asked} & {*table.cells} - {*ALIASES}):
        read = {i: value_of(table.cells[name][i]) for i in rows}
        odd = [i for i, x in read.items() if isinstance(x, str) and not is_empty(x)]
        if odd and 2 * len(odd) < sum(x is not None for x in read.values()):
            cell = f"{read[odd[0]]!r:.60} in row {table.raw.line[odd[0]]}"
            said.append(f"column '{table.title[name]}' is read as text: {cell} is no number")
    return said


def _with_sums(raw: Raw, sums: Mapping[str, Sequence[str]]) -> Raw:
    """With columns that are the sum of others; empty where one of a row's cells is no number."""
    more: dict[str, list[Cell]] = {}
    for name, parts in sums.items():
        if name in raw.columns or not all(part in raw.columns for part in parts):
            continue
        rows = zip(*(map(value_of, raw.columns[part]) for part in parts), strict=True)
        more[name] = [
            sum(cells) if all(isinstance(cell, int | float) for cell in cells) else None
            for cells in rows
        ]
    return replace(raw, columns={**raw.columns, **more}) if more else raw


def _counted(
    raw: Raw, names: Sequence[str], ours: str, found: names_of.Found, by_person: bool
) -> tuple[list[Cell], names_of.Found, list[str]]:
    """The cells of a count of ours, in which unit they are, and what a person must hear of that.

    Args:
      names: columns of the file, of which `raw` may have computed others.
      by_person: whether the factor of `found` was asked for.
    """
    theirs, factor = found
    parts = names_of.in_units(ours, theirs, names)
    if theirs in names and not by_person:
        parts = {theirs: factor}
    elif by_person and factor != math.prod(parts.values()):
        parts = dict.fromkeys(parts, 1.0)
    read = {name: _counts(raw.columns[name], name, unit) for name, unit in parts.items()}
    notes = [note for _, _, said in read.values() for note in said]
    if any(left != parts[name] for name, (_, left, _) in read.items()):
        factor = math.prod(left for _, left, _ in read.values())
    if theirs not in names:
        notes += names_of.told_axes(parts)
    if not by_person and ours != "budget":
        notes += names_of.told_unit(ours, theirs, factor)
    return read[theirs][0] if theirs in read else raw.columns[theirs], (theirs, factor), notes


def _counts(cells: list[Cell], name: str, unit: float) -> tuple[list[Cell], float, list[str]]:
    """Counts as numbers where all of a column is written as people write them; the unit left."""
    full = [i for i, cell in enumerate(cells) if not is_empty(cell)]
    if is_numeric(cells):
        return cells, unit, []
    found = units.counts_of([str(cells[i]).strip() for i in full], unit)
    if found is None:
        return cells, unit, []
    values, odd, left = found
    read: list[Cell] = [None] * len(cells)
    for i, value in zip(full, values, strict=True):
        read[i] = value
    count = next(
        value for i, value in zip(full, values, strict=True) if str(cells[i]).strip() == odd
    )
    said = f"'{odd}' and the like in column '{name}' are read as {count:.4g}"
    return read, left, [said + ", whatever its name's unit" * (left != unit)]


def _with_computed(raw: Raw, found: Iterable[names_of.Found]) -> Raw:
    """With those of the columns `found` that are computed from others.

    A cell of a logarithm whose own is no positive number stays that, for whoever reads it to say,
    and so does a text among the factors of a product.
    """
    more: dict[str, list[Cell]] = {}
    for name, _ in found:
        if name in raw.columns:
            continue
        parts = computed.parts(name, [*raw.columns])
        of = [raw.columns[part] for part in parts]
        if len(of) > 1:
            of = [_counts(cells, part, names_of.part_unit(part))[0]
                  for part, cells in zip(parts, of, strict=True)]  # fmt: skip
        values = [list(map(value_of, column)) for column in of]
        own = of[0] if len(of) == 1 else [
            next((x for x in row if isinstance(x, str)), None) for row in zip(*values, strict=True)
        ]  # fmt: skip
        cells = computed.values(name, values)
        more[name] = [o if x is None else x for x, o in zip(cells, own, strict=True)]
    return replace(raw, columns={**raw.columns, **more}) if more else raw


def _without_percent(raw: Raw) -> Raw:
    """With columns of `45.2 %` as shares of 1, and a note on each."""
    shares: dict[str, list[Cell]] = {}
    for name, cells in raw.columns.items():
        full = [cell for cell in cells if not is_empty(cell)]
        if full and all(isinstance(cell, str) and _PERCENT.match(cell) for cell in full):
            shares[name] = [
                None if is_empty(cell) else float(str(cell).rstrip("% \t")) / 100 for cell in cells
            ]
    if not shares:
        return raw
    said = f"percent are read as shares of 1: {names_of.shown(list(shares))}"
    return replace(raw, columns={**raw.columns, **shares}, notes=(*raw.notes, said))


def _filled_most(likely: list[names_of.Found], raw: Raw) -> list[names_of.Found]:
    """Columns that have a value in at least half as many rows as the fullest of them."""
    full = {name: sum(not is_empty(cell) for cell in raw.columns[name]) for name, _ in likely}
    return [one for one in likely if 2 * full[one[0]] >= max(full.values())]


def _equal(name: str, other: str, raw: Raw) -> bool:
    """Whether two columns hold the same, as labels."""
    pairs = zip(raw.columns[name], raw.columns[other], strict=True)
    return all(label(a) == label(b) for a, b in pairs)


def _must_differ(title: Mapping[str, str], raw: Raw) -> None:
    first: dict[str, str] = {}
    for ours, theirs in title.items():
        if first.setdefault(theirs, ours) != ours:
            raise UserError(
                f"{raw.source}: column '{theirs}' cannot be both {first[theirs]} and {ours}: name "
                f"another one with columns {first[theirs]}=... or {ours}=...; there are "
                f"{', '.join(raw.columns)}"
            )


def is_empty(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _EMPTY)


def _number(cell: Cell) -> float:
    """NaN for an empty cell; ValueError for what is no number."""
    if is_empty(cell):
        return math.nan
    if isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
        raise ValueError  # float() reads True as 1 and 1_0 as 10
    return float(cell)  # type: ignore[arg-type]


def value_of(cell: Cell) -> Cell:
    """A cell as what it reads as: None where it is empty, a number, or the text."""
    try:
        value = _number(cell)
    except (ValueError, OverflowError, TypeError):  # the last of a damaged result.json
        return cell
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value


def numbers(table: NamedTable, name: str, rows: Iterable[int] | None = None) -> Floats:
    """The column as float64; only cells of `rows` must be numbers, others may be NaN."""
    must = range(len(table.raw.line)) if rows is None else set(rows)
    values = np.full(len(table.raw.line), math.nan)
    for i, cell in enumerate(table.cells[name]):
        try:
            values[i] = _number(cell)
        except (ValueError, OverflowError, TypeError):  # the last of a damaged result.json
            if i in must:
                message = f"{table.where(i, name)}: {cell!r:.60} is not a number"
                raise UserError(f"{message}{_hint(str(cell))}") from None
    return values * table.scale.get(name, 1.0)


def numbers_or_none(table: NamedTable, name: str, rows: Sequence[int]) -> Floats | None:
    """`numbers` of a column that nobody asked for; None where `rows` have text, or nothing."""
    try:
        values = numbers(table, name, rows)
    except UserError:
        return None
    return None if np.isnan(values[list(rows)]).all() else values


def _hint(cell: str) -> str:
    """How a cell that is no number would be one."""
    if EITHER.match(cell):
        return f"; write {cell.replace(',', '.')}, or {cell.replace(',', '')} if that is meant"
    if re.fullmatch(r"\d+,\d+", cell):
        return "; write 3.1 for 3,1"
    return "; write 7e9 for 7B, 1e6 for 1,000,000" if cell[:1].isdigit() else ""


def is_numeric(cells: list[Cell]) -> bool:
    """Whether all of a column that nobody asked for reads as numbers; text stays text."""
    try:
        found = [_number(cell) for cell in cells]
    except (ValueError, OverflowError, TypeError):
        return False
    return not all(map(math.isnan, found))


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
    except (ValueError, OverflowError, TypeError):  # the last of a list
        return str(cell).strip()
    return "" if math.isnan(value) else f"{value:.15g}"


def spelling(text: str) -> str:
    """A text without what makes no other value of it: case and spaces."""
    return " ".join(text.casefold().split())


def one_spelling(label_R: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """Labels that differ in case or spaces alone, all as the first of them stands."""
    unique, first, where = np.unique(label_R, return_index=True, return_inverse=True)
    shown: dict[str, str] = {}
    for i in np.argsort(first):
        shown.setdefault(spelling(str(unique[i])), str(unique[i]))
    if len(shown) == len(unique):
        return label_R
    return np.array([shown[spelling(str(text))] for text in unique], np.str_)[where.ravel()]
