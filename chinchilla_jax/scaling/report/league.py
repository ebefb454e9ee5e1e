"""The report of a league table: its tables and sentences, its page, and what the terminal shows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from chinchilla_jax.experiment import storage, tables
from chinchilla_jax.experiment.numbers import MISSING, count, exponent, percent, ratio
from chinchilla_jax.scaling import comparison as record
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.comparison import Comparison
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report import comparison as conditions
from chinchilla_jax.scaling.report import listing
from chinchilla_jax.scaling.report.drawing import OF_LAWS, draw
from chinchilla_jax.scaling.report.laws import choices
from chinchilla_jax.scaling.report.page import Absence, Picture, Section, page
from chinchilla_jax.scaling.report.replacing import LEAGUE, write_page
from chinchilla_jax.scaling.report.table import Rows, Table
from chinchilla_jax.scaling.report.versus import times, written
from chinchilla_jax.scaling.report.write import name_of, published
from chinchilla_jax.scaling.ruler.league import Ruler
from chinchilla_jax.scaling.ruler.records import League, Multiplier, Stack, Standing, Trend
from chinchilla_jax.scaling.table.runs import Runs

_TOLD = ("nonzero", "params", "tokens")  # of which it is said how many runs tell it
_LISTED = 12  # sentences that the terminal shows
_LEADING = 4  # sentences before the league table on the page
_CHARGED = {
    "student": "without any teacher's",
    "teacher_forward": "with a teacher's forward passes, without the training of the run that "
    "teaches or that another begins from",
    "teacher_all": "with a teacher's forward passes and the training of the run that teaches or "
    "that another begins from",
}


_VERDICT = {
    True: "in training FLOPs it pays",
    False: "in training FLOPs it does not pay",
    None: "which these runs do not tell from 1",
}


@silent()
def write(
    out: Path | str,
    found: Comparison,
    arrays: Sequence[Arrays],
    ruler: Ruler | None,
    runs: Runs,
    overlays: Sequence[PublishedLaw] = (),
    figures: bool = True,
) -> Path:
    """Writes fits.json, league.csv, the figures and report.html under `out`; returns the page.

    Args:
      runs: all of the table, for laws that span conditions.

    Raises:
      UserError: the folder cannot be written.
    """
    assert found.league is not None
    out = storage.path(out)
    record.write(out / "fits.json", found)
    storage.write_text_atomic(out / LEAGUE, csv_of(found.league))
    drawn: dict[str, Picture | Absence] = {}
    if figures:
        from chinchilla_jax.scaling.report.plots.comparison import frontiers  # brings Matplotlib
        from chinchilla_jax.scaling.report.plots.league import forest, points

        table = found.league
        drawers = {
            "forest": lambda: forest(table),
            "points": lambda: points(table, ruler),
            "frontiers": lambda: frontiers(found, arrays, overlays),
            **conditions.law_figures(found, runs),
        }
        drawn = draw(out, drawers)
    path = out / "report.html"
    write_page(path, html(found, drawn, runs, overlays), LEAGUE)
    return path


def standings(league: League) -> Table:
    """The league table: a row a condition, a column a currency."""
    titles = {m.name: m.title for m in league.measures}
    rows: Rows = []
    for one in league.ordered():
        by_name = {m.measure: m for m in one.multipliers}
        cells = [written(by_name[name]) if name in by_name else MISSING for name in titles]
        rows.append((one.label, f"{one.runs} in {one.cells}", _change(one), *cells))
    head = ("technique", "runs in cells", "loss", *titles.values())
    keys = [f"standing {i}" for i in range(len(rows))]
    switches = {"technique": listing.CONDITION}
    return Table("League table", head, rows, note(league), {}, keys, switches)


def _change(one: Standing) -> str:
    """Of the loss against the dense partner's, in percent: `+5.13 % ±0.40`."""
    if one.change is None or one.change_interval is None:
        return percent(None if one.change is None else math.expm1(one.change))
    low, high = map(math.expm1, one.change_interval)
    return f"{percent(math.expm1(one.change))} \N{PLUS-MINUS SIGN}{50 * (high - low):.2f}"


