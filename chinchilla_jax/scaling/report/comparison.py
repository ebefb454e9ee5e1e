"""The report of a comparison: its tables, its sentences, its page, and what the terminal shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chinchilla_jax.experiment import numbers, storage, tables
from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.numbers import count, exponent, loss, percent, ratio
from chinchilla_jax.scaling import comparison as record
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.comparison import Comparison
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.further import completed
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.register.ledger import Withdrawn
from chinchilla_jax.scaling.report import forecasts, listing, outcome, summary, tuning, versus
from chinchilla_jax.scaling.report.drawing import OF_LAWS, draw
from chinchilla_jax.scaling.report.laws import LAW_HEAD, choices, law_row
from chinchilla_jax.scaling.report.page import Absence, Picture, Section, page
from chinchilla_jax.scaling.report.replacing import write_page
from chinchilla_jax.scaling.report.table import Rows, Table, estimate
from chinchilla_jax.scaling.report.write import name_of, published
from chinchilla_jax.scaling.table.conditions import where, written
from chinchilla_jax.scaling.table.conventions import under
from chinchilla_jax.scaling.table.kinds import OTHER_LOSS
from chinchilla_jax.scaling.table.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 8  # conditions without a fit that the terminal lists


@silent()
def write(
    out: Path | str,
    found: Comparison,
    arrays: Sequence[Arrays],
    runs: Runs,
    overlays: Sequence[PublishedLaw] = (),
    figures: bool = True,
) -> Path:
    """Writes fits.json, the figures, and report.html under `out`; returns the page.

    Args:
      runs: all of the table, for laws that span conditions.

    Raises:
      UserError: the folder cannot be written.
    """
    out = storage.path(out)
    record.write(out / "fits.json", found)
    drawn: dict[str, Picture | Absence] = {}
    checked = outcome.in_report(found.source, None if found.versus else runs)
    if figures:
        from chinchilla_jax.scaling.report.plots.comparison import frontiers  # brings Matplotlib

        figures_of = {"frontiers": lambda: frontiers(found, arrays, overlays)}
        figures_of |= law_figures(found, runs) | outcome.drawers(checked)
        against = found.versus
        if against is not None:
            from chinchilla_jax.scaling.report.plots.versus import speed_up

            figures_of["speed_up"] = lambda: speed_up(against)
        drawn = draw(out, figures_of)
    path = out / "report.html"
    write_page(path, html(found, drawn, runs, overlays, checked))
    return path


def law_figures(found: Comparison, runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """Those of further laws, by name, with the runs that each was fitted to."""
    from chinchilla_jax.scaling.report.plots import of_laws  # brings Matplotlib

    counted = under(runs, found.settings.params, found.settings.flops)
    drawers: dict[str, Callable[[], Figure | str]] = {}
    for one in found.laws:
        if one.fit is not None:
            fitted = where(completed(LAWS[one.law], counted), one.condition)
            drawers = of_laws([one.fit], fitted) | drawers  # of several conditions the first
    return drawers


def law_fits(found: Comparison) -> list[LawFit]:
    """The further laws that were fitted."""
    return [one.fit for one in found.laws if one.fit is not None]


def answer(found: Comparison) -> list[str]:
    """A sentence for each condition and budget, behind what two are worth to each other."""
    said = versus.answer(found.versus) if found.versus else []
    said += [
        f"{one.title}: {text[0].lower()}{text[1:]}"
        for one in found.conditions
        if one.fits is not None
        for text in map(forecasts.sentence, one.fits.forecast)
    ]
    return said or [
        f"None of {len(found.conditions)} conditions has enough runs to be fitted by itself; "
        f"a column that makes no condition is said by --kinds={items([f'{found.by[0]}=outcome'])}."
    ]


def optima(found: Comparison) -> Table:
    """The forecasts of every condition for the same budgets."""
    rows: Rows = []
    for one in found.conditions:
        for row in one.fits.forecast if one.fits is not None else ():
            spread = row.interval
            rows.append(
                (
                    one.title, numbers.flops(row.flops),
                    estimate(row.params, spread, "params", count),
                    estimate(row.tokens, spread, "tokens", count),
                    estimate(row.tokens_per_param, spread, "tokens_per_param", ratio),
                    estimate(row.loss, spread, "loss", loss),
                    forecasts.FORMS.get(row.form or "", ""),
                )
            )  # fmt: skip
    head = ("condition", "FLOPs C", "parameters N*", "tokens D*", "D*/N*", "loss L*", "from")
    keys = [f"forecast {i}" for i in range(len(rows))]
    switches = {"condition": listing.CONDITION}
    return Table("Compute-optimal models by condition", head, rows, "", {}, keys, switches)


def laws(found: Comparison) -> Table:
    """Exponents of the frontier and the loss surface of every condition."""
    rows: Rows = []
    for one in found.conditions:
        if one.fits is None:
            continue
        surface, iso, noise = one.fits.parametric, one.fits.isoflop, one.fits.isoflop.noise
        rows.append(
            (
                one.title, str(one.runs),
                estimate(iso.a, iso.interval, "a", exponent),
                estimate(surface.a, surface.interval, "a", exponent),
                estimate(surface.E, surface.interval, "E", loss),
                estimate(surface.alpha, surface.interval, "alpha", exponent),
                estimate(surface.beta, surface.interval, "beta", exponent),
                percent(noise.log_loss if noise.freedom else None).lstrip("+"),
            )
        )  # fmt: skip
    head = ("condition", "runs", "a, iso-FLOP minima", "a, surface", "E", "alpha", "beta", "noise")
    note = (
        "N* ~ C^a; L = E + A/N^alpha + B/D^beta. Brackets are 95 % intervals, by percentile "
        "bootstrap; the noise is that of ln loss between runs of one cell, else of the residuals."
    )
    keys = [f"condition {i}" for i in range(len(rows))]
    switches = {"condition": listing.CONDITION}
    return Table("Laws by condition", head, rows, note, {}, keys, switches)


def refused(found: Comparison) -> Table | None:
    """The conditions that are not fitted, and why."""
    rows = [
        (one.title, str(one.runs), one.reason or "") for one in found.conditions if one.fits is None
    ]
    marks = dict.fromkeys(range(len(rows)), "aside")
    head = ("condition", "runs", "why it is not fitted")
    return Table("Conditions without a fit", head, rows, "", marks) if rows else None


def checks(found: Comparison) -> Table | None:
    """Forecast against measurement above --holdout_above, under every condition."""
    rows: Rows = []
    head: Sequence[str] = ()
    for one in found.conditions:
        table = None if one.fits is None else forecasts.check(one.fits)
        if table is not None:
            head = ("condition", *table.head)
            rows += [(one.title, *row) for row in table.rows]
    return Table("The forecasts checked", head, rows) if rows else None


def further_laws(found: Comparison) -> Table | None:
    """Laws of --laws: across the conditions that a law's own columns make, inside all others."""
    rows: Rows = []
    for one in found.laws:
        title = written(one.condition) or "all"
        if one.fit is None:
            rows.append((title, one.law, *[""] * (len(LAW_HEAD) - 2), one.reason or ""))
        else:
            rows.append((title, *law_row(one.fit)))
    head = ("conditions", *LAW_HEAD)
    return Table("Further laws", head, rows) if rows else None


