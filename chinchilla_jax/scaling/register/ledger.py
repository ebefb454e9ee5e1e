"""Every verdict there was, a line each, and how well calibrated the forecasts are.

    forecasts/ledger.jsonl

It only grows. A line that is damaged is told and kept. A forecast counts once, by its first
verdict, so that nobody runs until it fits. One that was given on wrong data is withdrawn by a
further line, which everybody sees.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.lines import LineFile
from chinchilla_jax.experiment.schema import from_json, require, to_json
from chinchilla_jax.scaling.fitting.intervals import LEVEL
from chinchilla_jax.scaling.register import table as tables
from chinchilla_jax.scaling.register.registration import digest
from chinchilla_jax.scaling.register.verdict import Outcome, Verdict
from chinchilla_jax.scaling.table.runs import Runs

VERSION = 1
NAME = "ledger.jsonl"  # beside the registered forecasts
_ID = 12  # digits of a digest that name a verdict
_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Withdrawal:
    """A line that says of an earlier one that it was given on wrong data."""

    version: int
    withdraws: str  # the verdict's `identity`
    reason: str

    def __post_init__(self) -> None:
        require(bool(self.reason.strip()), "reason", self.reason, "say what was wrong")


@dataclass(frozen=True)
class Withdrawn:
    """A verdict that is not counted, and why."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Ledger:
    """What counts of its verdicts, in order: the first of each forecast that was not withdrawn.

    `damaged` are numbers of lines, from 1; `unknown` what is withdrawn and is no verdict here.
    """

    verdicts: tuple[Verdict, ...]
    damaged: tuple[int, ...]
    repeated: int  # verdicts that are not their forecast's first
    withdrawn: tuple[Withdrawn, ...] = ()
    unknown: tuple[str, ...] = ()


def identity(verdict: Verdict) -> str:
    """By which a verdict is named: the first digits of its digest."""
    return digest(to_json(verdict))[:_ID]


def read(path: Path | str) -> Ledger:
    """What a ledger holds; nothing where there is none yet.

    Raises:
      UserError: it cannot be read.
    """
    verdicts, reasons, damaged = _lines(storage.path(path))
    found: dict[str, Verdict] = {}
    repeated, withdrawn = 0, []
    for one, verdict in verdicts.items():
        if one in reasons:
            withdrawn.append(Withdrawn(verdict, reasons[one]))
            continue
        repeated += verdict.digest in found
        found.setdefault(verdict.digest, verdict)
    unknown = tuple(one for one in reasons if one not in verdicts)
    return Ledger(tuple(found.values()), tuple(damaged), repeated, tuple(withdrawn), unknown)


def all_of(path: Path | str) -> list[Withdrawn]:
    """Every verdict of a ledger once, with the reason of its withdrawal, "" where there is none."""
    verdicts, reasons, _ = _lines(storage.path(path))
    return [Withdrawn(verdict, reasons.get(one, "")) for one, verdict in verdicts.items()]


def is_of(verdict: Verdict, runs: Runs) -> bool:
    """Whether a verdict by a table is on these runs: all that it names have their losses here."""
    here = set(zip(runs.params, runs.loss, strict=True))
    if verdict.runs:
        return bool(verdict.table) and all(
            (one.params, one.measured) in here for one in verdict.runs
        )
    found = tables.at_budget(runs, verdict.flops) if verdict.table else None
    if found is None:
        return False
    return digest([list(one) for one in tables.measured(found.best())]) == verdict.runs_digest


def _lines(path: Path) -> tuple[dict[str, Verdict], dict[str, str], list[int]]:
    """Every verdict by its identity, reasons of those that are withdrawn, and damaged lines."""
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        content = b""
    verdicts: dict[str, Verdict] = {}
    reasons: dict[str, str] = {}
    damaged = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            if isinstance(data, dict) and "withdraws" in data:
                back = from_json(Withdrawal, data, "withdrawal")
                reasons.setdefault(back.withdraws, back.reason)
            else:
                verdict = from_json(Verdict, data, "verdict")
                verdicts.setdefault(identity(verdict), verdict)
        except (ValueError, RecursionError, UserError):
            damaged.append(number)
    return verdicts, reasons, damaged


def withdraw(path: Path | str, verdict: str, reason: str) -> Verdict:
    """Takes a verdict back that was given on wrong data: a line says so, and none is deleted.

    Args:
      verdict: its `identity`, or the first digits of it.
    Raises:
      UserError: there is no such verdict, it is withdrawn already, or no reason is given.
    """
    path = storage.path(path)
    verdicts, reasons, _ = _lines(path)
    found = [one for one in verdicts if verdict and one.startswith(verdict)]
    if len(found) != 1:
        known = ", ".join(f"{one} ({verdicts[one].forecast})" for one in found or verdicts)
        has = f"{len(found)} such verdicts" if found else "no such verdict"
        raise UserError(f"{path}: has {has} as {verdict!r}; there are {known or 'none'}")
    (one,) = found
    if one in reasons:
        raise UserError(f"{path}: {one} is withdrawn already: {reasons[one]}")
    append(path, Withdrawal(VERSION, one, reason))
    return verdicts[one]