def note(league: League) -> str:
    """What the numbers of the league table mean, and what they are under."""
    same = [
        f"{', '.join(m.also)}: as {m.title}" for m in league.measures if m.also
    ]  # fmt: skip
    size = next((m for m in league.measures if m.name == "bytes" and m.dense_per_param), None)
    parts = [
        f"How many times as much of it dense runs ({league.label}, {league.dense_runs} runs) need "
        "for the same loss: over 1 the technique pays, under 1 it costs",
        "loss: its change against the dense run of equal size, tokens and seed (of equal budget, "
        "where a shape leaves it other tokens), and half of its 95 % interval over such pairs",
        "sizes and FLOPs of inference at equal tokens; active parameters count zeros, products "
        f"skip them; training FLOPs {_CHARGED[league.charge]}, both sides scaled along the "
        "compute-optimal frontier; training tokens at equal dense parameters",
        "brackets are 95 % intervals, by bootstrap over cells of paired runs",
        *same,
    ]
    if size is not None:
        parts.append(f"a dense parameter is kept in {ratio(size.dense_per_param)} bytes at rest")
    return ". ".join(part[:1].upper() + part[1:] for part in parts) + "."


def sentence(one: Standing, league: League) -> str:
    """What a technique is worth, plainly."""
    measures = {m.name: m for m in league.measures}
    by_name = {m.measure: m for m in one.multipliers}
    sizes = [m for m in one.multipliers if measures[m.measure].axis == "size"]
    said = [_size(sizes, {m.name: m.title for m in league.measures})]
    tokens, compute = by_name.get("tokens"), by_name.get("training")
    if tokens is not None and tokens.value is not None:
        said.append(f"dense runs of its size reach it with {written(tokens)} times the tokens")
    if compute is not None and compute.value is not None:
        said.append(
            f"a training FLOP is worth {written(compute)} dense ones"
            + (f", {_VERDICT[compute.pays]}" if compute.resampled else "")
        )
    said += one.told
    trend = next((t for m in sizes[:1] for t in m.trends if t.told), None)
    if trend is not None and trend.exponent is not None:
        way = "rises" if trend.exponent > 0 else "falls"
        said.append(f"the multiplier {way} with {trend.over}, as its power {_trend(trend)}")
    for stack in one.stacks[:1]:
        if stack.product is not None and stack.excess is not None:
            said.append(
                f"its parts alone multiply to {times(stack.product)}, together they are worth "
                f"{written(_plain(stack, 'excess'))} of that"
            )
    return f"{one.label}: {'; '.join(filter(None, said))}."


def _size(sizes: Sequence[Multiplier], titles: Mapping[str, str]) -> str:
    """A model of 1.6 times the parameters, with 0.2 times the bytes, reaches the dense loss."""
    known = [m for m in sizes if m.value is not None]
    if known:
        first, *rest = known
        within = _listed([f"{share(m)} times the {titles[m.measure]}" for m in rest])
        beside = f", with {within}," * bool(within)
        size = f"a model of {share(first)} times the {titles[first.measure]}"
        return f"{size}{beside} reaches the dense loss"
    first_low = sizes[0].low if sizes else None
    if first_low is not None:
        more = f"{times(first_low)} times the {titles[sizes[0].measure]}"
        return f"no dense model of up to {more} reaches its loss at equal tokens"
    return "these runs do not tell what it is worth in size"


def share(found: Multiplier) -> str:
    """The part of what the dense model has: 0.63, of a multiplier 1.59."""
    return times(None if not found.value else 1 / found.value)


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _trend(trend: Trend) -> str:
    if trend.low is None or trend.high is None:
        return exponent(trend.exponent)
    return f"{exponent(trend.exponent)} ({exponent(trend.low)} to {exponent(trend.high)})"


