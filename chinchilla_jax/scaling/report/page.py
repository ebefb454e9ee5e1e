"""One HTML page that opens offline: sentences, tables, inline figures, one script, no request.

Every string goes through `html.escape` here and nowhere else; only figures, which we drew, are
put in as they are. page.css is its look. page.js lets a reader ask it: what row of a table a point
of a figure is, which budgets and conditions are shown, how a table is sorted; without a script the
page has the same content. Its policy runs no other script and asks nothing of any server.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from chinchilla_jax.experiment.numbers import is_number
from chinchilla_jax.scaling.report.table import Table

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, with its caption."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Absence:
    """A figure for which there is nothing to draw, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, doubts, tables and figures, in that order.

    A text among the tables and an absence among the figures say what is not there.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table | str] = ()
    pictures: Sequence[Picture | Absence] = ()
    doubts: Sequence[str] = ()


def page(title: str, meta: str, answer: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole document; `answer` are the first sentences, the first of them the largest."""
    shown = [s for s in sections if s.paragraphs or s.tables or s.pictures or s.doubts]
    links = "".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in shown)
    numbers = iter(range(1, 100))
    body = "\n".join(_section(section, numbers) for section in shown)
    look, script = _file("page.css"), _file("page.js")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{look}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="meta">{escape(meta)}</p>\n'
        f'<div class="answer">{_paragraphs(answer)}</div>\n<nav>{links}</nav>\n'
        f"{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


@cache
def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """No server is asked for anything, and no script runs but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _section(section: Section, numbers: object) -> str:
    parts = [f'<h2 id="{_anchor(section.title)}">{escape(section.title)}</h2>']
    parts.append(_paragraphs(section.paragraphs))
    if section.doubts:
        items = "".join(f"<li>{_text(text)}</li>" for text in section.doubts)
        parts.append(f'<ul class="doubts">{items}</ul>')
    parts += [_note(table) if isinstance(table, str) else _table(table) for table in section.tables]
    absent: dict[str, list[str]] = {}
    for picture in section.pictures:
        if isinstance(picture, Absence):
            absent.setdefault(picture.reason, []).append(picture.title)
            continue
        number = next(numbers)  # type: ignore[call-overload]
        parts.append(
            f'<figure id="{escape(picture.name)}"><div class="plot">{_inline(picture)}</div>'
            f"<figcaption><b>Figure {number}.</b>{_text(picture.caption)}</figcaption></figure>"
        )
    parts += [
        _note(f"Not drawn: {', '.join(names)}: {why.rstrip('.')}.") for why, names in absent.items()
    ]
    return "\n".join(part for part in parts if part)


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>' if text else ""


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{_text(text)}</p>" for text in texts)


def _text(text: str) -> str:
    """Escaped; no line ends between a number and its per cent."""
    return escape(text).replace(" %", "&nbsp;%")


def _table(table: Table) -> str:
    """Columns that hold numbers are set to the right; long tables scroll under their head."""
    if not table.rows:
        return ""
    table = table.without_empty_columns()
    columns = zip(*table.rows, strict=True)
    kind = [' class="n"' if all(map(is_number, cells)) else "" for cells in columns]
    head = "".join(
        f'<th scope="col"{k}{_switch(table, text)}>{escape(text)}</th>'
        for text, k in zip(table.head, kind, strict=True)
    )
    opened = [f"<td{k}>" for k in kind]
    rows = []
    for i, row in enumerate(table.rows):
        key = f' id="{_row_id(table.keys[i])}"' if table.keys and table.keys[i] else ""
        mark = f' class="{escape(table.marks[i])}"' if i in table.marks else ""
        cells = "</td>".join(map(str.__add__, opened, map(escape, row)))
        rows.append(f"<tr{key}{mark}>{cells}</td></tr>")
    tall = " tall" if len(table.rows) > 24 else ""
    return (
        f'<div class="scroll{tall}"><table><caption hidden>{escape(table.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{_note(table.note)}"
    )


def _switch(table: Table, head: str) -> str:
    name = table.switches.get(head)
    return f' data-switch="{escape(name)}"' if name else ""


def _row_id(key: str) -> str:
    """Of `run 17`, as figures name it: run-17."""
    return escape(key.replace(" ", "-"))


def _inline(picture: Picture) -> str:
    """The <svg> element alone, its ids made the figure's own, sized by the page.

    Places are to a hundredth of a point (scales of letters, all under 10, stay) and lines begin at
    their tags: a third smaller.
    """
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"\n +", "\n", re.sub(r"(\d\d\.\d\d)\d+", r"\1", svg))
    prefix = re.sub(r"\W", "_", picture.name)
    for name in (' id="', 'xlink:href="#', "url(#"):
        svg = svg.replace(name, f"{name}{prefix}_")
    head, rest = svg.split(">", 1)
    points = float(re.search(r'width="([\d.]+)pt"', head).group(1))  # type: ignore[union-attr]
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    label = escape(picture.caption.split(".")[0], quote=True)
    # Figures of different widths keep one size of type; a narrow page scrolls them.
    size = f'style="max-width:{points / 12:.2f}em;min-width:{points / 15:.2f}em"'
    return head.replace("<svg", f'<svg role="img" aria-label="{label}" {size}', 1) + ">" + rest


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
