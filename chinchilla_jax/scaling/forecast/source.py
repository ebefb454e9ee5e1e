"""What a forecast rests on: a fit and its bootstrap draws, as the record holds them.

One way leads from them to the compute-optimal run, whether they were fitted a moment ago or read
from a report's fits.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt.form_error import FormError
from chinchilla_jax.scaling.doubt.holdout import MINIMA, Forecaster
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws
from chinchilla_jax.scaling.fits import DrawTable, HeldOutError, MinimaSource, SurfaceSource
from chinchilla_jax.scaling.fitting.intervals import least
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws
from chinchilla_jax.scaling.fitting.minima import LossLaw, MinimaFit
from chinchilla_jax.scaling.fitting.optimum import Optima, along, through
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface, SurfaceFit
from chinchilla_jax.scaling.table.cost import FlopsModel

_LAWS = ("a", "ln_params_at_1", "b", "ln_tokens_at_1")
_LOSS_LAW = ("E", "A", "exponent")


@dataclass(frozen=True)
class Source:
    """A form of law fitted to a selection of runs; `cost` is what a run of theirs costs.

    `largest` are the FLOPs of their largest run, `others` all else that forecasts from the same
    runs, the best first.
    """

    fit: SurfaceSource | MinimaSource
    draws: DrawTable | None
    cost: FlopsModel
    largest: float
    others: tuple[Source, ...] = ()

    @property
    def other(self) -> Source | None:
        """The best of the other form: a surface, or laws through the minima."""
        form = self.forecaster.form
        return next((other for other in self.others if other.forecaster.form != form), None)

    @property
    def forecaster(self) -> Forecaster:
        """Its form and the runs it was fitted on."""
        if isinstance(self.fit, MinimaSource):
            return Forecaster("loss_law", MINIMA)
        return Forecaster("surface", self.fit.selection)

    @property
    def minima(self) -> str | None:
        """The method of the minima that the laws go through."""
        return self.fit.method if isinstance(self.fit, MinimaSource) else None

    @property
    def surface(self) -> Surface | None:
        """The loss of any run, where the form gives it."""
        return _surface(vars(self.fit)) if isinstance(self.fit, SurfaceSource) else None

    @property
    def surfaces(self) -> Surface | None:
        """`surface` under every draw, NaN where one has none; None without draws."""
        if not isinstance(self.fit, SurfaceSource) or self.draws is None:
            return None
        return _surface(self._columns(self.draws))

    @property
    def best(self) -> Optima:
        """The best runs under the fit."""
        return self._optima(vars(self.fit))

    @property
    def drawn(self) -> Optima | None:
        """The best run of a budget under every draw, NaN where it has none; None for too few.

        The error of the form is in them beside chance.
        """
        if self.draws is None or len(self.draws.rows) < least():
            return None
        found = self._optima(self._columns(self.draws))
        return self.error.widened(found, self.best, len(self.draws.rows), self.cost.exponent)

    @property
    def error(self) -> FormError:
        """What hold-out and the others show of this one's error."""
        others = [other.best for other in self.others]
        return FormError(self.fit.held_out, others, self.largest, self.other is not None)

    def checked_by(self, held_out: HeldOutError | None, others: Sequence[Source]) -> Source:
        """The source with what is known of its error."""
        return replace(self, fit=replace(self.fit, held_out=held_out), others=tuple(others))

    @property
    def noise(self) -> Floats:
        """Standard deviation of ln loss of one more run, of every draw or of all."""
        if self.draws is None or "noise" not in self.draws.columns:
            return np.asarray(self.fit.noise)
        return self._columns(self.draws)["noise"]

    def _optima(self, values: Mapping[str, Floats | float]) -> Optima:
        if isinstance(self.fit, SurfaceSource):
            return along(_surface(values), self.cost)
        laws = PowerLaws(*(np.asarray(values[name]) for name in _LAWS))
        return through(laws, LossLaw(*(np.asarray(values[name]) for name in _LOSS_LAW)))

    @staticmethod
    def _columns(table: DrawTable) -> dict[str, Floats]:
        return dict(zip(table.columns, table.rows.T, strict=True))


def _surface(values: Mapping[str, Floats | float]) -> Surface:
    return Surface(*(values[name] for name in PARAMETERS))


def of_surface(
    selection: str, fit: SurfaceFit, draws: SurfaceDraws | None, cost: FlopsModel, largest: float
) -> Source:
    """A surface fitted to the runs of `selection`."""
    values: dict[str, Any] = dict(zip(PARAMETERS, map(float, fit.surface.columns()), strict=True))
    table = None
    if draws is not None:
        columns = [np.asarray(x) for x in (*draws.frontier.columns(), draws.noise)]
        table = DrawTable((*PARAMETERS, "noise"), np.stack(columns, axis=1))
    found = SurfaceSource(fit.form, selection, **values, noise=fit.noise)
    return Source(found, table, cost, largest)


def of_minima(fit: MinimaFit, noise: float, cost: FlopsModel, largest: float) -> Source | None:
    """The laws through one method's minima; None where they were refused."""
    if fit.laws is None or fit.loss_law is None:
        return None
    names, table = (*_LAWS, *_LOSS_LAW), None
    columns = _laws_columns(fit.laws, fit.loss_law)
    values: dict[str, Any] = {
        name: float(column[0]) for name, column in zip(names, columns, strict=True)
    }
    if fit.draws is not None and fit.draws.loss_law is not None:
        drawn = _laws_columns(fit.draws.laws, fit.draws.loss_law)
        table = DrawTable(names, np.stack(drawn, axis=1))
    return Source(MinimaSource(fit.method, **values, noise=noise), table, cost, largest)


def _laws_columns(laws: PowerLaws, law: LossLaw) -> tuple[Floats, ...]:
    return (laws.a, laws.log_params_1, laws.b, laws.log_tokens_1, law.E, law.A, law.exponent)
