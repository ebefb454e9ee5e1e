"""What `forecast --register`, `verify` and a report say of a forecast and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chinchilla_jax.experiment import numbers, storage, tables
from chinchilla_jax.experiment.commands import command
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import between, count, fixed, loss, percent, with_interval
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register import verdict as verdicts
from chinchilla_jax.scaling.register.ledger import Withdrawn
from chinchilla_jax.scaling.register.registration import Registration
from chinchilla_jax.scaling.register.verdict import Outcome, Regret, Verdict
from chinchilla_jax.scaling.report.forecasts import FORMS
from chinchilla_jax.scaling.report.page import Absence, Picture, Section
from chinchilla_jax.scaling.report.table import Rows, Table
from chinchilla_jax.scaling.table.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Write = Callable[[float | None], str]
NAMES: dict[str, tuple[str, Write]] = {
    "params": ("parameters N*", count),
    "tokens": ("tokens D*", count),
    "loss": ("loss L*", loss),
    "run": ("losses of single runs", loss),
}
_TITLE = "Forecast and outcome"
_WHERE = {True: "inside", False: "outside", None: "-"}


def registered(registration: Registration, file: Path | str, config: Path | str | None) -> str:
    """What is said of a forecast that has just been registered."""
    known = registration
    rows: Rows = [
        (NAMES[what][0], with_interval(one.value, one.interval, NAMES[what][1]))
        for what, one in (("params", known.params), ("tokens", known.tokens), ("loss", known.loss))
    ]
    rows += [
        (
            f"loss of {run.run_id}, {numbers.ratio(run.size)} N*",
            "-" if run.loss is None else with_interval(run.loss.value, run.loss.interval, loss),
        )
        for run in known.runs
    ]
    head = (f"at {numbers.flops(known.flops)} FLOPs", "forecast (95 %)")
    lines = [
        tables.table(head, rows),
        f"By the {FORMS[known.basis.form]}, {known.basis.runs} runs of {known.basis.source}; "
        f"{known.decades:.1f} decades beyond them.",
        f"forecast: {file}",
    ]
    if config is not None:
        workdir = f"runs/{Path(str(config)).stem}"
        total = numbers.flops(sum(run.flops for run in known.runs))
        lines += [
            f"config: {config}, {len(known.runs)} runs, {total} FLOPs in all; then",
            f"  {command('sweep', config=config, workdir=workdir)}",
            f"  {command('verify', forecast=file, runs=workdir)}",
        ]
    elif known.basis.columns is not None:
        lines += [
            "Train such sizes as the runs of the table were, and put them into a table; then",
            f"  {command('verify', forecast=file, runs='TABLE.csv')}",
        ]
    return "\n".join(lines)


def sentences(verdict: Verdict) -> list[str]:
    """Hit or miss, and what the choice cost."""
    chosen = _chosen(verdict)
    unjudged, came_out = verdict.unjudged, "Miss"
    if verdict.hit:
        came_out = "Hit as far as it was judged" if unjudged else "Hit"
    parts = []
    if chosen:
        one = chosen[0]
        said = f"a loss of {between(one.interval, loss)}" if one.interval else "a loss"
        came = " and ".join(loss(run.measured) for run in chosen)
        before = "" if verdict.table else f" before the run{'s' * (len(chosen) > 1)}"
        parts.append(
            f"{came_out}: of {count(one.params)} parameters at {numbers.flops(verdict.flops)} "
            f"FLOPs the forecast said {said}{before}; it came out at {came}."
        )
    elif verdict.table:
        numbers_of = {one.what: one for one in verdict.numbers}
        least = numbers_of["loss"]
        parts.append(
            f"{came_out}: at {numbers.flops(verdict.flops)} FLOPs the forecast said a loss L* of "
            f"{with_interval(least.predicted, least.interval, loss)}; "
            + (
                "its runs have no minimum."
                if least.measured is None
                else f"the minimum came out at {loss(least.measured)}."
            )
        )
    else:
        parts.append("Miss: no run of the registered size has a loss.")
    for what, which in (("Outside its interval", verdict.missed), ("Not judged", unjudged)):
        if which:
            names = ", ".join(NAMES.get(name, (name,))[0] for name in which)
            parts.append(f"{what}: {names}.")
    parts += [_cost(regret) for regret in verdict.regret]
    parts += [f"{note[:1].upper()}{note[1:]}." for note in verdict.notes]
    return parts


def _chosen(verdict: Verdict) -> list[verdicts.RunOutcome]:
    """The runs of the registered size."""
    return [run for run in verdict.runs if run.params == verdict.params]


def _cost(regret: Regret) -> str:
    against = {
        "neighbour": f"the best neighbour, {count(regret.params)} parameters",
        "minimum": f"the minimum of the new budget, {count(regret.params)} parameters",
    }[regret.against]
    spread = percent(regret.se).lstrip("+")
    if regret.loss <= 0:
        return (
            f"Choosing this size cost nothing against {against}: its loss is "
            f"{percent(abs(regret.loss)).lstrip('+')} lower (s.e. {spread})."
        )
    return (
        f"Choosing this size cost {percent(regret.loss).lstrip('+')} of loss (s.e. {spread}) "
        f"against {against}: {percent(regret.flops, 1).lstrip('+')} of the FLOPs."
    )


def table(verdict: Verdict) -> Table:
    """Every number that was forecast beside what was measured."""
    rows: Rows = [_row(NAMES[one.what][0], one, NAMES[one.what][1]) for one in verdict.numbers]
    rows += [_row(f"loss of {one.run_id} ({count(one.params)})", one, loss) for one in verdict.runs]
    head = ("", "forecast (95 %)", "measured", "", "error", "z")
    note = (
        f"Registered on {verdict.date} from {verdict.source}, {verdict.decades:.1f} decades below. "
        "N*, D*, L*: the minimum through the runs; z is the error in standard deviations of the "
        "forecast and of that minimum. Runs: where one more run was to fall."
    )
    marks = {i: "aside" for i, row in enumerate(rows) if row[3] == _WHERE[False]}
    keys = [""] * len(verdict.numbers) + [f"outcome {i}" for i in range(len(verdict.runs))]
    return Table(_TITLE, head, rows, note, marks, keys)


def _row(name: str, one: Outcome, write: Write) -> tuple[str, ...]:
    return (
        name, with_interval(one.predicted, one.interval, write), write(one.measured),
        _WHERE[one.inside], percent(one.error), fixed(one.z, 2),
    )  # fmt: skip


def terminal(verdict: Verdict) -> str:
    """What `verify` prints of a verdict."""
    shown = table(verdict).without_empty_columns()
    return "\n".join([tables.table(shown.head, shown.rows), "", *sentences(verdict)])


def drawn_beside(verdict: Verdict, forecast: Path) -> str:
    """The figure of a verdict by a table, beside the forecast; a line that says where it is."""
    from chinchilla_jax.scaling.report.plots import outcome, style  # brings Matplotlib

    place = forecast.with_name(f"{forecast.stem}_outcome.png")
    with style.styled():
        figure = outcome.outcome(verdict)
        if isinstance(figure, str):
            return f"no figure: {figure}"
        storage.write_bytes_atomic(place, style.png(figure))
    return f"figure: {place}"


def drawers(checked: Sequence[Withdrawn]) -> dict[str, Callable[[], Figure | str]]:
    """The figure of a report's first verdict by its name."""
    if not checked:
        return {}
    from chinchilla_jax.scaling.report.plots import outcome  # brings Matplotlib

    return {"outcome": partial(outcome.outcome, checked[0].verdict)}


