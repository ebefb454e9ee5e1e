"""The loss of a new run at any size and length, with the interval in which it will fall.

run_forecast(read("report/fits.json"), params=7e9, tokens=1.4e11).interval
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats, known, silent
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.average import averaged
from chinchilla_jax.scaling.forecast.frontier import source_of
from chinchilla_jax.scaling.forecast.source import Source


@dataclass(frozen=True)
class RunForecast:
    """What a run of `params` and `tokens` is expected to reach.

    Attributes:
      loss: in the unit of the table; flops: training FLOPs, as the table counts them.
      interval: 95 %, of the loss of that one run: chance of the fit and of the run, and the error
        of the form as far as hold-out shows it. None without draws, or where an end is open.
      decades: beyond the largest run fitted; 0 or less inside.
      form, selection: of the law it rests on; of surfaces that are averaged the heaviest.
    """

    params: float
    tokens: float
    flops: float
    loss: float
    interval: Interval | None
    decades: float
    form: str
    selection: str


@silent()
def run_forecast(fits: Fits, params: float, tokens: float, form: str = "") -> RunForecast:
    """The loss of one more run like those of a report.

    Surfaces are averaged, each by its error on runs that it had not seen (`average`). With a `form`
    it rests on that law: at the optimum it is the loss forecast there, and beside laws through
    minima the surface says how much a run off the optimum loses.

    Args:
      form: as of `frontier.from_fits`; "" averages surfaces.
    Raises:
      UserError: a size or length that is no positive number, or no surface was fitted.
    """
    for name, value in (("params", params), ("tokens", tokens)):
        if not 0 < value < np.inf:
            raise UserError(f"{name}={value:g}: a positive number is needed")
    table = fits.table
    if fits.sources.surface is None:
        limits = " ".join(refusal.sentence for refusal in fits.refusals)
        raise UserError(f"{table.source}: {fits.parametric.reason or limits or 'no surface'}")
    if not form and fits.sources.runs is not None:
        return _averaged(fits, params, tokens)
    source = source_of(fits, form)
    beside = source if source.surface is not None else source.other
    assert beside is not None and beside.surface is not None
    at = np.array([float(source.cost.flops(params, tokens))])

    def off(surface: Surface) -> Floats:
        """Loss of the run over that of the best one of its FLOPs, of every surface."""
        least = np.asarray(along(surface, source.cost)(at).loss)
        return np.ravel(surface.loss(params, tokens) / least)

    loss = known(float(np.ravel(np.asarray(source.best(at).loss))[0] * off(beside.surface)[0]))
    if loss is None:
        raise UserError(f"params={params:g}, tokens={tokens:g}: the law gives no loss there")
    spread = None
    if source.drawn is not None:
        drawn = np.asarray(source.drawn(at).loss)
        surfaces = beside.surfaces
        paired = surfaces is not None and len(np.ravel(surfaces.E)) == len(drawn)
        expected = drawn * off(surfaces if surfaces and paired else beside.surface)
        chance = np.random.default_rng(0).standard_normal(len(drawn))
        size = _scatter(fits, source, beside, at, params)
        inner, outer = interval(expected), interval(expected * np.exp(size * chance))
        if inner is not None and outer is not None:  # never narrower than without its scatter
            spread = min(inner[0], outer[0]), max(inner[1], outer[1])
    return RunForecast(
        params=params,
        tokens=tokens,
        flops=float(at[0]),
        loss=loss,
        interval=spread,
        decades=float(np.log10(at[0] / source.largest)),
        form=source.forecaster.form,
        selection=source.forecaster.selection,
    )


def noise_of_seeds(fits: Fits, flops: float) -> float | None:
    """Standard deviation of ln loss between runs of `flops` that differ in nothing but chance.

    Beyond the budgets that have seeds that of the nearest; None where seeds do not tell it.
    """
    noise = fits.isoflop.noise
    if noise.from_ != "seeds":
        return None
    at = np.clip(flops, *(noise.range or fits.table.range.flops))
    return float(noise.log_loss * (at / (noise.flops or at)) ** noise.trend)


def _scatter(fits: Fits, source: Source, beside: Source, flops: Floats, params: float) -> Floats:
    """Standard deviation of ln loss of a run around what is expected of it.

    Where seeds tell the noise, what a surface misses besides is the error of its shape: a run of
    half or twice the best size has it in whole, and one of the best size has none.
    """
    noise = noise_of_seeds(fits, float(flops[0]))
    if noise is None:
        return source.noise
    missed = np.sqrt(max(0.0, beside.fit.noise**2 - fits.isoflop.noise.log_loss**2))
    off = np.abs(np.log2(params / source.best(flops).params))
    return np.asarray(np.hypot(noise, missed * np.minimum(1.0, off)))


def _averaged(fits: Fits, params: float, tokens: float) -> RunForecast:
    found, spread = averaged(fits, params, tokens)
    loss, runs = known(found), fits.sources.runs
    if loss is None or runs is None:
        raise UserError(f"params={params:g}, tokens={tokens:g}: no surface gives a loss there")
    flops = float(fits.table.flops_model.flops(params, tokens))
    return RunForecast(
        params=params,
        tokens=tokens,
        flops=flops,
        loss=loss,
        interval=spread,
        decades=float(np.log10(flops / fits.table.range.flops[1])),
        form=runs.members[0].form,
        selection=runs.members[0].selection,
    )
