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
from chinchilla_jax.scaling.table import names as names_of

_EXCEL = re.compile(r"^sep=(.)\r?$")  # a line of Excel's before the header
_DELIMITERS = ",;\t|"
_RULE = re.compile(r"^[|:\-+= \t\r]*-[|:\-+= \t\r]*$")  # between head and rows of Markdown
# The same of psql and others, where one or two dashes may be cells, and how many rows there are.
_NO_ROW = re.compile(r"^[|:\-+=,; \t\r]*[-=]{3}[|:\-+=,; \t\r]*$|^\(\d+ rows?\)\s*$")
_A_NUMBER = re.compile(r"^[-+]?[.,]?\d")
_TITLES = 20  # lines in which a header is looked for
_BLANKS = " "  # between cells, any number of them
_NOTHING = " \r,;\t"  # of a line without a cell
# Where no comma stands between cells it may be the decimal point, and in `1,234` either.
_DECIMAL = re.compile(r"^[-+]?\d+,\d+(e[-+]?\d+)?$", re.IGNORECASE)
_OTHERWISE = re.compile(
    r"^[-+]?\d*\.\d+(e[-+]?\d+)?$|^\d{1,3}(,\d{3}){2,}$|^\d{1,3}(,\d{3})+\.", re.IGNORECASE
)
EITHER = re.compile(r"^[-+]?[1-9]\d{0,2},\d{3}$")


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
    if delimiter != "," and (read := _decimals(rows)):
        rows = [[c.replace(",", ".") if _DECIMAL.match(c) else c for c in row] for row in rows]
        shown = ", ".join(f"{cell} as {cell.replace(',', '.')}" for cell in read)
        notes.append(f"commas are read as decimal points: {shown}")
    return Delimited(names, rows, [number for number, _ in kept], tuple(notes))


def _without_remarks(text: str) -> tuple[str, int]:
    """The text behind its first lines that begin with #, and how many these are; a header stays."""
    skipped = 0
    while text.startswith("#") and "\n" in text:
        head, rest = text.split("\n", 1)
        below = rest.split("\n", 1)[0]
        if (
            not below.startswith("#")
            and len(_split_by_most(head[1:])) == len(cells := _split_by_most(below)) > 1
            and any(map(_is_number, cells))
        ):
            return head[1:].lstrip() + "\n" + rest, skipped
        text, skipped = rest, skipped + 1
    return text, skipped


def _split_by_most(line: str) -> list[str]:
    delimiter = max(_DELIMITERS, key=line.count)
    return _split(line, delimiter if delimiter in line else _BLANKS)


def _split(line: str, delimiter: str) -> list[str]:
    return line.split() if delimiter == _BLANKS else line.split(delimiter)


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
    above = [line.strip(_NOTHING) for line in lines[:head] if not _is_rule(line)]
    if titles := list(filter(None, above)):
        lines[:head] = [""] * head
        notes.append(f"left out above the header: '{titles[0]:.40}'")
    if lines[head].lstrip().startswith("|"):
        delimiter = found or "|"
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
    return "\n".join(lines), delimiter, notes


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

    The first line, unless a later one of words has as many cells as that below it, which has a
    number, and the first has not as many, or none of our names where the later one has.
    """
    full = [
        (i, line) for i, line in enumerate(lines[: 2 * _TITLES])
        if line.strip(_NOTHING) and not _is_rule(line)
    ][:_TITLES]  # fmt: skip
    for k, ((i, line), (_, below)) in enumerate(itertools.pairwise(full)):
        if line.count('"') % 2 or below.count('"') % 2:  # a cell of several lines
            break
        delimiter = _shared(line, below)
        if not delimiter or not _has_number(below, delimiter):
            continue
        if k == 0:
            return i, delimiter
        above = full[0][1]
        title = _count(above, delimiter) != _count(line, delimiter) or (
            _has_our_names(line, delimiter) and not _has_our_names(above, delimiter)
        )
        if title and not _has_number(line, delimiter):
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
    return any(map(_is_number, _split(line, delimiter)))


def _has_our_names(line: str, delimiter: str) -> bool:
    """Whether cells are usual names of two columns that are fitted, as those of a header are."""
    cells = [cell.strip(' \t\r"') for cell in _split(line, delimiter)]
    return sum(bool(names_of.usual(ours, cells)) for ours in names_of.FITTED) > 1


def _cells(text: str, delimiter: str, source: str) -> list[list[str]]:
    """The cells of every line, stripped; none of a line that is empty or a rule."""
    head = next((line for line in text.split("\n") if line.strip(_NOTHING)), "")
    if head.lstrip().startswith("|"):  # Markdown
        return [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.strip() and not _RULE.match(line) else []
            for line in text.split("\n")
        ]  # fmt: skip
    if delimiter == _BLANKS or (delimiter not in head and len(head.split()) > 1):
        return [line.split() for line in text.split("\n")]
    try:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        return [[cell.strip() for cell in row] for row in rows]
    except csv.Error as error:
        raise UserError(f"{source}: not a CSV table: {error}") from None


def _decimals(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first number whose comma can be nothing but the decimal point, and the first that could
    have thousands; nothing where a number is written otherwise, or where all could have them."""
    each = itertools.chain.from_iterable
    if any(map(_OTHERWISE.match, each(rows))):
        return []
    sure, either = (
        next((c for c in each(rows) if _DECIMAL.match(c) and bool(EITHER.match(c)) == could), None)
        for could in (False, True)
    )
    return [cell for cell in (sure, either) if cell] if sure else []
