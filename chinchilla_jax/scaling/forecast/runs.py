"""The loss of a new run at any size and length, with the interval in which it will fall.

run_forecast(read("report/fits.json"), params=7e9, tokens=1.4e11).interval
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import known, silent
from chinchilla_jax.scaling.doubt.form_error import FormError
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.fitting.intervals import Interval, interval, least
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface


@dataclass(frozen=True)
class RunForecast:
    """What a run of `params` and `tokens` is expected to reach.

    Attributes:
      loss: in the unit of the table; flops: training FLOPs, as the table counts them.
      interval: 95 %, of the loss of that one run: chance of the fit and of the run, and the error
        of the form as far as hold-out shows it. None without draws, or where an end is open.
      decades: beyond the largest run fitted; 0 or less inside.
      form, selection: of the surface it rests on.
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
def run_forecast(fits: Fits, params: float, tokens: float) -> RunForecast:
    """The loss of one more run like those of a report.

    Raises:
      UserError: a size or length that is no positive number, or no surface was fitted.
    """
    for name, value in (("params", params), ("tokens", tokens)):
        if not 0 < value < np.inf:
            raise UserError(f"{name}={value:g}: a positive number is needed")
    source, table = fits.sources.surface, fits.table
    if source is None:
        limits = " ".join(refusal.sentence for refusal in fits.refusals)
        raise UserError(f"{table.source}: {fits.parametric.reason or limits or 'no surface'}")
    cost, largest = table.flops_model, table.range.flops[1]
    flops = float(cost.flops(params, tokens))
    surface = Surface(*(getattr(source, name) for name in PARAMETERS))
    spread = None
    drawn = fits.draws.surface
    if drawn is not None and len(drawn.rows) >= least():
        columns = dict(zip(drawn.columns, drawn.rows.T, strict=True))
        error = FormError(source.held_out, None, largest)
        at = np.array([flops])
        form, _ = error.at(at, along(surface, cost)(at))
        chance = np.random.default_rng(0).standard_normal((2, len(drawn.rows)))
        losses = Surface(*(columns[name] for name in PARAMETERS)).loss(params, tokens)
        spread = interval(losses * np.exp(columns["noise"] * chance[0] + form[0] * chance[1]))
    found = known(float(surface.loss(params, tokens)))
    if found is None:
        raise UserError(f"params={params:g}, tokens={tokens:g}: the surface gives no loss there")
    return RunForecast(
        params=params,
        tokens=tokens,
        flops=flops,
        loss=found,
        interval=spread,
        decades=float(np.log10(flops / largest)),
        form=source.form,
        selection=source.selection,
    )
