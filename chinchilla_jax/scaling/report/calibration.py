"""What `verify` says of the ledger: its verdicts, their calibration, and what does not count."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from chinchilla_jax.experiment import numbers, storage, tables
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import fixed, percent
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register.ledger import Ledger, by_distance, calibration, identity
from chinchilla_jax.scaling.register.verdict import Verdict
from chinchilla_jax.scaling.report.drawing import draw
from chinchilla_jax.scaling.report.outcome import NAMES
from chinchilla_jax.scaling.report.table import Rows, Table


def calibrated(ledger: Ledger) -> list[Table]:
    """All past forecasts, their calibration, and their errors against distance."""
    single: Rows = [
        (
            one.forecast, one.date, numbers.flops(one.flops), f"{one.decades:.2f}",
            _came_out(one), *(_measured(one, what) for what in ("loss", "params")),
            percent(next((r.loss for r in one.regret if r.against == "neighbour"), None)),
            identity(one),
        )
        for one in ledger.verdicts
    ]  # fmt: skip
    kinds: Rows = [
        (
            NAMES[one.what][0], str(one.forecasts), percent(one.coverage, 0).lstrip("+"),
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
            (
                "forecast",
                "registered",
                "FLOPs",
                "decades",
                "",
                "error of L*",
                "of N*",
                "regret",
                "verdict",
            ),
            single,
        ),
        Table(
            "Calibration",
            ("number", "forecasts", "inside 95 %", "mean z", "rms z", "pinball", "rms error"),
            kinds,
            "Right are 95 %, a mean z of 0 and an rms z of 1. Numbers of one forecast go together: "
            "it counts as one case rather than as several. A minimum beyond its interval that was "
            "not reached counts as outside, and has no error.",
        ),
        Table(
            "Error against distance",
            ("decades beyond the runs", "forecasts", "rms error of L*", "of N*", "inside 95 %"),
            far,
        ),
    ]


def _came_out(verdict: Verdict) -> str:
    """Hit or miss, and whether a hit is of all that was forecast."""
    if not verdict.hit:
        return "miss"
    return "hit in part" if verdict.unjudged else "hit"


def _measured(verdict: Verdict, what: str) -> str:
    return percent(next((one.error for one in verdict.numbers if one.what == what), None))


def of_ledger(path: Path | str, out: Path | str, figures: bool = True) -> str:
    """What `verify --ledger` prints; the figure goes to `out`.

    Raises:
      UserError: there is no verdict yet.
    """
    path, out = storage.path(path), storage.path(out)
    ledger = ledgers.read(path)
    if not (ledger.verdicts or ledger.damaged or ledger.withdrawn or ledger.unknown):
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
    if ledger.unknown:
        said.append(
            f"warning: {path}: withdraws what is no verdict of it: {', '.join(ledger.unknown)}"
        )
    if ledger.repeated:
        said.append(
            f"{ledger.repeated} later verdicts on forecasts that have one: the first counts"
        )
    if ledger.withdrawn:
        several = len(ledger.withdrawn) > 1
        each = "; ".join(
            f"{identity(one.verdict)} of {one.verdict.forecast}, a "
            f"{'hit' if one.verdict.hit else 'miss'}: {one.reason}"
            for one in ledger.withdrawn
        )
        said.append(
            f"{len(ledger.withdrawn)} verdict{'s are' if several else ' is'} withdrawn, kept and "
            f"not counted ({each})"
        )
    return said


def recorded(path: Path, verdict: Verdict) -> str:
    """By what name a verdict stands in a ledger, and whether it counts there."""
    name, ledger = identity(verdict), ledgers.read(path)
    if any(one.verdict == verdict for one in ledger.withdrawn):
        counts = "; it is withdrawn, and does not count"
    elif verdict not in ledger.verdicts:
        first = next(one for one in ledger.verdicts if one.digest == verdict.digest)
        counts = f"; {identity(first)} was the first of this forecast, and counts"
    else:
        counts = ""
    return f"verdict: {name}{counts}\nledger: {path}"


def taken_back(path: Path, verdict: str, reason: str) -> str:
    """Withdraws a verdict; what is said of it then.

    Raises:
      UserError: one of both is not given, or there is no such verdict.
    """
    if not verdict or not reason:
        raise UserError("--withdraw=VERDICT and --reason=TEXT: give both; --ledger names verdicts")
    found = ledgers.withdraw(path, verdict, reason)
    return "\n".join([
        f"withdrawn: {identity(found)}, of {found.forecast}",
        *doubts(path, ledgers.read(path)),
        f"ledger: {path}",
    ])  # fmt: skip