def in_report(source: str, runs: Runs | None = None) -> list[Withdrawn]:
    """The verdicts on the runs of a work folder or of a table, for its report.

    That of a folder lies in it. Those by a table are in the ledger of forecasts/, here or beside
    the table, and are of the very runs and losses that are evaluated.

    Raises:
      UserError: one is damaged.
    """
    if not source:
        return []
    place = storage.path(source)
    try:
        inside = verdicts.in_folder(place) if place.is_dir() else None
    except UserError as error:
        raise UserError(f"{error}; run verify again") from None
    here = [storage.path("forecasts")]
    if not storage.is_remote(place):
        here += [place.parent / "forecasts", place.parent]
    files = dict.fromkeys((folder / ledgers.NAME).absolute() for folder in here)
    known = [one for file in files for one in ledgers.all_of(file)]
    if inside is not None:
        return [next((one for one in known if one.verdict == inside), Withdrawn(inside, ""))]
    return [] if runs is None else [one for one in known if ledgers.is_of(one.verdict, runs)]


def section(checked: Sequence[Withdrawn], pictures: Sequence[Picture | Absence]) -> Section:
    """The report's section; empty, and so not shown, where no forecast was checked."""
    said, found = [], []
    for i, one in enumerate(checked):
        said += [f"Withdrawn, given on wrong data: {one.reason}."] if one.reason else []
        said += sentences(one.verdict)
        # The figure is the first one's, and so are the points that it names.
        found.append(table(one.verdict) if i == 0 else replace(table(one.verdict), keys=()))
    return Section(_TITLE, said, found, pictures)