def trends(league: League) -> Table:
    """Exponents of the multipliers in N, D and D/N, or why there are none."""
    titles = {m.name: m.title for m in league.measures}
    rows: Rows = []
    for one in league.ordered():
        for m in one.multipliers:
            cells = [t.reason if t.reason else _trend(t) + " *" * t.told for t in m.trends]
            same = m.trends[0].reason if len({t.reason for t in m.trends}) == 1 else None
            if same:
                cells = [same, "", ""]
            middle = f"{count(one.params)} on {count(one.tokens)}"
            rows.append((one.label, titles[m.measure], middle, *cells))
    head = ("technique", "multiplier of", "holds at N on D", "over N", "over D", "over D/N")
    note = (
        "m ~ x^exponent; each over one x at a time. A star marks what the runs tell from none, at "
        "a third of 5 %, and the multiplier is then that of its trend in the middle of its runs."
    )
    return Table("Trends", head, rows, note)


def stacks(league: League) -> Table | None:
    """Several techniques at once beside the product of each alone."""
    titles = {m.name: m.title for m in league.measures}
    rows: Rows = []
    for one in league.standings:
        by_name = {m.measure: m for m in one.multipliers}
        for s in one.stacks:
            numbers = (by_name[s.measure], _plain(s, "product"), _plain(s, "excess"))
            rows.append((one.label, titles[s.measure], *map(written, numbers)))
    head = ("stack", "multiplier of", "together", "product of its parts", "together / product")
    return Table("Stacks", head, rows) if rows else None


def _plain(stack: Stack, name: str) -> Multiplier:
    """The product of a stack's parts, or its excess over it, as a multiplier."""
    low, high = ("low", "high") if name == "product" else (f"{name}_low", f"{name}_high")
    ends = getattr(stack, low), getattr(stack, high)
    return Multiplier(stack.measure, getattr(stack, name), *ends, None, None, 0, ())


def pairing(league: League) -> Table:
    """How the runs of each technique are paired with dense ones."""
    rows: Rows = [
        (
            one.label, str(one.runs), str(one.paired),
            exponent(one.correlation), percent(one.scatter).lstrip("+"),
        )
        for one in league.ordered()
    ]  # fmt: skip
    head = ("technique", "runs", "with a dense run of their seed", "noise shared", "left over")
    note = (
        "The share of a dense partner's miss that is taken off, and the scatter of ln loss about "
        "the first multiplier that is left."
    )
    return Table("Pairs", head, rows, note)


def doubts(found: Comparison) -> list[str]:
    """What there is to doubt: of the ruler, of each multiplier without a number, of the table."""
    league = found.league
    assert league is not None
    said = [league.refusal] if league.refusal else []
    said += league.warnings
    titles = {m.name: m.title for m in league.measures}
    for one in league.ordered():
        why: dict[str, list[str]] = {}
        for m in one.multipliers:
            if m.reason:
                why.setdefault(m.reason, []).append(titles[m.measure])
        said += [f"{one.label}, {', '.join(names)}: {reason}" for reason, names in why.items()]
        for m in one.multipliers:
            if m.measure in _TOLD and m.value is not None and 2 * m.telling < one.runs:
                said.append(
                    f"{one.label}, {titles[m.measure]}: {m.telling} of {one.runs} runs tell it, "
                    "the others would differ by less than their noise with twice as much"
                )
        if one.multipliers and not one.paired:
            said.append(
                f"{one.label}: no run is known to share its seed with a dense one of its size and "
                "tokens: unpaired, it is known less well"
            )
    return list(dict.fromkeys([*said, *conditions.doubts(found)]))


def answer(found: Comparison) -> list[str]:
    """A sentence for each technique."""
    league = found.league
    assert league is not None
    if league.refusal:
        measured = [f"{one.label}: {clause}." for one in league.ordered() for clause in one.told]
        return [f"No multiplier can be stated: {league.refusal}", *measured]
    return [sentence(one, league) for one in league.ordered()]


