"""One HTML page that opens offline: sentences, tables, inline figures; no script, no request.

Every string goes through `html.escape` here and nowhere else; only figures, which we drew, are
put in as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chinchilla_jax.experiment.numbers import is_number
from chinchilla_jax.scaling.report.summary import Table

_STYLE = """
:root { --ink: #1a1a1a; --soft: #666; --line: #ddd; --accent: #0072B2; }
html { background: #fff; color: var(--ink); }
body { margin: 0 auto; padding: 3.2rem 1.4rem 6rem; max-width: 62rem;
  font: 17px/1.55 Charter, "Bitstream Charter", "Iowan Old Style", Palatino, Georgia, serif; }
h1, h2, th, td, figcaption, .meta, nav { font-family: "Helvetica Neue", Arial, "Liberation Sans",
  "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.12rem; margin: 3rem 0 .7rem; }
p { margin: .55rem 0; max-width: 44rem; }
.meta { color: var(--soft); font-size: .82rem; margin: 0 0 1.5rem; }
.answer { border-left: 4px solid var(--accent); padding: .1rem 0 .1rem 1.1rem; margin: 1.4rem 0; }
.answer p:first-child { font-size: 1.2rem; line-height: 1.45; }
nav { font-size: .82rem; margin: 1.6rem 0; }
nav a { color: var(--accent); text-decoration: none; margin-right: 1.1em; white-space: nowrap; }
.scroll { overflow-x: auto; margin: .8rem 0; }
.tall { max-height: 34rem; overflow-y: auto; border-bottom: 1px solid var(--line); }
.tall thead th { position: sticky; top: 0; background: #fff; }
table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--ink); }
th, td { padding: .3rem .95rem .3rem 0; vertical-align: top; }
td { border-bottom: 1px solid #efefef; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.forecast td { font-weight: 600; }
tr.aside td { color: #a33d00; }
.note { color: var(--soft); font-size: .88rem; }
figure { margin: 1.6rem 0 2.2rem; }
figure svg { width: 100%; height: auto; display: block; margin-left: -.4rem; }
figcaption { font-size: .84rem; line-height: 1.45; color: #333; max-width: 46rem;
  margin-top: .3rem; }
figcaption b { margin-right: .4em; }
ul.doubts { padding-left: 1.1rem; max-width: 46rem; }
ul.doubts li { margin: .35rem 0; }
@media print { body { padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  figure, table { break-inside: avoid; } .tall { max-height: none; } nav { display: none; } }
"""


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
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="meta">{escape(meta)}</p>\n'
        f'<div class="answer">{_paragraphs(answer)}</div>\n<nav>{links}</nav>\n'
        f"{body}\n</body>\n</html>\n"
    )


def _section(section: Section, numbers: object) -> str:
    parts = [f'<h2 id="{_anchor(section.title)}">{escape(section.title)}</h2>']
    parts.append(_paragraphs(section.paragraphs))
    if section.doubts:
        items = "".join(f"<li>{escape(text)}</li>" for text in section.doubts)
        parts.append(f'<ul class="doubts">{items}</ul>')
    parts += [_note(table) if isinstance(table, str) else _table(table) for table in section.tables]
    absent: dict[str, list[str]] = {}
    for picture in section.pictures:
        if isinstance(picture, Absence):
            absent.setdefault(picture.reason, []).append(picture.title)
            continue
        number = next(numbers)  # type: ignore[call-overload]
        parts.append(
            f'<figure id="{escape(picture.name)}">{_inline(picture)}'
            f"<figcaption><b>Figure {number}.</b>{escape(picture.caption)}</figcaption></figure>"
        )
    parts += [_note(f"Not drawn: {', '.join(names)}: {why}.") for why, names in absent.items()]
    return "\n".join(part for part in parts if part)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _table(table: Table) -> str:
    """Columns that hold numbers are set to the right; long tables scroll under their head."""
    if not table.rows:
        return ""
    table = table.without_empty_columns()
    columns = zip(*table.rows, strict=True)
    kind = ["n" if all(map(is_number, cells)) else "" for cells in columns]

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{k}">{escape(text)}</{tag}>' if k else f"<{tag}>{escape(text)}</{tag}>"
            for text, k in zip(texts, kind, strict=True)
        )

    rows = "".join(
        f'<tr class="{escape(table.marks.get(i, ""))}">{cells("td", row)}</tr>'
        for i, row in enumerate(table.rows)
    )
    tall = " tall" if len(table.rows) > 24 else ""
    return (
        f'<div class="scroll{tall}"><table><caption hidden>{escape(table.title)}</caption>'
        f"<thead><tr>{cells('th', table.head)}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{_note(table.note)}"
    )


def _inline(picture: Picture) -> str:
    """The <svg> element alone, its ids made the figure's own, sized by the page."""
    svg = picture.svg[picture.svg.index("<svg") :]
    prefix = re.sub(r"\W", "_", picture.name)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}_", svg)
    head, rest = svg.split(">", 1)
    points = float(re.search(r'width="([\d.]+)pt"', head).group(1))  # type: ignore[union-attr]
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    label = escape(picture.caption.split(".")[0], quote=True)
    # Figures of different widths keep one size of type.
    size = f'style="max-width:{points / 12:.2f}em"'
    return head.replace("<svg", f'<svg role="img" aria-label="{label}" {size}', 1) + ">" + rest


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
