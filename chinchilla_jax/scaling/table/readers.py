"""Files of runs to columns of text and numbers: CSV, TSV, JSONL, JSON, Parquet; and what a
notebook holds already: a list of dicts, a dict of columns, a data frame.

A reader returns a `Raw` table: cells as they stand in the file (str, int, float, bool or None) and
the line each row came from, so that whatever is wrong later can be named by file and row.
Nothing that is read is ever evaluated.
"""

import codecs
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table import delimited, shapes

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Raw:
    """`columns[name][i]` is a cell of the i-th row, which stands at `line[i]` of `source`.

    Of the columns `twice` the header has two that differ; the first is kept. `notes` are what
    reading had to say.
    """

    source: str
    columns: dict[str, list[Cell]]
    line: list[int]
    twice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_raw(path: Path) -> Raw:
    """Reads one file by its suffix; raises UserError for what cannot be read as a table."""
    if not storage.exists(path):
        raise UserError(f"{path}: no such file")
    suffix = Path(path.stem if _zipped(path) else path.name).suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None or (_zipped(path) and reader is _parquet):
        raise UserError(
            f"{path}: cannot tell the format from '{path.suffix}'; known are "
            f"{', '.join(SUFFIXES)}, texts also with .gz"
        )
    raw = reader(path)
    if not raw.line:
        raise UserError(f"{path}: the table has no rows")
    return raw


def in_memory(table: Any) -> Raw:
    """A table that is no file; rows are counted from 1, as those of Parquet are.

    Args:
      table: a sequence of mappings (a row each), a mapping from names to sequences (a column each),
        or a data frame: an object whose `columns` are names and whose `table[name]` has `to_list`,
        as those of pandas and polars. None and NaN are empty cells.
    Raises:
      UserError: it is none of these, or its columns are of different lengths.
    """
    source = "the table"
    if isinstance(table, Mapping):
        for name, cells in table.items():
            whole = isinstance(cells, Iterable) and getattr(cells, "ndim", 1) == 1
            if isinstance(cells, str | bytes | Mapping) or not whole:
                shown = " ".join(repr(cells).split())
                raise UserError(
                    f"{source}: column '{name}' is {shown:.40}, and a list of cells is needed"
                )
        columns = {str(name): list(cells) for name, cells in table.items()}
    elif hasattr(table, "columns") and hasattr(table, "__getitem__"):
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names):
            raise UserError(f"{source}: two of its columns have one name")
        columns = {str(name): list(table[name].to_list()) for name in table.columns}
    elif isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        table = [_flattened(row) for row in table]
        keys = dict.fromkeys(key for row in table for key in row)
        columns = {str(key): [row.get(key) for row in table] for key in keys}
    else:
        raise UserError(
            f"a table of runs is a path, a list of dicts, a dict of columns or a data frame, not a "
            f"{type(table).__name__}"
        )
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        few, many = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise UserError(
            f"{source}: column '{few}' has {lengths[few]} rows and '{many}' {lengths[many]}"
        )
    count = next(iter(lengths.values()), 0)
    if not count:
        raise UserError(f"{source}: it has no rows")
    cells = {name: [_cell(value) for value in column] for name, column in columns.items()}
    return Raw(source, cells, list(range(1, count + 1)))


def _cell(value: Any) -> Cell:
    """A value of Python, NumPy or Arrow as a cell; what is neither number nor text, by its text."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # NumPy's scalars
    if isinstance(value, float) and math.isnan(value):
        return None
    # pandas' missing value of integers and texts is an object of its own.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a line that was cut off is an error, as a row would lack."""
    lines = _text(path).split("\n")  # a text may hold other line breaks
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json_data.loads(line)
        except ValueError:
            cut = number == len(lines) and not line.rstrip().endswith("}")
            hint = "; the last line is cut off" if cut else ""
            raise UserError(f"{path}, row {number}: not JSON{hint}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: a JSON object per line is needed")
        rows.append({"": number, **row})
    return rows


def _zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _text(path: Path) -> str:
    content = storage.read_bytes(path)
    try:
        content = gzip.decompress(content) if _zipped(path) else content
        wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # Excel's "Unicode Text"
        return content.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be decompressed: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text at byte {error.start}") from None


def _decoded(cell: bytes) -> str:
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return str(cell)


def _csv(path: Path) -> Raw:
    found = delimited.parsed(_text(path), str(path))
    columns: dict[str, list[Cell]] = {}
    twice = []
    for j, name in enumerate(found.names):
        cells: list[Cell] = [row[j] or None for row in found.rows]
        if columns.setdefault(name, cells) != cells:
            twice.append(name)
    return Raw(str(path), columns, found.line, tuple(twice), found.notes)


