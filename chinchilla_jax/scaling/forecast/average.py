"""The loss of any run as the mean of ln loss over forms of surface, and its interval.

Each form weighs by its error on runs that it had not seen (`doubt/rolling`). The interval holds the
spread of bootstrap draws of all of them, the scatter of one run, and the error that the average
itself showed on held-out runs, which grows in proportion to the distance (ln of FLOPs beyond the
largest fitted) further out than they lay. Of few cuts, whose errors are alike, that error is
Student's of three degrees. How often such intervals hold, and how wide they are:
tests/benchmarks/held_out_surfaces.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.fits import DrawTable, Fits, RunMember, RunSource
from chinchilla_jax.scaling.fitting.intervals import Interval, interval, least
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface

_AT_ONCE = 0.2  # ln FLOPs beyond the runs at which the whole error is there
_REPEATS = 20  # of every draw, with other chances of one run and of the form


@silent()
def averaged(fits: Fits, params: float, tokens: float) -> tuple[float, Interval | None]:
    """The loss of one more run of a report, and its 95 % interval; needs `fits.sources.runs`."""
    source = fits.sources.runs
    assert source is not None
    flops = fits.table.flops_model.flops(params, tokens)
    beyond = float(np.log(flops / fits.table.range.flops[1]))
    ends = run_interval(source, fits.draws.runs, params, tokens, beyond)
    return mean_loss(source.members, params, tokens), ends


def mean_loss(members: Sequence[RunMember], params: float, tokens: float) -> float:
    """exp of the mean of ln loss, by weight."""
    logs = [m.weight * np.log(_surface(m).loss(params, tokens)) for m in members if m.weight]
    return float(np.exp(np.sum(logs)))


def run_interval(
    source: RunSource, drawn: DrawTable | None, params: float, tokens: float, beyond: float
) -> Interval | None:
    """95 % interval of one run; `beyond` is ln of its FLOPs over the largest fitted."""
    if drawn is None or len(drawn.rows) < least():
        return None
    losses = Surface(*drawn.rows.T).loss(params, tokens)
    run, form = _chances(len(losses))
    held = source.held_out
    error = 0.0
    if held is not None:  # none of it inside the runs, where the scatter around the fit holds it
        error = held.loss * np.clip(beyond / _AT_ONCE, 0.0, 1.0) * max(1.0, beyond / held.distance)
    return interval((losses * np.exp(source.noise * run + error * form)).ravel())


def _surface(member: RunMember) -> Surface:
    return Surface(*(getattr(member, name) for name in PARAMETERS))


@functools.cache
def _chances(draws: int) -> tuple[Floats, Floats]:
    """[repeats, draws] of the normal and of Student's distribution of three degrees; always the
    same."""
    rng = np.random.default_rng(draws)
    return rng.standard_normal((_REPEATS, draws)), rng.standard_t(3, (_REPEATS, draws))