def html(
    found: Comparison,
    drawn: Mapping[str, Picture | Absence],
    runs: Runs | None = None,
    overlays: Sequence[PublishedLaw] = (),
) -> str:
    """The page as text; `runs` are listed."""
    league = found.league
    assert league is not None

    def some(name: str) -> list[Picture | Absence]:
        return [drawn[name]] if name in drawn else []

    def present(*tables: Table | None) -> list[Table]:
        return [table for table in tables if table is not None and table.rows]

    said = answer(found)
    sections = [
        Section("League table", (), present(standings(league)), some("forest")),
        Section("The other techniques in words", said[_LEADING:]),
        Section("Against the dense frontier", (), (), some("points")),
        Section("Stacks", (), present(stacks(league))),
        Section("What to doubt", doubts=doubts(found)),
        Section("Trends", (), present(trends(league))),
        Section("Pairs", (), present(pairing(league))),
        Section(
            "The dense runs",
            (),
            present(conditions.optima(found), conditions.laws(found), conditions.refused(found)),
            some("frontiers"),
        ),
        Section(
            "Further laws",
            (),
            present(conditions.further_laws(found), choices(conditions.law_fits(found))),
            [part for name in OF_LAWS for part in some(name)],
        ),
        published(overlays),
        Section("Columns", (), present(listing.columns(found.columns))),
    ]
    if runs is not None:
        called = {tuple(one.condition.values()): one.label for one in league.standings}
        sections.append(Section("Runs", (), [conditions.listed(runs, found, called)]))
    measured = league.dense_runs + sum(one.runs for one in league.standings)
    meta = (
        f"{measured} runs, {league.dense_runs} of them dense, told apart by {', '.join(found.by)}. "
        f"{found.settings.bootstrap} bootstrap draws, seed {found.settings.seed}. chinchilla_jax "
        "evaluate."
    )
    return page(f"League table: {name_of(found.source)}", meta, said[:_LEADING], sections)


def terminal(found: Comparison, path: Path | str) -> str:
    """What `evaluate` prints: the league table, the sentences, the doubts, the page's path."""
    league = found.league
    assert league is not None
    parts = []
    first = {m.title for m in league.measures[:1]}
    beside = stacks(league)
    if beside is not None:  # in one measure; the page has them all
        beside = replace(beside, rows=[row for row in beside.rows if row[1] in first])
    further = conditions.further_laws(found), choices(conditions.law_fits(found))
    for table in (standings(league), beside, *further):
        if table is not None and table.rows:
            shown = table.without_empty_columns()
            parts.append(tables.table(shown.head, shown.rows))
    said = answer(found)
    more = [f"and {len(said) - _LISTED} more: see the report"] * (len(said) > _LISTED)
    parts.append("\n".join([*said[:_LISTED], *more]))
    if not league.refusal:
        parts.append(note(league))
    doubted = [text for text in doubts(found) if text != league.refusal]
    if doubted:
        parts.append("\n".join(f"warning: {text}" for text in doubted))
    parts.append(listing.kinds_line(found.columns))
    parts.append(f"report: {path}")
    return "\n\n".join(parts)


def plain(league: League) -> str:
    """The league table and its sentences as text."""
    if league.refusal:
        return f"No multiplier can be stated: {league.refusal}"
    shown = standings(league).without_empty_columns()
    sentences = [sentence(one, league) for one in league.ordered()]
    return "\n\n".join([tables.table(shown.head, shown.rows), "\n".join(sentences)])


def csv_of(league: League) -> str:
    """The league table for other programs, unrounded: a row a condition and measure."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ("technique", "runs", "cells", "paired", "params", "tokens", "ln_loss_change", "measure",
         "multiplier", "low", "high", "ratio", "reason")
    )  # fmt: skip
    for one in league.ordered():
        for m in one.multipliers:
            writer.writerow(
                (one.label, one.runs, one.cells, one.paired, one.params, one.tokens, one.change,
                 m.measure, m.value, m.low, m.high, m.ratio, m.reason)
            )  # fmt: skip
    return buffer.getvalue()
