"""Text of a table, as programs and people write it, to a header and rows of cells.

Commas, semicolons, tabs, bars or blanks between cells; a title, remarks and empty lines before the
header; the header again between files that were joined; decimal commas.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from chinchilla_jax.experiment.errors import UserError

_EXCEL = re.compile(r"^sep=(.)\r?$")  # a line of Excel's before the header
_DELIMITERS = ",;\t|"
_RULE = re.compile(r"^[|:\-+= \t\r]*-[|:\-+= \t\r]*$")  # between head and rows of Markdown
# Of a file with semicolons, in which the comma may be the decimal point.
_DECIMAL = re.compile(r"^[-+]?\d+,\d+(e[-+]?\d+)?$", re.IGNORECASE)
_OTHERWISE = re.compile(r"^[-+]?\d*\.\d+(e[-+]?\d+)?$|^\d{1,3}(,\d{3}){2,}$", re.IGNORECASE)


@dataclass(frozen=True)
class Delimited:
    """`rows[i]` has a cell for each name and stands at `line[i]`, from 1; `notes` are doubts."""

    names: list[str]
    rows: list[list[str]]
    line: list[int]
    notes: tuple[str, ...]


def parsed(text: str, source: str) -> Delimited:
    """The table in `text`, which stands in `source`.

    Raises:
      UserError: it is empty, not quoted as CSV is, or a row has not as many cells as the header.
    """
    first, delimiter = 1, ""
    if told := _EXCEL.match(text.split("\n", 1)[0]):
        first, delimiter, text = 2, told[1], text.split("\n", 1)[1] if "\n" in text else ""
    text, skipped = _without_remarks(text)
    first += skipped
    numbered = [
        (n, row) for n, row in enumerate(_cells(text, delimiter, source), first) if any(row)
    ]
    while len(numbered) > 2 and sum(map(bool, numbered[0][1])) == 1 < len(numbered[1][1]):
        numbered = numbered[1:]  # a title
    if not numbered:
        raise UserError(f"{source}: the file is empty")
    (_, names), *kept = numbered
    again = sum(row == names for _, row in kept)
    kept = [(n, row) for n, row in kept if row != names]
    for number, row in kept:
        if len(row) != len(names):
            raise UserError(
                f"{source}, row {number}: {len(row)} cells, the header has {len(names)}"
            )
    rows, notes = [row for _, row in kept], []
    if again:
        notes.append(f"left out as repeats of the header: {again} row{'s' * (again > 1)}")
    if ";" in text and (one := _decimal(rows)):
        rows = [[c.replace(",", ".") if _DECIMAL.match(c) else c for c in row] for row in rows]
        notes.append(f"commas are read as decimal points: {one} as {one.replace(',', '.')}")
    return Delimited(names, rows, [number for number, _ in kept], tuple(notes))


def _without_remarks(text: str) -> tuple[str, int]:
    """The text behind its first lines that begin with #, and how many these are; a header stays."""
    skipped = 0
    while text.startswith("#") and "\n" in text:
        head, rest = text.split("\n", 1)
        below = rest.split("\n", 1)[0]
        if (
            not below.startswith("#")
            and len(_split(head[1:])) == len(_split(below)) > 1
            and (any(map(str.isdigit, below)))
        ):
            return head[1:].lstrip() + "\n" + rest, skipped
        text, skipped = rest, skipped + 1
    return text, skipped


def _split(line: str) -> list[str]:
    delimiter = max(_DELIMITERS, key=line.count)
    return line.split(delimiter) if delimiter in line else line.split()


def _cells(text: str, delimiter: str, source: str) -> list[list[str]]:
    """The cells of every line, stripped; none of a line that is empty or a rule."""
    head = next((line for line in text.split("\n") if line.strip(" \r,;\t")), "")
    if head.lstrip().startswith("|"):  # Markdown
        return [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.strip() and not _RULE.match(line) else []
            for line in text.split("\n")
        ]  # fmt: skip
    delimiter = delimiter or max(_DELIMITERS, key=head.count)
    if delimiter not in head and len(head.split()) > 1:
        return [line.split() for line in text.split("\n")]
    try:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        return [[cell.strip() for cell in row] for row in rows]
    except csv.Error as error:
        raise UserError(f"{source}: not a CSV table: {error}") from None


def _decimal(rows: Sequence[Sequence[str]]) -> str:
    """The first number with a decimal comma, where none is written otherwise; else ""."""
    cells = [cell for row in rows for cell in row]
    if any(map(_OTHERWISE.match, cells)):
        return ""
    return next((cell for cell in cells if _DECIMAL.match(cell)), "")
