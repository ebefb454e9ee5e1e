"""The sections `sources` and `draws`, which forecasts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import one_of, require
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits.bounds import (
    MOST,
    STEEPEST,
    loss_law_within,
    surface_within,
    within,
)
from chinchilla_jax.scaling.fitting.coupled import GAMMAS
from chinchilla_jax.scaling.fitting.forms import FORMS as SURFACES
from chinchilla_jax.scaling.fitting.surface import PARAMETERS


@dataclass(frozen=True)
class HeldOutError:
    """The error of ln(predicted / observed) that budgets a form had not seen show of it.

    `loss` and `params` are that error at `distance`, the rms of ln FLOPs beyond those fitted;
    `nearest` is the smallest.
    """

    loss: float
    params: float
    nearest: float
    distance: float
    forecasts: int
    folds: int = 1  # cuts below which it was fitted

    def __post_init__(self) -> None:
        within("sources.held_out", 0.0, MOST, loss=self.loss, params=self.params)
        within("sources.held_out", 1 / MOST, MOST, nearest=self.nearest, distance=self.distance)
        within("sources.held_out", 1, MOST, folds=self.folds)


@dataclass(frozen=True)
class SurfaceSource:
    """The surface that `draws.surface` belongs to."""

    form: str  # of fitting.forms.FORMS
    selection: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float  # 1 of Chinchilla's form
    noise: float
    held_out: HeldOutError | None = None

    def __post_init__(self) -> None:
        one_of("fits.sources.surface.form", self.form, tuple(SURFACES))
        surface_within("sources.surface", (self.E, self.A, self.B), (self.alpha, self.beta))
        within("sources.surface", 0.0, MOST, noise=self.noise)
        within("sources.surface", *GAMMAS, gamma=self.gamma)


@dataclass(frozen=True)
class MinimaSource:
    """The laws through the minima that `draws.minima` belongs to."""

    method: str
    a: float
    ln_params_at_1: float
    b: float
    ln_tokens_at_1: float
    E: float
    A: float
    exponent: float
    noise: float
    held_out: HeldOutError | None = None

    def __post_init__(self) -> None:
        loss_law_within("sources.minima", self.E, self.A, self.exponent)
        within("sources.minima", 0.0, MOST, noise=self.noise)
        within("sources.minima", -STEEPEST, STEEPEST, a=self.a, b=self.b)


@dataclass(frozen=True)
class RunMember:
    """A surface that forecasts of single runs average, and how it did on runs it had not seen."""

    form: str  # of fitting.forms.FORMS
    selection: str  # of the runs it was fitted on
    runs: int
    weight: float  # of ln loss; they sum to 1
    rms: float | None  # of ln(predicted / observed) of runs beyond the cuts; None: unchecked
    bias: float | None
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        where = "sources.runs.members"
        one_of(f"fits.{where}.form", self.form, tuple(SURFACES))
        surface_within(where, (self.E, self.A, self.B), (self.alpha, self.beta))
        within(where, *GAMMAS, gamma=self.gamma)
        within(where, 0.0, 1.0, weight=self.weight)


@dataclass(frozen=True)
class HeldOutRuns:
    """Errors of the average of surfaces at runs beyond those fitted, over all cuts."""

    loss: float  # rms of ln(predicted / observed)
    distance: float  # rms of ln FLOPs beyond those fitted
    cuts: int
    runs: int  # predicted

    def __post_init__(self) -> None:
        within("sources.runs.held_out", 0.0, MOST, loss=self.loss)
        within("sources.runs.held_out", 1e-6, MOST, distance=self.distance)


@dataclass(frozen=True)
class RunSource:
    """What forecasts of single runs rest on: the mean of ln loss over surfaces, by weight."""

    members: tuple[RunMember, ...]  # the heaviest first
    reason: str  # why these weights
    noise: float  # standard deviation of ln loss of a run around the average
    held_out: HeldOutRuns | None  # None where nothing could be held out

    def __post_init__(self) -> None:
        require(bool(self.members), "fits.sources.runs.members", [], "one at least is needed")
        within("sources.runs", 0.0, MOST, noise=self.noise)


@dataclass(frozen=True)
class Sources:
    """The fits that forecasts rest on; None where they were refused."""

    surface: SurfaceSource | None
    minima: MinimaSource | None
    runs: RunSource | None = None
    # What else forecasts from the same runs: its differences tell of the form's error.
    beside: tuple[SurfaceSource, ...] = ()


@dataclass(frozen=True, eq=False)
class DrawTable:
    """A row per bootstrap draw; NaN in memory, null in the file where a draw has no optimum."""

    columns: tuple[str, ...]
    rows: Floats  # [draws, columns]

    def to_json(self) -> dict[str, Any]:
        """At NumPy's speed: the rows are too many for one call an entry."""
        rows, missing = self.rows, ~np.isfinite(self.rows)
        if missing.any():
            rows = rows.astype(object)
            rows[missing] = None
        return {"columns": list(self.columns), "rows": rows.tolist()}

    @classmethod
    def from_json(cls, data: object, where: str) -> DrawTable:
        """The inverse of `to_json`.

        Raises:
          UserError: not a table of numbers and nulls under these columns.
        """
        if not isinstance(data, Mapping) or set(data) != {"columns", "rows"}:
            raise UserError(f"{where}: expected an object with the fields columns, rows")
        names, rows = data["columns"], data["rows"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{where}.columns: expected a list of texts")
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise UserError(f"{where}.rows: expected a list of lists")
        if set(map(len, rows)) - {len(names)}:
            raise UserError(f"{where}.rows: expected {len(names)} entries in every row")
        kinds = {kind for row in rows for kind in map(type, row)}
        if not kinds <= {float, int, type(None)}:
            raise UserError(f"{where}.rows: expected numbers and nulls")
        try:
            table = np.array(rows, float).reshape(-1, len(names))
        except OverflowError:
            raise UserError(f"{where}.rows: expected finite numbers") from None
        if np.isinf(table).any():
            raise UserError(f"{where}.rows: expected finite numbers")
        return cls(tuple(names), table)


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of `Sources`, from which `forecast` gives intervals at any budget.

    Columns are those of the source, the noise of `minima` and what is no number apart.
    """

    surface: DrawTable | None
    minima: DrawTable | None
    runs: DrawTable | None = None  # of all members, each as often as its weight says

    def __post_init__(self) -> None:
        for name, table, source, left in (
            ("surface", self.surface, SurfaceSource, ("form", "selection", "held_out")),
            ("minima", self.minima, MinimaSource, ("method", "noise", "held_out")),
        ):
            wanted = [each.name for each in fields(source) if each.name not in left]
            self._expect(name, table, wanted)
        self._expect("runs", self.runs, list(PARAMETERS))

    @staticmethod
    def _expect(name: str, table: DrawTable | None, wanted: list[str]) -> None:
        if table is not None and list(table.columns) != wanted:
            raise UserError(f"fits.draws.{name}: expected the columns {', '.join(wanted)}")