def tuned(found: Comparison) -> Table | None:
    """Laws of hyper-parameters, fitted under every condition by itself."""
    rows: Rows = []
    head: Sequence[str] = ()
    for one in found.conditions:
        table = None if one.fits is None else tuning.laws(one.fits.tuning)
        if table is not None:
            head = ("condition", *table.head)
            rows += [(one.title, *row) for row in table.rows]
    return Table("Laws of hyper-parameters", head, rows) if rows else None


def doubts(found: Comparison) -> list[str]:
    """What there is to doubt: once what is said of every condition, else with the condition."""
    fitted = [one for one in found.conditions if one.fits is not None]
    each = [summary.doubts(one.fits) if one.fits is not None else [] for one in fitted]
    said = Counter(text for texts in each for text in texts)
    common = [text for text in said if said[text] == len(fitted)]
    common += [text for text in found.warnings if text not in common]
    units = [c.name for c in found.columns if c.name in found.by and OTHER_LOSS in c.reason]
    if units:
        common.append(
            f"losses under different {', '.join(units)} may be of different texts or units: sizes "
            "and exponents compare, losses may not"
        )
    return [
        *([found.choice] if found.choice else []),
        *(found.versus.warnings if found.versus else ()),
        *common,
        *(
            f"{one.title}: {text}"
            for one, texts in zip(fitted, each, strict=True)
            for text in texts
            if text not in common
        ),
    ]


