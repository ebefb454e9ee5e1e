"""The report of an evaluation: fits.json, figures, and one page; and what the terminal shows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from chinchilla_jax.experiment import numbers, storage, tables
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.fits import write as write_fits
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.register.ledger import Withdrawn
from chinchilla_jax.scaling.report import (
    accuracies,
    forecasts,
    laws,
    listing,
    outcome,
    summary,
    tuning,
)
from chinchilla_jax.scaling.report.drawing import OF_LAWS, draw
from chinchilla_jax.scaling.report.page import Absence, Picture, Section, page
from chinchilla_jax.scaling.report.replacing import RECIPE, write_page
from chinchilla_jax.scaling.report.table import Table
from chinchilla_jax.scaling.table.conditions import written
from chinchilla_jax.scaling.table.conventions import in_print
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning.records import Tuning


@silent()
def write(
    out: Path | str,
    fits: Fits,
    arrays: Arrays,
    overlays: Sequence[PublishedLaw] = (),
    figures: bool = True,
) -> Path:
    """Writes fits.json, <figure>.png and .svg, and report.html under `out`; returns the page.

    Raises:
      UserError: the folder cannot be written.
    """
    out = storage.path(out)
    write_fits(out / "fits.json", fits)
    beside = [] if fits.tuning is None else _write_recipe(out, fits.tuning, arrays.tried)
    drawn: dict[str, Picture | Absence] = {}
    checked = outcome.in_report(fits.table.source, arrays.tried)
    if figures:
        from chinchilla_jax.scaling.report.plots import (
            FIGURES,
            of_laws,
            of_tasks,
            of_tuning,
        )  # brings Matplotlib

        drawers = {n: partial(figure, fits, arrays, overlays) for n, figure in FIGURES.items()}
        more = of_laws(fits.laws, arrays.tried) | of_tasks(fits, arrays) | of_tuning(fits)
        drawn = draw(out, {**drawers, **more, **outcome.drawers(checked)})
    path = out / "report.html"
    write_page(path, html(fits, arrays, drawn, overlays, checked), *beside)
    return path


def _write_recipe(out: Path, tuning: Tuning, runs: Runs) -> list[str]:
    """Writes recipe.json where the runs give a recipe; one of earlier runs does not stay."""
    from chinchilla_jax.experiment import fitted_recipe  # few ask for it
    from chinchilla_jax.scaling.tuning.recipe import no_recipe, recipe_of

    if no_recipe(tuning, runs):
        storage.remove(out / RECIPE)
        return []
    storage.write_text_atomic(out / RECIPE, fitted_recipe.text(recipe_of(tuning, runs)))
    return [RECIPE]


def _recipe_line(fits: Fits, page: Path | str) -> list[str]:
    """Where the recipe is, and how it is used, or what it leaves open."""
    from chinchilla_jax.experiment import fitted_recipe  # few ask for it

    place = storage.path(page).parent / RECIPE
    if fits.tuning is None or not storage.exists(place):
        return []
    if said := fitted_recipe.undetermined(fitted_recipe.read(str(place))):
        return [f"recipe: {place}; not one to use yet: {said}"]
    return [f"recipe: {place}; any config uses it with --config.recipe.source={place}"]


def writable(out: Path) -> Path:
    """The folder itself; UserError where no report can be written there, before a fit.

    Folders that were not there are not left behind: the runs may be refused.
    """
    absent = (
        [] if storage.is_remote(out) else [p for p in (out, *out.parents) if not storage.exists(p)]
    )
    place = out / ".writable"
    storage.write_bytes_atomic(place, b"")
    storage.remove(place)
    with contextlib.suppress(OSError):  # of a folder that somebody else has filled since
        for folder in absent:
            folder.rmdir()
    return out


def html(
    fits: Fits,
    arrays: Arrays,
    drawn: Mapping[str, Picture | Absence],
    overlays: Sequence[PublishedLaw] = (),
    checked: Sequence[Withdrawn] = (),
) -> str:
    """The page as text; `checked` are the verdicts on forecasts that these runs checked."""

    def some(*names: str) -> list[Picture | Absence]:
        return [drawn[name] for name in names if name in drawn]

    def present(*found: Table | str | None) -> list[Table | str]:
        return [part for part in found if part is not None]

    sections = [
        Section("The optimum", (), [summary.optima(fits)], some("isoflop", "frontier")),
        outcome.section(checked, some("outcome")),
        Section("What to doubt", doubts=summary.doubts(fits)),
        Section(
            "Exponents",
            (),
            present(summary.exponents(fits), summary.estimators(fits)),
            some("curves"),
        ),
        Section(
            "Loss surface",
            (),
            present(summary.surface(fits), summary.forms(fits)),
            some("surface", "residuals", "misfit"),
        ),
        Section(
            "Forecasts",
            (),
            present(forecasts.every(fits), forecasts.holdout(fits), forecasts.check(fits)),
            some("holdout"),
        ),
        Section(
            "Accuracy on tasks",
            (),
            present(*(make(fits) for make in accuracies.PARTS)),
            some("accuracy"),
        ),
        Section("Uncertainty", (), (), some("bootstrap", "influence")),
        Section(
            "Counting conventions",
            (_conventions(fits),),
            [summary.conventions(fits)],
            some("conventions"),
        ),
        Section(
            "Further laws",
            (),
            present(laws.further_laws(fits.laws), laws.choices(fits.laws)),
            some(*OF_LAWS),
        ),
        Section(
            "Hyper-parameters",
            () if fits.tuning is None else fits.tuning.warnings,
            present(*(make(fits.tuning) for make in tuning.PARTS)),
            some("tuning"),
        ),
        published(overlays),
        Section("Columns", (), present(listing.columns(fits.table.columns))),
        Section("Energy", (), present(listing.energy(arrays.tried))),
        Section("Runs", (), [listing.runs(arrays.tried, arrays.runs, arrays.residual_R)]),
    ]
    return page(_title(fits), _meta(fits), summary.answer(fits), sections)


def published(overlays: Sequence[PublishedLaw]) -> Section:
    """The laws that are drawn beside ours, with their sources."""
    return Section(
        "Published laws shown", [f"{law.title}: {law.source}. {law.note}" for law in overlays]
    )


def _title(fits: Fits) -> str:
    picked = written(fits.table.condition)
    name = name_of(fits.table.source)
    return f"Compute-optimal training: {', '.join(filter(None, [name, picked]))}"


def name_of(source: str) -> str:
    """What a table is called: its file, or the folder of a results.csv."""
    path = Path(source or "runs")
    return path.parent.name if path.name == "results.csv" else path.stem


def _meta(fits: Fits) -> str:
    table, settings = fits.table, fits.settings
    left = [f"{count} {status}" for status, count in table.aside.items()]
    left += [f"{table.beaten} at worse settings"] if table.beaten else []
    aside = ", ".join(left)
    flops = table.range.flops
    return (
        f"{table.fitted} runs fitted{f' ({aside} aside)' if aside else ''}, "
        f"{numbers.power_of_ten(flops[0], 2)} to {numbers.power_of_ten(flops[1], 2)} FLOPs. "
        f"Parameters: {in_print(table.params_convention)}. "
        f"FLOPs: {in_print(table.flops_convention)}. "
        f"{settings.bootstrap} bootstrap draws, seed {settings.seed}. chinchilla_jax evaluate."
    )


def _conventions(fits: Fits) -> str:
    table, cost = fits.table, fits.table.flops_model
    law = f"C = {cost.kappa:.4g} N^{cost.exponent:.3f} D"
    if cost.exponent == 1.0:
        law = f"C = {cost.kappa:.4g} N D"
    return (
        f"On this page N is the number of parameters ({in_print(table.params_convention)}) and C "
        f"the training FLOPs ({in_print(table.flops_convention)}). "
        f"Over the table {law}, within {100 * cost.spread:.1f} % (rms)."
    )


def terminal(fits: Fits, path: Path | str) -> str:
    """What `evaluate` prints: optima, exponents, warnings, the path of the page."""
    parts = []
    found = (
        *(make(fits) for make in (summary.optima, forecasts.check, summary.exponents)),
        accuracies.accuracies(fits),
        laws.further_laws(fits.laws),
        laws.choices(fits.laws),
        *(make(fits.tuning) for make in tuning.PARTS),
    )
    for table in found:
        if table is not None and table.rows:
            shown = table.without_empty_columns()
            parts.append(tables.table(shown.head, shown.rows))
    parts += accuracies.sentences(fits)
    parts += [] if fits.tuning is None else [*fits.tuning.warnings]
    answer = summary.answer(fits)
    parts.append("\n".join(answer))
    doubts = [text for text in summary.doubts(fits) if text not in answer]
    if doubts:
        parts.append("\n".join(f"warning: {text}" for text in doubts))
    parts.append(listing.kinds_line(fits.table.columns))
    parts += _recipe_line(fits, path)
    parts.append(f"report: {path}")
    return "\n\n".join(parts)