def append(path: Path | str, entry: Verdict | Withdrawal) -> bool:
    """Adds a line, unless it is there already; whether it was added.

    Raises:
      UserError: the ledger cannot be read or written.
    """
    path = storage.path(path)
    line = json.dumps(to_json(entry), allow_nan=False)
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        content = b""
    if line.encode() in content.split(b"\n"):
        return False
    # A line that was cut off ends here, or it would take this one with it.
    begin = "\n" if content and not content.endswith(b"\n") else ""
    file = LineFile(path)
    storage.attempt(path, "written", lambda: path.parent.mkdir(parents=True, exist_ok=True))
    file.append(f"{begin}{line}\n")
    file.flush()
    return True


@dataclass(frozen=True)
class Calibration:
    """How one kind of number came out over all forecasts.

    Attributes:
      coverage: share of the intervals that have what was measured; of them LEVEL should. One
        beyond which the minimum lies counts, though nothing is measured and the rest lacks it.
      mean_z, rms_z: of errors in standard deviations, measured over forecast: 0 and 1 are right.
      pinball: mean pinball loss of the lower end, the middle and the upper end, of ln values: the
        smaller, the sharper and truer at once (Koenker & Bassett 1978).
      rms_error: of ln(measured / forecast).
    """

    what: str
    forecasts: int
    coverage: float | None
    mean_z: float | None
    rms_z: float | None
    pinball: float | None
    rms_error: float | None


def calibration(verdicts: Sequence[Verdict]) -> list[Calibration]:
    """Of N*, D*, L* and the losses of single runs, as far as there are any."""
    found = []
    for what in ("params", "tokens", "loss", "run"):
        numbers = [
            one for verdict in verdicts for one in (*verdict.numbers, *verdict.runs)
            if one.what == what and (one.measured, one.inside) != (None, None)
        ]  # fmt: skip
        if numbers:
            found.append(_calibration(what, numbers))
    return found


def _calibration(what: str, numbers: Sequence[Outcome]) -> Calibration:
    z = np.array([one.z for one in numbers if one.z is not None])
    inside = [one.inside for one in numbers if one.inside is not None]
    measured = [one for one in numbers if one.measured is not None]
    pinballs = [pinball(one) for one in measured if one.interval is not None]
    return Calibration(
        what=what,
        forecasts=len(numbers),
        coverage=float(np.mean(inside)) if inside else None,
        mean_z=float(z.mean()) if len(z) else None,
        rms_z=float(np.sqrt(np.mean(z**2))) if len(z) else None,
        pinball=float(np.mean(pinballs)) if pinballs else None,
        rms_error=_rms([one.error for one in measured if one.error is not None]),
    )


def pinball(one: Outcome) -> float:
    """Mean over three quantiles of (y - q) (level - [y < q]), y and q in ln."""
    assert one.interval is not None and one.measured is not None
    low, high = one.interval
    y = math.log(one.measured)
    losses = []
    for level, value in ((_TAIL, low), (0.5, one.predicted), (1 - _TAIL, high)):
        miss = y - math.log(value)
        losses.append(miss * (level - (miss < 0)))
    return sum(losses) / len(losses)


@dataclass(frozen=True)
class AtDistance:
    """Errors of forecasts of about one distance: `low` to `high` decades beyond the runs."""

    low: float
    high: float
    forecasts: int
    loss: float | None  # rms of ln(measured / forecast) of L*
    params: float | None  # of N*
    inside: float | None  # share of L* and N* inside their intervals


_DISTANCES = (0.0, 0.35, 0.75, 1.25, 2.25, math.inf)  # decades: a half, one, one to two


def by_distance(verdicts: Sequence[Verdict]) -> list[AtDistance]:
    """Error against how far beyond the runs the forecast was."""
    found = []
    for low, high in itertools.pairwise(_DISTANCES):
        here = [verdict for verdict in verdicts if low <= verdict.decades < high]
        numbers = [one for verdict in here for one in verdict.numbers]
        inside = [one.inside for one in numbers if one.what != "tokens" and one.inside is not None]
        if here:
            loss, params = (
                _rms([one.error for one in numbers if one.what == what and one.error is not None])
                for what in ("loss", "params")
            )
            share = float(np.mean(inside)) if inside else None
            found.append(AtDistance(low, high, len(here), loss, params, share))
    return found


def _rms(errors: Sequence[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None
