"""fits.json: the whole record, written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json, to_json
from chinchilla_jax.scaling.fits.accuracy import Task
from chinchilla_jax.scaling.fits.forecasts import Check, Forecast, Holdout
from chinchilla_jax.scaling.fits.minima import EnvelopeLaws, IsoFlop
from chinchilla_jax.scaling.fits.sources import Draws, Sources
from chinchilla_jax.scaling.fits.surface import FormFit, LackOfFit, Parametric
from chinchilla_jax.scaling.fits.table import Choices, RunTable
from chinchilla_jax.scaling.fits.variations import Convention, Influences
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.tuning.records import Tuning

VERSION = 3


@dataclass(frozen=True)
class Fits:
    """All of it."""

    version: int
    settings: Choices
    table: RunTable
    parametric: Parametric
    lack_of_fit: LackOfFit | None  # None where there is no surface, or too few runs
    forms: tuple[FormFit, ...]  # of surface, Chinchilla's first; empty where it was refused
    isoflop: IsoFlop
    envelope: EnvelopeLaws
    holdout: Holdout
    forecast: tuple[Forecast, ...]  # one for each budget asked for
    forecast_check: tuple[Check, ...] | None  # None without Settings.holdout_above
    influence: Influences
    conventions: tuple[Convention, ...]
    laws: tuple[LawFit, ...]  # those of --laws
    sources: Sources
    draws: Draws
    warnings: tuple[str, ...]  # a sentence each, most important first
    refusals: tuple[Refusal, ...]  # what cannot be known, and which runs would tell it
    tasks: tuple[Task, ...] = ()  # accuracies, where the table has some
    # Laws of hyper-parameters, of --laws.
    tuning: Tuning | None = field(default=None, metadata=UNLESS_DEFAULT)


def write(path: Path | str, fits: Fits) -> None:
    """Writes the record; the bootstrap draws on one line, the rest indented for reading.

    Raises:
      UserError: the folder cannot be written.
    """
    storage.write_text_atomic(path, text(to_json(fits)))


def text(data: object) -> str:
    """JSON as it is read: an entry a line, `draws` on one."""
    return f"{''.join(_lines(data, 1))}\n"


def _lines(value: object, depth: int) -> Iterator[str]:
    if not isinstance(value, dict | list) or not value:
        missing = isinstance(value, float) and not math.isfinite(value)
        yield json.dumps(None if missing else value, allow_nan=False)
        return
    named = isinstance(value, dict)
    items = value.items() if isinstance(value, dict) else (("", item) for item in value)
    between = "{" if named else "["
    for name, item in items:
        yield f"{between}\n{' ' * depth}{json.dumps(name) + ': ' if named else ''}"
        if name == "draws" and isinstance(item, dict):
            yield json.dumps(item, allow_nan=False, separators=(",", ":"))
        else:
            yield from _lines(item, depth + 1)
        between = ","
    yield f"\n{' ' * (depth - 1)}{'}' if named else ']'}"


def read(path: Path | str) -> Fits:
    """The record as it was written.

    Raises:
      UserError: no such file, another version, or not what `write` writes.
    """
    path = storage.path(path)
    data = json_data.read_json(path)
    check_version(data, path)
    try:
        return from_json(Fits, data, "fits")
    except UserError as error:
        raise UserError(f"{path}: {error}; run evaluate again") from None


def check_version(data: object, path: Path) -> None:
    """Raises UserError unless `data` is of this version."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        found = "no fits.json" if version is None else f"a fits.json of version {version!r:.20}"
        raise UserError(f"{path}: is {found}, and version {VERSION} is needed: run evaluate again")
