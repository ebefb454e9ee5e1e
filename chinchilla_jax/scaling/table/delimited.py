"""Text of a table, as programs and people write it, to a header and rows of cells.

Commas, semicolons, tabs, bars or blanks between cells; titles above the header; remarks, rules and
empty lines; the header again between files that were joined; decimal commas.
"""

import csv
import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chinchilla_jax.experiment.errors import UserError

_EXCEL = re.compile(r"^sep=(.)\r?$")  # a line of Excel's before the header
_DELIMITERS = ",;\t|"
_RULE = re.compile(r"^[|:\-+= \t\r]*-[|:\-+= \t\r]*$")  # between head and rows of Markdown
# The same of psql and others, where one or two dashes may be cells, and how many rows there are.
_NO_ROW = re.compile(r"^[|:\-+=,; \t\r]*[-=]{3}[|:\-+=,; \t\r]*$|^\(\d+ rows?\)\s*$")
_A_NUMBER = re.compile(r"^[-+]?[.,]?\d")
_TITLES = 20  # lines in which a header is looked for
_BLANKS = " "  # between cells, any number of them
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
    text, delimiter, notes = _bare(text, delimiter)
    numbered = [
        (n, row) for n, row in enumerate(_cells(text, delimiter, source), first) if any(row)
    ]
    while len(numbered) > 2 and sum(map(bool, numbered[0][1])) == 1 < len(numbered[1][1]):
        notes.append(f"left out above the header: '{next(filter(None, numbered[0][1])):.40}'")
        numbered = numbered[1:]
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
    rows = [row for _, row in kept]
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
            and len(_split(head[1:])) == len(cells := _split(below)) > 1
            and any(map(_is_number, cells))
        ):
            return head[1:].lstrip() + "\n" + rest, skipped
        text, skipped = rest, skipped + 1
    return text, skipped


def _split(line: str) -> list[str]:
    delimiter = max(_DELIMITERS, key=line.count)
    return line.split(delimiter) if delimiter in line else line.split()


def _is_number(cell: str) -> bool:
    return bool(_A_NUMBER.match(cell.strip(' \t\r"')))


def _bare(text: str, delimiter: str) -> tuple[str, str, list[str]]:
    """The text with empty lines for those that are no rows, its delimiter, and what is said of it.

    A delimiter that is known stays. What reads with its first line as the header is left as it is.
    """
    lines = text.split("\n")
    head, found = _header(lines)
    if delimiter:
        head, found = next((i for i, line in enumerate(lines) if line.strip()), 0), delimiter
    notes = []
    if titles := [line.strip() for line in lines[:head] if line.strip() and not _is_rule(line)]:
        lines[:head] = [""] * head
        notes.append(f"left out above the header: '{titles[0]:.40}'")
    if lines[head].lstrip().startswith("|"):
        gone = _without(lines, lambda line: bool(line.strip()) and "|" not in line)
        gone = [line for line in gone if not _is_rule(line)]
    else:
        if "---" in text or "===" in text or text.rstrip().endswith(("row)", "rows)")):
            _without(lines, lambda line: bool(_NO_ROW.match(line)))
        delimiter = found or max(_DELIMITERS, key=lines[head].count)
        width = _count(lines[head], delimiter)
        gone = []
        if "\n#" in text:  # a row may begin with one, too
            gone = _without(
                lines, lambda line: line.startswith("#") and _count(line, delimiter) != width
            )
    if gone:
        notes.append(
            f"left out as no rows: {len(gone)} line{'s' * (len(gone) > 1)} ('{gone[0]:.40}')"
        )
    return "\n".join(lines), found, notes


def _is_rule(line: str) -> bool:
    return bool(_RULE.match(line) or _NO_ROW.match(line))


def _without(lines: list[str], is_other: Callable[[str], bool]) -> list[str]:
    """Empties the lines that are other than rows, outside quotes; those that there were."""
    gone, quoted = [], False
    for i, line in enumerate(lines):
        begins = line.count('"') % 2 == 1
        if not (quoted or begins) and is_other(line):
            gone.append(line.strip())
            lines[i] = ""
        quoted ^= begins
    return gone


def _header(lines: Sequence[str]) -> tuple[int, str]:
    """Where the header is, and its delimiter, "" where that is the one it has most of.

    The first line, unless the next ones have not as many cells, and a later one of words has as
    many as that below it, which has a number.
    """
    full = [
        (i, line) for i, line in enumerate(lines[: 2 * _TITLES])
        if line.strip(" \r,;\t") and not _is_rule(line)
    ][:_TITLES]  # fmt: skip
    for k, ((i, line), (_, below)) in enumerate(itertools.pairwise(full)):
        if line.count('"') % 2 or below.count('"') % 2:  # a cell of several lines
            break
        delimiter = _shared(line, below)
        if not delimiter or not _has_number(below, delimiter):
            continue
        other = _count(full[0][1], delimiter) != _count(line, delimiter)
        if k == 0 or (other and not _has_number(line, delimiter)):
            return i, delimiter
    return full[0][0] if full else 0, ""


def _shared(line: str, below: str) -> str:
    """The delimiter of which two lines have as many; "" for none."""
    if line.lstrip().startswith("|") and below.lstrip().startswith("|"):
        return "|"
    usual = sorted(_DELIMITERS, key=line.count, reverse=True)
    any_of = [d for d in usual if d in line or d in below]
    return next((d for d in any_of or _BLANKS if 0 < _count(line, d) == _count(below, d)), "")


def _count(line: str, delimiter: str) -> int:
    """Of a delimiter outside quotes."""
    bare = re.sub(r'"[^"]*"', '""', line) if '"' in line else line
    return len(bare.split()) - 1 if delimiter == _BLANKS else bare.count(delimiter)


def _has_number(line: str, delimiter: str) -> bool:
    cells = line.split() if delimiter == _BLANKS else line.split(delimiter)
    return any(map(_is_number, cells))


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
    if delimiter == _BLANKS or (delimiter not in head and len(head.split()) > 1):
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
