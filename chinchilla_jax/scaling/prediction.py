"""Forecasts of the compute-optimal run from every form, with joint intervals."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.doubt.holdout import Forecaster
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws
from chinchilla_jax.scaling.fits import Prediction
from chinchilla_jax.scaling.fitting.intervals import Intervals, interval
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.surface import FlopsModel, Surface

_FIELDS = ("params", "tokens", "tokens_per_param", "loss", "new_run")


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal run; arrays of draws, or of one entry."""

    params: Floats
    tokens: Floats
    loss: Floats
    noise: Floats  # standard deviation of ln loss of one more run


@dataclass(frozen=True)
class SurfaceForecast:
    """Forecasts of a surface on one selection of runs."""

    forecaster: Forecaster
    surface: Surface
    noise: float
    cost: FlopsModel
    draws: SurfaceDraws | None
    minima: str | None = None

    def at(self, flops: float) -> Optimum:
        params, tokens = self.surface.optimum(flops, self.cost)
        loss = self.surface.loss(params, tokens)
        params, tokens, loss = (np.atleast_1d(x) for x in (params, tokens, loss))
        return Optimum(params, tokens, loss, np.array([self.noise]))

    def drawn(self, flops: float) -> Optimum | None:
        if self.draws is None:
            return None
        params, tokens = self.draws.frontier.optimum(flops, self.cost)
        return Optimum(params, tokens, self.draws.frontier.loss(params, tokens), self.draws.noise)


@dataclass(frozen=True)
class MinimaForecast:
    """Params and tokens by power laws through the minima, loss by L(C) through them."""

    forecaster: Forecaster
    fit: MinimaFit
    noise: float

    @property
    def minima(self) -> str:
        return self.fit.method

    def at(self, flops: float) -> Optimum:
        assert self.fit.laws is not None and self.fit.loss_law is not None
        params, tokens = self.fit.laws.at(flops)
        return Optimum(params, tokens, self.fit.loss_law.loss(flops), np.array([self.noise]))

    def drawn(self, flops: float) -> Optimum | None:
        draws = self.fit.draws
        if draws is None or draws.loss_law is None:
            return None
        params, tokens = draws.laws.at(flops)
        loss = draws.loss_law.loss(flops)
        return Optimum(params, tokens, loss, np.full(len(loss), self.noise))


Source = SurfaceForecast | MinimaForecast


def intervals(drawn: Optimum, rng: np.random.Generator) -> Intervals:
    """Percentile intervals; `new_run` adds the noise of one more run to the loss."""
    new_run = drawn.loss * np.exp(drawn.noise * rng.standard_normal(len(drawn.loss)))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = (drawn.params, drawn.tokens, drawn.tokens / drawn.params, drawn.loss, new_run)
    return {name: interval(column) for name, column in zip(_FIELDS, columns, strict=True)}


def forecast(source: Source, flops: float, rng: np.random.Generator) -> Prediction:
    """One entry of `forecast[].every` in the record."""
    point, drawn = source.at(flops), source.drawn(flops)
    return Prediction(
        **source.forecaster.as_dict(),
        minima=source.minima,
        params=known(point.params[0]),
        tokens=known(point.tokens[0]),
        tokens_per_param=known(point.tokens[0] / point.params[0]),
        loss=known(point.loss[0]),
        interval=None if drawn is None else intervals(drawn, rng),
    )