def html(
    found: Comparison,
    drawn: Mapping[str, Picture | Absence],
    runs: Runs | None = None,
    overlays: Sequence[PublishedLaw] = (),
    checked: Sequence[Withdrawn] = (),
) -> str:
    """The page as text; `runs` are listed, unless two tables are opposed."""

    def some(*names: str) -> list[Picture | Absence]:
        return [drawn[name] for name in names if name in drawn]

    def present(*tables: Table | None) -> list[Table]:
        return [table for table in tables if table is not None and table.rows]

    pick = found.conditions[0].condition
    against: list[Table | None] = []
    if found.versus:
        against = [versus.speed_ups(found.versus), versus.fitness(found.versus)]
    sections = [
        Section("Speed-up", (), present(*against), some("speed_up")),
        Section("The optima", (), present(optima(found)), some("frontiers")),
        outcome.section(checked, some("outcome")),
        Section("The laws", (), present(laws(found))),
        Section("Conditions without a fit", (), present(refused(found))),
        Section("What to doubt", doubts=doubts(found)),
        Section("Forecasts checked", (), present(checks(found))),
        Section(
            "Further laws",
            (),
            present(further_laws(found), choices(law_fits(found))),
            some(*OF_LAWS),
        ),
        Section("Hyper-parameters", (), present(tuned(found))),
        published(overlays),
        Section(
            "Columns",
            (f"evaluate --where={written(pick, ',')} gives the whole report of one condition.",),
            present(listing.columns(found.columns)),
        ),
    ]
    if runs is not None and found.versus is None:
        sections.append(Section("Runs", (), [listed(runs, found)]))
    fitted = sum(one.runs for one in found.conditions)
    meta = (
        f"{fitted} runs under {len(found.conditions)} conditions, told apart by "
        f"{', '.join(found.by)}. {found.settings.bootstrap} bootstrap draws, seed "
        f"{found.settings.seed}. chinchilla_jax evaluate."
    )
    title = f"Compute-optimal training by {', '.join(found.by)}: {name_of(found.source)}"
    return page(title, meta, answer(found), sections)


def listed(
    runs: Runs, found: Comparison, called: Mapping[tuple[str, ...], str] | None = None
) -> Table:
    """Every run of the table with its condition.

    Args:
      called: what conditions are called, by their values.
    """
    runs = replace(runs, kinds={column.name: column for column in found.columns})  # as compared
    names = list(found.conditions[0].condition)
    labels = [runs.condition_labels(name).tolist() for name in names]
    value_R = list(zip(*labels, strict=True))
    titles = {values: written(dict(zip(names, values, strict=True))) for values in set(value_R)}
    titles |= called or {}
    return listing.runs(runs, runs, None, [titles[values] for values in value_R])


def terminal(found: Comparison, path: Path | str) -> str:
    """What `evaluate` prints: the flags that choose, the tables, the doubts, the page's path."""
    parts = [found.choice] if found.choice else []
    against = versus.speed_ups(found.versus) if found.versus and not found.versus.refusal else None
    further = further_laws(found), choices(law_fits(found)), tuned(found)
    tables_of = (optima(found), laws(found), *further)
    for table in (against, *tables_of):
        if table is not None and table.rows:
            shown = table.without_empty_columns()
            parts.append(tables.table(shown.head, shown.rows))
    parts.append("\n".join(answer(found)))
    left = refused(found)
    if left is not None:
        lines = [
            f"not fitted: {title} ({runs} run{'s' * (runs != '1')}): {why}"
            for title, runs, why in left.rows
        ]
        more = len(lines) - _LISTED
        lines = lines[:_LISTED] + ([f"not fitted: {more} more, see the report"] if more > 0 else [])
        parts.append("\n".join(lines))
    said = [text for text in doubts(found) if text != found.choice]
    if said:
        parts.append("\n".join(f"warning: {text}" for text in said))
    parts.append(listing.kinds_line(found.columns))
    parts.append(f"report: {path}")
    return "\n\n".join(parts)
