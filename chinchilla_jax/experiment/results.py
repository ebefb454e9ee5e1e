"""results.csv: one row per run of a plan, a line each, rebuilt whole or line by line.

What a run's folder says is the truth, and the table is made of it. `write` looks at all of them;
`note` changes the lines of a few that have ended, so that what a run costs does not grow with the
grid. Writers take turns.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.experiment import contents, lock, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import ANEW, run_directory
from chinchilla_jax.experiment.rows import columns, completed, completed_row, merged, row_of
from chinchilla_jax.experiment.storage import write_text_atomic

DAMAGED = "damaged"  # status of a run of which nobody knows whether it is over
_TURN_SECONDS = 300.0  # that one writer waits for another
_NAMED = 20  # damaged runs in one message


def collect(workdir: Path, tell_damage: bool = False) -> list[dict[str, Any]]:
    """A result row per cell of the plan, whatever became of it.

    Columns that the version which wrote a result did not have are filled where they follow from the
    configuration; what it did not measure stays missing.

    Args:
      tell_damage: a run whose result is damaged has the status `damaged`, and why as its reason.
    Raises:
      UserError: no plan, or damaged results of which no status shall tell: all of them.
    """
    cells = read_plan(workdir)[1]
    begun = storage.names(workdir / "runs")
    rows = []
    for cell in cells:
        row = row_of(cell.run) | {"status": "missing", "reason": ""}
        found = _told(workdir, cell.run, row) if cell.run.run_id in begun else {}
        if not found and cell.status == "rejected":
            found = {"status": "rejected", "reason": cell.reason}
        rows.append(row | found)
    damaged = [row["reason"] for row in rows if row["status"] == DAMAGED]
    if damaged and not tell_damage:
        raise UserError(_together(damaged))
    return completed(rows)


def _together(damaged: Sequence[str]) -> str:
    """What is wrong with several runs, in one line."""
    if len(damaged) == 1:
        return damaged[0]
    shown = "; ".join(f"({n}) {reason}" for n, reason in enumerate(damaged[:_NAMED], 1))
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return f"{len(damaged)} runs are damaged: {shown}{more}"


def _outcome(workdir: Path, run: RunConfig, row: dict[str, Any]) -> dict[str, Any]:
    """What the folder of a run adds to its row: nothing before it is over or has failed."""
    directory = run_directory(workdir, run.run_id)
    if (result := directory.result()) is not None:
        with contents.remedy(ANEW):
            return merged(row, result, str(directory.path / "result.json"))
    failure = directory.failure()
    return {} if failure is None else {"status": "failed", "reason": failure}


def _told(workdir: Path, run: RunConfig, row: dict[str, Any]) -> dict[str, Any]:
    """As `_outcome`; what is damaged is a status."""
    try:
        return _outcome(workdir, run, row)
    except StorageError:
        raise
    except UserError as error:
        return {"status": DAMAGED, "reason": str(error)}


def write(workdir: Path) -> list[dict[str, Any]]:
    """Rebuilds results.csv from the plan and the folders of its runs, and returns its rows.

    A run whose result is damaged has a line that says so.

    Raises:
      UserError: no plan, or another process has been writing for minutes.
    """
    with _turn(workdir):
        return _write(workdir)


def _write(workdir: Path) -> list[dict[str, Any]]:
    rows = collect(workdir, tell_damage=True)
    file, names = workdir / "results.csv", columns(rows)
    text = _lines([dict(zip(names, names, strict=True)), *rows], names)
    if _text(file) != text:
        write_text_atomic(file, text)
    return rows


def _header(text: str) -> list[str]:
    return next(csv.reader([text.partition("\n")[0]]), [])


def _text(file: Path) -> str:
    """What is there now, nothing where there is no file."""
    try:
        return storage.read_text(file)
    except FileNotFoundError:
        return ""


def renew(workdir: Path) -> None:
    """`write` where the table is not there or lacks a row or a column of all, and runs were begun.

    The plan has grown, also under one who was about to `note`, or another version wrote the table:
    so that `note` need not rebuild it.
    """
    cells = read_plan(workdir)[1]
    if not (cells and storage.names(workdir / "runs")):
        return
    text = _text(workdir / "results.csv")
    whole = text.count("\n") == 1 + len(cells)
    if whole and row_of(cells[0].run).keys() <= set(_header(text)):
        return
    write(workdir)


def write_of(workdir: Path, runs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """`write` where `runs` are all that the plan has, else `note`."""
    planned = sum(cell.status == "planned" for cell in read_plan(workdir)[1])
    return write(workdir) if len(runs) >= planned else note(workdir, runs)


def note(workdir: Path, runs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """Renews the lines of some runs in results.csv, and returns their rows.

    The whole table is rebuilt where it has no line of one of them, or lacks a column.

    Raises:
      UserError: as `write`.
    """
    with _turn(workdir):
        rows = []
        for run in runs:
            row = row_of(run) | {"status": "missing", "reason": ""}
            rows.append(row | _told(workdir, run, row))
        file = workdir / "results.csv"
        text = _text(file)
        names = _header(text)
        dense = techniques.dense_columns()
        used = {name: dense[name] for name in names if name in dense}
        rows = [completed_row(row, used, names) for row in rows]
        new = _patched(text, names, rows) if text else None
        if new is None:
            wanted = {run.run_id for run in runs}
            return [row for row in _write(workdir) if row["run_id"] in wanted]
        if new != text:
            write_text_atomic(file, new)
        return rows


def _patched(text: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The table with other lines of these rows; None where it lacks a line, or a column."""
    for row in rows:
        begin = text.find(f"\n{row['run_id']},") + 1
        end = text.find("\n", begin) + 1
        if not (begin and end) or not row.keys() <= set(names):
            return None
        text = text[:begin] + _lines([row], names) + text[end:]
    return text


def _lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Rows of CSV, each on one line whatever texts it has."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow([_on_one_line(row.get(name)) for name in names])
    return buffer.getvalue()


def _on_one_line(cell: Any) -> Any:
    if isinstance(cell, str) and ("\n" in cell or "\r" in cell):
        return " ".join(cell.split())
    return cell


@contextmanager
def _turn(workdir: Path) -> Iterator[None]:
    with lock.waited_for(workdir / ".results", _TURN_SECONDS):
        yield
