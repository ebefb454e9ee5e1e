"""Answers from a fitted or published law: the best run of a budget, and the same question reversed.

A `Frontier` is the compute-optimal run as a function of FLOPs, with bootstrap draws where there
are any. Everything else is derived from it: the cheapest run that reaches a loss, the budget for
which a size or a number of tokens is right, what it costs to miss the optimum, and the model to
train when it will also be used (Sardana et al. 2401.00448).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import FORMS, Fits
from chinchilla_jax.scaling.fitting.intervals import Intervals, interval
from chinchilla_jax.scaling.fitting.surface import SIX_ND, FlopsModel, Surface
from chinchilla_jax.scaling.laws.published import PublishedLaw, minimise

_QUANTITIES = ("flops", "params", "tokens", "tokens_per_param", "loss")
_MOST_FLOPS = 1e45  # the search for a budget ends here
_FORWARD = 1 / 3  # of the training FLOPs of a token: the forward pass, paid again at inference


@dataclass(frozen=True)
class Runs:
    """Runs as arrays of one entry, or of bootstrap draws: FLOPs, parameters, tokens, loss."""

    flops: Floats
    params: Floats
    tokens: Floats
    loss: Floats

    @property
    def tokens_per_param(self) -> Floats:
        return np.asarray(self.tokens / self.params)


Law = Callable[[Floats], Runs]
"""FLOPs -> compute-optimal runs, elementwise."""


@dataclass(frozen=True)
class Frontier:
    """A law that can be asked.

    Attributes:
      title: what answers, in a sentence.
      best: the compute-optimal run; draws: the same under every bootstrap draw, or None.
      surface: the loss of any run, for misses and inference; None where the law has none.
      surface_draws: its draws; cost: FLOPs of a run.
      largest: largest FLOPs of the runs behind it, and vocab_size: theirs, where they are known.
    """

    title: str
    best: Law
    draws: Law | None
    surface: Surface | None
    surface_draws: Surface | None
    cost: FlopsModel
    largest: float | None
    loss: Callable[[Floats, Floats], Floats] | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class Answer:
    """A run with 95 % intervals by name (flops, params, tokens, tokens_per_param, loss).

    An interval is None where an end is open, and absent for what was given and without draws.
    """

    flops: float
    params: float
    tokens: float
    loss: float | None
    interval: Intervals

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


def from_fits(fits: Fits, form: str = "") -> Frontier:
    """The law of a report's fits.json; `form` is surface, loss_law or "", what hold-out chose.

    Raises:
      UserError: there is no such form, or it was refused.
    """
    if form and form not in FORMS:
        raise UserError(f"--form={form} is none of {', '.join(FORMS)}")
    of_surface, of_minima = fits.sources.surface, fits.sources.minima
    form = form or fits.holdout.best.form
    cost, surface, surface_draws = fits.table.flops_model, None, None
    drawn: Law | None = None
    if of_surface is not None:
        surface = Surface(
            of_surface.E, of_surface.A, of_surface.B, of_surface.alpha, of_surface.beta
        )
        if fits.draws.surface is not None:
            surface_draws = Surface(*fits.draws.surface.rows.T[:5])
    if form == "surface":
        if surface is None or of_surface is None:
            raise UserError(_refusal(fits, fits.parametric.reason))
        title = f"surface on runs: {of_surface.selection}"
        best = _along(surface, cost)
        if surface_draws is not None:
            drawn = _along(surface_draws, cost)
    else:
        if of_minima is None:
            raise UserError(_refusal(fits, fits.isoflop.reason))
        title = f"power laws and L(C) through the minima ({of_minima.method})"
        names = ("a", "ln_params_at_1", "b", "ln_tokens_at_1", "E", "A", "exponent")
        best = _through_minima(*(np.array([getattr(of_minima, name)]) for name in names))
        if fits.draws.minima is not None:
            drawn = _through_minima(*fits.draws.minima.rows.T)
    return Frontier(
        f"{title}; {fits.table.fitted} runs of {fits.table.source}",
        best,
        drawn,
        surface,
        surface_draws,
        cost,
        fits.table.range.flops[1],
        None if surface is None else surface.loss,
        fits.table.vocab_size,
    )


def _refusal(fits: Fits, reason: str | None) -> str:
    """Why a form answers nothing, in the words of the evaluation."""
    limits = [refusal.sentence for refusal in fits.refusals]
    return f"{fits.table.source}: {reason or ' '.join(limits) or 'nothing was fitted to its runs'}"


def from_published(law: PublishedLaw, fixed: Mapping[str, float] | None = None) -> Frontier:
    """A published law; `fixed` holds further columns (unique_tokens, sparsity, width, depth)."""
    columns = dict(fixed or {})

    def best(flops: Floats) -> Runs:
        found = law.optimum(flops, **columns)
        nothing = np.full(np.shape(flops), np.nan)
        return Runs(
            flops, found.params, found.tokens, nothing if found.loss is None else found.loss
        )

    def loss(params: Floats, tokens: Floats) -> Floats:
        return law.loss(params, tokens, **columns)

    title = f"{law.title} ({law.name}): {law.source}. {law.note}".strip()
    known = law.law not in ("frontier", "frontier_table")
    return Frontier(
        title, best, None, law.surface, None, SIX_ND, law.flops[1], loss if known else None
    )


def at_flops(frontier: Frontier, flops: float) -> Answer:
    """The compute-optimal run of a budget."""
    return _answer(frontier, "flops", lambda law: law(np.array([flops])))


def reaching(frontier: Frontier, quantity: str, value: float) -> Answer:
    """The compute-optimal run whose `quantity` (loss, params or tokens) is `value`.

    For a loss it is the cheapest run that reaches it; for a size or a number of tokens the budget
    for which that is the right one.

    Raises:
      UserError: the law has no loss, or no budget reaches the value.
    """
    probe = frontier.best(np.array([1e20]))
    if np.isnan(getattr(probe, quantity)[0]):
        raise UserError(f"--{quantity}={value:g}: this law gives sizes, not a loss")

    def ask(law: Law) -> Runs:
        flops = _budget(law, quantity, value)
        with np.errstate(invalid="ignore"):
            return law(np.where((flops > 1.0) & (flops < 0.99 * _MOST_FLOPS), flops, np.nan))

    found = _answer(frontier, quantity, ask)
    if np.isnan(found.flops):
        floor = frontier.best(np.array([_MOST_FLOPS])).loss[0]
        why = f"its floor is {floor:.4g}" if quantity == "loss" else "no budget makes it optimal"
        raise UserError(f"--{quantity}={value:g}: out of reach of this law; {why}")
    return found


def _budget(law: Law, quantity: str, value: float) -> Floats:
    """FLOPs at which `quantity` of the optimal run is `value`, by bisection, for every draw."""
    shape = law(np.array([1e20])).params.shape
    low, high = np.zeros(shape), np.full(shape, np.log(_MOST_FLOPS))
    rising = quantity != "loss"
    for _ in range(80):
        middle = 0.5 * (low + high)
        with np.errstate(over="ignore"):
            beyond = (getattr(law(np.exp(middle)), quantity) > value) == rising
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.asarray(np.exp(0.5 * (low + high)))


def _answer(frontier: Frontier, given: str, ask: Callable[[Law], Runs]) -> Answer:
    """Asks the law itself and, for the intervals of all but what was given, its draws."""
    point, found = ask(frontier.best), Intervals()
    if frontier.draws is not None:
        drawn, names = (
            ask(frontier.draws),
            ["flops", "params", "tokens", "tokens_per_param", "loss"],
        )
        names.remove(given)
        found = {name: interval(np.asarray(getattr(drawn, name))) for name in names}
    loss = float(np.ravel(point.loss)[0])
    flops, params, tokens = (
        float(np.ravel(x)[0]) for x in (point.flops, point.params, point.tokens)
    )
    return Answer(flops, params, tokens, None if np.isnan(loss) else loss, found)


@dataclass(frozen=True)
class Miss:
    """A run of the same FLOPs beside the optimum.

    `wasted` is the share of the FLOPs that an optimal run of the same loss would not need.
    """

    factor: float
    params: float
    tokens: float
    loss: float
    excess: float
    wasted: float


def misses(frontier: Frontier, flops: float, factors: tuple[float, ...] = (0.5, 2.0)) -> list[Miss]:
    """What it costs to train `factor` times the best size at equal FLOPs; [] without a loss."""
    if frontier.loss is None:
        return []
    # A loss law through minima says nothing beside them: the surface's own optimum is the measure.
    along = frontier.best if frontier.surface is None else _along(frontier.surface, frontier.cost)
    best = along(np.array([flops]))
    # Where FLOPs are not 6 N D (sparsity), the optimum's own ratio is kept.
    price = flops / frontier.cost.flops(best.params, best.tokens)
    found = []
    for factor in factors:
        params = best.params * factor
        tokens = frontier.cost.tokens(flops / price, params)
        loss = frontier.loss(params, tokens)
        equal = _budget(along, "loss", float(loss[0]))
        found.append(
            Miss(
                factor,
                float(params[0]),
                float(tokens[0]),
                float(loss[0]),
                float((loss - best.loss)[0]),
                float(1 - np.ravel(equal)[0] / flops),
            )
        )
    return found


@dataclass(frozen=True)
class Served:
    """A run that minimises training plus inference FLOPs at a given loss; `saved` is the share of
    the total that it saves against the compute-optimal run of that loss."""

    loss: float
    params: float
    tokens: float
    training_flops: float
    inference_flops: float
    saved: float


def for_inference(frontier: Frontier, loss: float, inference_tokens: float) -> Served:
    """Minimises kappa N^p D + (kappa/3) N^p D_inference over runs of that loss.

    Sardana et al. 2401.00448, equation 1, with 6 N D + 2 N D_inference in the ordinary count.

    Raises:
      UserError: the law is not a surface E + A/N^alpha + B/D^beta, or the loss is below its floor.
    """
    surface, cost = frontier.surface, frontier.cost
    if surface is None:
        raise UserError("--inference_tokens needs a law of the form E + A/N^alpha + B/D^beta")
    excess = loss - float(surface.E)
    if excess <= 0:
        raise UserError(f"a loss of {loss:g} is below the floor E = {float(surface.E):.4g}")
    optimal = reaching(
        Frontier("", _along(surface, cost), None, surface, None, cost, None), "loss", loss
    )

    def tokens(log_params: Floats) -> Floats:
        left = excess - surface.A * np.exp(-surface.alpha * log_params)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(left > 0, (surface.B / left) ** (1 / surface.beta), np.inf))

    def total(log_params: Floats) -> Floats:
        n = np.exp(log_params)
        return cost.flops(n, tokens(log_params) + _FORWARD * inference_tokens)

    # Use makes the model smaller than the compute-optimal one, never larger.
    smallest = np.log(float(surface.A) / excess) / float(surface.alpha)
    log_params = minimise(total, np.array([smallest]), np.array([np.log(optimal.params)]))
    params, data = float(np.exp(log_params[0])), float(tokens(log_params)[0])
    trained = float(cost.flops(params, data))
    served = float(cost.flops(params, _FORWARD * inference_tokens))
    ordinary = float(cost.flops(optimal.params, optimal.tokens + _FORWARD * inference_tokens))
    return Served(loss, params, data, trained, served, 1 - (trained + served) / ordinary)


def _along(surface: Surface, cost: FlopsModel) -> Law:
    def law(flops: Floats) -> Runs:
        params, tokens = surface.optimum(flops, cost)
        return Runs(
            np.broadcast_to(flops, params.shape), params, tokens, surface.loss(params, tokens)
        )

    return law


def _through_minima(
    a: Floats, ln_params: Floats, b: Floats, ln_tokens: Floats, E: Floats, A: Floats, power: Floats
) -> Law:
    def law(flops: Floats) -> Runs:
        x = np.log(flops)
        params = np.exp(ln_params + a * x)
        loss = E + A * np.exp(-power * x)
        return Runs(np.broadcast_to(flops, params.shape), params, np.exp(ln_tokens + b * x), loss)

    return law
