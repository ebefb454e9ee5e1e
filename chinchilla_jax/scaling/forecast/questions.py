"""Answers of a law: the best run of a budget, and the same question reversed.

All is derived from the frontier: the cheapest run that reaches a loss, the budget for which a size
or a number of tokens is right, what it costs to miss the optimum, and the model to train when it
will also be used (Sardana et al. 2401.00448).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats, known, silent
from chinchilla_jax.scaling.fitting.intervals import Intervals, interval
from chinchilla_jax.scaling.fitting.optimum import Optima, Optimum, along
from chinchilla_jax.scaling.forecast.frontier import Frontier
from chinchilla_jax.scaling.laws.published import minimise

_QUANTITIES = ("flops", "params", "tokens", "tokens_per_param", "loss")
_MOST_FLOPS = 1e45  # the search for a budget ends here
_STEPS = 181  # of it, four a decade
_FORWARD = 1 / 3  # of the training FLOPs of a token: the forward pass, paid again at inference


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

    @property
    def is_run(self) -> bool:
        """Whether the law gives a run at all: a parameter and a token at least."""
        return 1 <= self.params < np.inf and 1 <= self.tokens < np.inf


@silent()
def at_flops(frontier: Frontier, flops: float) -> Answer:
    """The compute-optimal run of a budget; not `is_run` where the law has none there."""
    return _answer(frontier, "flops", lambda best: best(np.array([flops])))


@silent()
def reaching(frontier: Frontier, quantity: str, value: float) -> Answer:
    """The compute-optimal run whose `quantity` (loss, params or tokens) is `value`.

    For a loss it is the cheapest run that reaches it; for a size or a number of tokens the budget
    for which that is the right one.

    Raises:
      UserError: the law has no loss, or no budget reaches the value.
    """
    if getattr(frontier.best(np.array([1e20])), quantity) is None:
        raise UserError(f"{quantity} = {value:g}: this law gives sizes, not a loss")

    def ask(best: Optima) -> Optimum:
        flops = _budget(best, quantity, value)
        return best(np.where((flops > 1.0) & (flops < 0.99 * _MOST_FLOPS), flops, np.nan))

    found = _answer(frontier, quantity, ask)
    if np.isnan(found.flops):
        why = "no budget makes it optimal"
        if quantity == "loss":
            floor = _quantity(frontier.best(np.array([_MOST_FLOPS])), "loss")[0]
            why = f"its floor is {floor:.4g}"
        raise UserError(f"{quantity} = {value:g}: out of reach of this law; {why}")
    return found


def _budget(best: Optima, quantity: str, value: float) -> Floats:
    """FLOPs at which `quantity` of the optimal run first is `value`, for every draw.

    A draw whose error of the form grows with distance may come back from it: hence steps along
    the budgets, and bisection only within the step that crosses it.
    """
    shape = best(np.array([1e20])).params.shape
    low, high = np.zeros(shape), np.full(shape, np.log(_MOST_FLOPS))
    rising = quantity != "loss"

    def beyond(log_flops: Floats) -> npt.NDArray[np.bool_]:
        with np.errstate(over="ignore"):
            found = _quantity(best(np.exp(log_flops)), quantity)
        return np.asarray(found > value if rising else found <= value)

    open_ = np.ones(shape, bool)
    for edge in np.linspace(0.0, np.log(_MOST_FLOPS), _STEPS):
        crossed = open_ & beyond(np.full(shape, edge))
        high = np.where(crossed, edge, high)
        open_ &= ~crossed
        low = np.where(open_, edge, low)
    for _ in range(50):
        middle = 0.5 * (low + high)
        there = beyond(middle)
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    return np.asarray(np.exp(0.5 * (low + high)))


def _quantity(found: Optimum, name: str) -> Floats:
    """Params, tokens, flops, tokens_per_param or loss; NaN where the law has no loss."""
    values = getattr(found, name)
    return np.full_like(found.params, np.nan) if values is None else np.asarray(values)


def _answer(frontier: Frontier, given: str, ask: Callable[[Optima], Optimum]) -> Answer:
    """Asks the law itself and, for the intervals of all but what was given, its draws."""
    point, intervals = ask(frontier.best), Intervals()
    values = {name: float(np.ravel(_quantity(point, name))[0]) for name in _QUANTITIES}
    if frontier.draws is not None:
        drawn = ask(frontier.draws)
        intervals = {n: interval(_quantity(drawn, n)) for n in _QUANTITIES if n != given}
    return Answer(
        values["flops"], values["params"], values["tokens"], known(values["loss"]), intervals
    )


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


@silent()
def misses(frontier: Frontier, flops: float, factors: tuple[float, ...] = (0.5, 2.0)) -> list[Miss]:
    """What it costs to train `factor` times the best size at equal FLOPs; [] without a loss."""
    if frontier.loss is None:
        return []
    # A loss law through minima says nothing beside them: the surface's own optimum is the measure.
    surface, cost = frontier.surface, frontier.cost
    optima = frontier.best if surface is None else along(surface, cost)
    best = optima(np.array([flops]))
    best_loss = _quantity(best, "loss")
    # Where FLOPs are not 6 N D (sparsity), the optimum's own ratio is kept.
    price = flops / cost.flops(best.params, best.tokens)
    found = []
    for factor in factors:
        params = best.params * factor
        tokens = cost.tokens(flops / price, params)
        loss = frontier.loss(params, tokens)
        equal = _budget(optima, "loss", float(loss[0]))
        found.append(
            Miss(
                factor,
                float(params[0]),
                float(tokens[0]),
                float(loss[0]),
                float((loss - best_loss)[0]),
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


@silent()
def for_inference(frontier: Frontier, loss: float, inference_tokens: float) -> Served:
    """Minimises kappa N^p D + (kappa/3) N^p D_inference over runs of that loss.

    Sardana et al. 2401.00448, equation 1, with 6 N D + 2 N D_inference in the ordinary count.

    Raises:
      UserError: the law is not a surface E + A/N^alpha + B/D^beta, or the loss is below its floor.
    """
    surface, cost = frontier.surface, frontier.cost
    if surface is None:
        raise UserError("--inference_tokens needs a law of the form E + A/N^alpha + B/D^beta")
    excess = loss - float(surface.E)  # that the bracket, to the power of gamma, may leave
    if excess <= 0:
        raise UserError(f"a loss of {loss:g} is below the floor E = {float(surface.E):.4g}")
    optimal = reaching(Frontier("", along(surface, cost), None, cost, surface), "loss", loss)

    def tokens(log_params: Floats) -> Floats:
        left = excess ** (1 / surface.gamma) - surface.A * np.exp(-surface.alpha * log_params)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(left > 0, (surface.B / left) ** (1 / surface.beta), np.inf))

    def total(log_params: Floats) -> Floats:
        n = np.exp(log_params)
        return cost.flops(n, tokens(log_params) + _FORWARD * inference_tokens)

    # Use makes the model smaller than the compute-optimal one, never larger.
    bracket = excess ** (1 / float(surface.gamma))
    smallest = np.log(float(surface.A) / bracket) / float(surface.alpha)
    log_params = minimise(total, np.array([smallest]), np.array([np.log(optimal.params)]))
    params, data = float(np.exp(log_params[0])), float(tokens(log_params)[0])
    trained = float(cost.flops(params, data))
    served = float(cost.flops(params, _FORWARD * inference_tokens))
    ordinary = float(cost.flops(optimal.params, optimal.tokens + _FORWARD * inference_tokens))
    return Served(loss, params, data, trained, served, 1 - (trained + served) / ordinary)