def _objects(path: Path | str, rows: list[dict[str, Any]]) -> Raw:
    """Rows of JSON; what is nested has a dotted name, a list is its text."""
    flat = [_flattened(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row if name)
    columns: dict[str, list[Cell]] = {name: [row.get(name) for row in flat] for name in names}
    return Raw(str(path), columns, [row[""] for row in rows])


def _flattened(row: Mapping[str, Any]) -> dict[str, Cell]:
    """{"a": {"b": 1}} as {"a.b": 1}; of two that get one name the flat one counts."""
    flat: dict[str, Cell] = {}
    left = [(str(name), value, False) for name, value in reversed(list(row.items()))]
    while left:
        name, value, nested = left.pop()
        if isinstance(value, Mapping):
            inner = reversed(list(value.items()))
            left += [(f"{name}.{key}", each, True) for key, each in inner]
        elif not (nested and (name in row or name in flat)):
            alone = isinstance(value, list) and len(value) == 1 and _cell(value[0]) is value[0]
            value = value[0] if alone else value
            flat[name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _jsonl(path: Path) -> Raw:
    return _objects(path, _json_lines(path))


def _json(path: Path) -> Raw:
    try:
        data = json_data.loads(_text(path))
    except ValueError:
        raise UserError(f"{path}: not JSON") from None
    rows = shapes.document(data, path) or _rows_of(data)
    if rows is None:
        raise UserError(
            f"{path}: a list of objects is needed, one per run, or an object of them by name"
        )
    return _objects(path, [{"": number, **row} for number, row in enumerate(rows, 1)])


def _rows_of(data: Any) -> list[dict[str, Any]] | None:
    """A row per run of a list, of an object of runs by name, or of pandas' three ways to write."""
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        return data
    if not isinstance(data, dict) or not data:
        return None
    split = next((data[name] for name in ("data", "rows", "values") if name in data), None)
    if isinstance(split, list) and isinstance(data.get("columns"), list):
        names = list(map(str, data["columns"]))
        if all(isinstance(row, list) and len(row) == len(names) for row in split):
            return [dict(zip(names, row, strict=True)) for row in split]
    lists = [value for value in data.values() if isinstance(value, list) and value]
    if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]):
        return lists[0]  # {"runs": [...], ...}
    if len(lists) == len(data) and len({*map(len, lists)}) == 1:
        return [dict(zip(data, row, strict=True)) for row in zip(*lists, strict=True)]
    objects = [value for value in data.values() if isinstance(value, dict)]
    if len(objects) == 1 and _alike(objects[0].values()):
        return _rows_of(objects[0])  # {"runs": {"small": {...}, "large": {...}}, ...}
    if len(objects) < len(data):
        if len(objects) > 1 and _are_runs(objects):  # and what all of them share
            return _by_name({k: v for k, v in data.items() if isinstance(v, dict)})
        return [data] if objects else None  # one thing: its names tell what it is
    inner = dict.fromkeys(key for value in data.values() for key in value)
    held = [cell for value in data.values() for cell in value.values()]
    plain = not all(isinstance(cell, dict) for cell in held)
    if plain and all(key.isdigit() for key in inner):  # a column each, by number of the row
        return [{name: cells.get(key) for name, cells in data.items()} for key in inner]
    return _by_name(data)


def _by_name(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each object, and for each of those that an object holds by name."""
    rows = []
    for name, value in data.items():
        if all(isinstance(each, dict) for each in value.values()) and _are_runs(value.values()):
            rows += _by_name({f"{name}/{inner}": each for inner, each in value.items()})
        else:
            rows.append({"name": name, **value})
    return rows


def _are_runs(values: Iterable[Any]) -> bool:
    """Whether objects are runs and no parts of one: they share half of their fields or more."""
    values = list(values)
    if not _alike(values):
        return False
    return 2 * len(set.intersection(*map(set, values))) >= len(set.union(*map(set, values)))


def _alike(values: Iterable[Any]) -> bool:
    """Whether these are several objects with a field in common, as runs are."""
    values = list(values)
    objects = len(values) > 1 and all(isinstance(value, dict) for value in values)
    return objects and bool(set.intersection(*map(set, values)))


def _parquet(path: Path) -> Raw:
    import pyarrow  # costs .2 s: only for those who bring Parquet
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(path)))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet table: {str(error).splitlines()[0]}") from None
    columns = {
        name: column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    for name, cells in columns.items():
        for number, cell in enumerate(cells, 1):
            if isinstance(cell, bytes):  # texts of a writer that does not say so
                columns[name][number - 1] = _decoded(cell)
            elif cell is not None and not isinstance(cell, (str, int, float, bool, dict)):
                columns[name][number - 1] = str(cell)
    if any(isinstance(cell, dict) for cells in columns.values() for cell in cells[:1]):
        rows = [
            dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
        ]
        return _objects(path, [{"": number, **row} for number, row in enumerate(rows, 1)])
    return Raw(str(path), columns, list(range(1, table.num_rows + 1)))


_READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".tab": _csv,
    ".dat": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".pq": _parquet,
}
SUFFIXES = tuple(_READERS)  # of files that are read as tables
