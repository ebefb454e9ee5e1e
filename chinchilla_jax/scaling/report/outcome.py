"""What `forecast --register` and `verify` say: a forecast, its outcome, and the calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chinchilla_jax.experiment import numbers, storage, tables
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import between, count, fixed, loss, percent, with_interval
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register import verdict as verdicts
from chinchilla_jax.scaling.register.ledger import Ledger, by_distance, calibration
from chinchilla_jax.scaling.register.registration import Registration
from chinchilla_jax.scaling.register.verdict import Outcome, Regret, Verdict
from chinchilla_jax.scaling.report.drawing import draw
from chinchilla_jax.scaling.report.page import Absence, Picture, Section
from chinchilla_jax.scaling.report.summary import FORMS, Rows, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Write = Callable[[float | None], str]
_NAMES: dict[str, tuple[str, Write]] = {
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
        (_NAMES[what][0], with_interval(one.value, one.interval, _NAMES[what][1]))
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
            f"  python -m chinchilla_jax.sweep --config={config} --workdir={workdir}",
            f"  python -m chinchilla_jax.verify --forecast={file} --runs={workdir}",
        ]
    elif known.basis.columns is not None:
        lines += [
            "Train such sizes as the runs of the table were, and put them into a table; then",
            f"  python -m chinchilla_jax.verify --forecast={file} --runs=TABLE.csv",
        ]
    return "\n".join(lines)


def sentences(verdict: Verdict) -> list[str]:
    """Hit or miss, and what the choice cost."""
    chosen = _chosen(verdict)
    came_out = "Hit" if verdict.hit else "Miss"
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
            f"{with_interval(least.predicted, least.interval, loss)}; the minimum came out at "
            f"{loss(least.measured)}."
        )
    else:
        parts.append("Miss: no run of the registered size has a loss.")
    if verdict.missed:
        names = ", ".join(_NAMES.get(name, (name,))[0] for name in verdict.missed)
        parts.append(f"Outside its interval: {names}.")
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
    rows: Rows = [_row(_NAMES[one.what][0], one, _NAMES[one.what][1]) for one in verdict.numbers]
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


def calibrated(ledger: Ledger) -> list[Table]:
    """All past forecasts, their calibration, and their errors against distance."""
    single: Rows = [
        (
            one.forecast, one.date, numbers.flops(one.flops), f"{one.decades:.2f}",
            "hit" if one.hit else "miss", *(_measured(one, what) for what in ("loss", "params")),
            percent(next((r.loss for r in one.regret if r.against == "neighbour"), None)),
        )
        for one in ledger.verdicts
    ]  # fmt: skip
    kinds: Rows = [
        (
            _NAMES[one.what][0], str(one.forecasts), percent(one.coverage, 0).lstrip("+"),
            fixed(one.mean_z, 2), fixed(one.rms_z, 2), fixed(one.pinball),
            percent(one.rms_error).lstrip("+"),
        )
        for one in calibration(ledger.verdicts)
    ]  # fmt: skip
    far: Rows = [
        (
            f"{one.low:g} to {one.high:g}" if math.isfinite(one.high) else f"over {one.low:g}",
            str(one.forecasts), percent(one.loss).lstrip("+"), percent(one.params).lstrip("+"),
            percent(one.inside, 0).lstrip("+"),
        )
        for one in by_distance(ledger.verdicts)
    ]  # fmt: skip
    return [
        Table(
            "Forecasts",
            ("forecast", "registered", "FLOPs", "decades", "", "error of L*", "of N*", "regret"),
            single,
        ),
        Table(
            "Calibration",
            ("number", "forecasts", "inside 95 %", "mean z", "rms z", "pinball", "rms error"),
            kinds,
            "Right are 95 %, a mean z of 0 and an rms z of 1. Numbers of one forecast go together: "
            "it counts as one case rather than as several.",
        ),
        Table(
            "Error against distance",
            ("decades beyond the runs", "forecasts", "rms error of L*", "of N*", "inside 95 %"),
            far,
        ),
    ]


def _measured(verdict: Verdict, what: str) -> str:
    return percent(next((one.error for one in verdict.numbers if one.what == what), None))


def of_ledger(path: Path | str, out: Path | str, figures: bool = True) -> str:
    """What `verify --ledger` prints; the figure goes to `out`.

    Raises:
      UserError: there is no verdict yet.
    """
    path, out = storage.path(path), storage.path(out)
    ledger = ledgers.read(path)
    if not ledger.verdicts and not ledger.damaged:
        raise UserError(f"{path}: holds no verdict yet; verify --forecast=FILE --runs=DIR adds one")
    parts = []
    for shown in calibrated(ledger):
        if shown.rows:
            trimmed = shown.without_empty_columns()
            parts.append("\n".join(filter(None, [
                trimmed.title, tables.table(trimmed.head, trimmed.rows), trimmed.note
            ])))  # fmt: skip
    parts += doubts(path, ledger)
    if ledger.verdicts and figures:
        from chinchilla_jax.scaling.report.plots import outcome  # brings Matplotlib

        draw(out, {"calibration": partial(outcome.calibration, ledger.verdicts)})
        parts.append(f"figure: {out / 'calibration.png'}")
    return "\n\n".join(parts)


def doubts(path: Path | str, ledger: Ledger) -> list[str]:
    """What of a ledger is not counted."""
    said = []
    if ledger.damaged:
        lines = ", ".join(map(str, ledger.damaged[:5])) + ", ..." * (len(ledger.damaged) > 5)
        said.append(
            f"warning: {path}: {len(ledger.damaged)} damaged line{'s' * (len(ledger.damaged) > 1)} "
            f"({lines}), kept and not counted"
        )
    if ledger.repeated:
        said.append(
            f"{ledger.repeated} later verdicts on forecasts that have one: the first counts"
        )
    return said


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


def drawers(verdict: Verdict) -> dict[str, Callable[[], Figure | str]]:
    """The figure of a verdict by its name."""
    from chinchilla_jax.scaling.report.plots import outcome  # brings Matplotlib

    return {"outcome": partial(outcome.outcome, verdict)}


def in_report(source: str) -> Verdict | None:
    """The verdict on the runs of a work folder, for the report of that folder.

    Raises:
      UserError: it is damaged.
    """
    folder = storage.path(source or ".")
    if not source or not folder.is_dir():
        return None
    try:
        return verdicts.in_folder(folder)
    except UserError as error:
        raise UserError(f"{error}; run verify again") from None


def section(verdict: Verdict | None, pictures: Sequence[Picture | Absence]) -> Section:
    """The report's section; empty, and so not shown, where no forecast was checked."""
    if verdict is None:
        return Section(_TITLE)
    return Section(_TITLE, sentences(verdict), [table(verdict)], pictures)
