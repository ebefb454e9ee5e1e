"""A forecast frozen before its runs: what is predicted, on what it rests, and what will be trained.

    forecasts/NAME.json holds a `Registration` and the digest of all of it.

The digest is written into the configuration of the runs that check the forecast, and every run
writes it into its result. So a result that names a forecast was trained after it: no clock is
asked, and a registration that was changed or made anew has no results.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json, require, to_json
from chinchilla_jax.scaling.fitting.intervals import Interval

VERSION = 1
_HEX = 64  # digits of a digest


@dataclass(frozen=True)
class Predicted:
    """A number and its 95 % interval; None where an end of it is open."""

    value: float
    interval: Interval | None

    def __post_init__(self) -> None:
        low, high = self.interval or (self.value, self.value)
        require(0 < self.value < float("inf"), "value", self.value, "a positive number is needed")
        require(0 < low <= high, "interval", self.interval, "must be two positive numbers in order")


@dataclass(frozen=True)
class RegisteredRun:
    """A run that will check the forecast; `loss` is where it would fall, None where none can say.

    `size` is what of N* it was chosen for: 0.5 to 2.
    """

    run_id: str
    fingerprint: str  # of all that decides its numbers; "" where nobody trains it by our plan
    size: float
    setting: str  # what its name says besides shape and seed: of several the best counts
    seed: int
    params: float  # under the convention of the fits
    tokens: float
    flops: float
    loss: Predicted | None


@dataclass(frozen=True)
class Basis:
    """What a forecast rests on."""

    source: str  # the table or folder of the runs
    runs: int
    digest: str  # of those runs, or of the table's file
    fits: str  # digest of the fits
    form: str  # "surface" or "loss_law"
    selection: str  # of the runs
    condition: dict[str, str]  # by which they were picked
    params_convention: str
    flops_convention: str
    largest: float  # FLOPs of the largest run
    minima: str  # the method by which minima are measured
    noise: float  # standard deviation of ln loss between runs that differ in nothing but chance
    # Of a table that is no folder of ours: its names of our columns, and what a person said others
    # are, by which the table that checks the forecast is read.
    columns: dict[str, str] | None = field(default=None, metadata=UNLESS_DEFAULT)
    kinds: dict[str, str] = field(default_factory=dict, metadata=UNLESS_DEFAULT)


@dataclass(frozen=True)
class Corpus:
    """The text that runs are trained on; None where a table does not say."""

    data_fingerprint: str | None
    tokenizer_fingerprint: str | None


@dataclass(frozen=True)
class Registration:
    """A forecast at `flops`, before any run there."""

    version: int
    name: str
    date: str  # of the registration, for people: nothing is decided by it
    code_version: str
    basis: Basis
    flops: float
    decades: float  # beyond the largest run
    params: Predicted  # N*
    tokens: Predicted  # D*
    tokens_per_param: Predicted
    loss: Predicted  # L*, of the minimum itself
    slope: float  # d ln L* / d ln C there: what a missed loss is worth in FLOPs
    corpus: Corpus
    experiment: Experiment | None  # that trains `runs`; None where no folder of ours is behind
    runs: tuple[RegisteredRun, ...]  # of a table those sizes whose loss is forecast

    def __post_init__(self) -> None:
        require(self.version == VERSION, "version", self.version, f"{VERSION} is needed")
        require(self.slope < 0, "slope", self.slope, "must be negative: more FLOPs, less loss")
        require(self.basis.noise >= 0, "basis.noise", self.basis.noise, "must not be negative")


def digest(data: Any) -> str:
    """SHA-256 of a value of plain JSON; the order of keys and the spaces do not count."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(registration: Registration) -> str:
    """The digest that its file, its configuration and its runs bear."""
    return digest(to_json(registration))


def text(registration: Registration) -> str:
    """The content of its file."""
    content = to_json(registration)
    return json.dumps({"digest": digest(content), **content}, indent=1, allow_nan=False) + "\n"


def read(path: Path | str) -> Registration:
    """A registered forecast as it was written.

    Raises:
      UserError: no such file, no registered forecast, or one that was changed since.
    """
    path = storage.path(path)
    data = json_data.read_json(path)
    names = {field.name for field in fields(Registration)}
    stated = data.pop("digest", None) if isinstance(data, dict) else None
    if not isinstance(stated, str) or len(stated) != _HEX or not names & set(data):
        raise UserError(f"{path}: is no registered forecast; forecast --register=FILE makes one")
    if (version := data.get("version")) != VERSION:
        raise UserError(f"{path}: is a forecast of version {version!r:.20}, not {VERSION}")
    if digest(data) != stated:
        raise UserError(
            f"{path}: was changed after it was registered (its digest is another): put the "
            "registered file back; a new forecast is a new file"
        )
    return from_json(Registration, data, str(path))
