"""What the training of a technique may change, and how a run's techniques are folded into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import optax

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.techniques.technique import Facts
from chinchilla_jax.training.method import Carried, Method
from chinchilla_jax.training.sources import Sources
from chinchilla_jax.training.step import TrainState

T = TypeVar("T")

# (what there is, the technique's configuration, facts of the run) -> what takes its place
Wrap = Callable[[T, Any, Facts], T]


@dataclass(frozen=True)
class Evaluate:
    """Loss and bits per byte of a state on the held-out text, and what else there is at the end.

    Attributes:
      outcomes: those of the state in which the run has ended.
      method: its own.
      sources: the runs that it needs.
    """

    held_out: Callable[[TrainState], Mapping[str, Any]]
    outcomes: Mapping[str, Any]
    method: Method
    sources: Sources

    def __call__(self, state: TrainState) -> Mapping[str, Any]:
        """Columns of a result row."""
        return self.held_out(state)


@dataclass(frozen=True)
class Given:
    """Arrays that a run is given from outside, `training/given.py`.

    Attributes:
      shapes: (method, config, facts) -> their shapes and dtypes, called like parameters.
      arrays: (shapes with shardings, config, sources) -> them.
    """

    shapes: Callable[[Method, Any, Facts], Any]
    arrays: Callable[[Any, Any, Sources], Any]


@dataclass(frozen=True)
class Hooks:
    """How a technique is trained: any of these. What they say of shapes is `Method`'s.

    A technique that needs more than functions carries it in the train state under its name, where
    arrays called like parameters are split over devices like them, and vectors and scalars are on
    every device. Its state is saved, restored and resumed like the rest.

    Attributes:
      model: of the decoder.
      optimizer: of the optax transformation; its state is part of the optimizer's.
      weights: of `Method.weights`. Gradients are taken at what it returns and applied to the
        parameters as they are: straight through.
      forward: of `Method.forward`.
      beside_weights: config -> what its forward pass predicts by beside weights, where it has one;
        empty where that only sums something up.
      loss: of `Method.loss`.
      method: of the whole `Method`, where the others do not reach; the last of them.
      metrics: what is to be logged, by name: sums of `forward` or `loss`, or of `measure`.
      measure: (means of all sums, config, facts) -> scalars that are no means.
      fault: (metrics of one step, config, facts) -> why the run cannot go on, empty where it can.
      given: what it is given from outside, of those runs that it needs for example.
      begin: (params, config, facts) -> what it carries at the start; traced.
      update: (what it carries, means of all sums, config, facts) -> what it carries on.
      start: (state, config, run, sources) -> the state that a new run starts from, on the host:
        weights of another run, for example. A run that is resumed does not call it.
      corpus: (corpus, config, run) -> the text that the run is trained on.
      finish: (state, config, run, evaluate) -> what it measures at the end, columns of the result
        row; `evaluate(state)` gives loss and bits per byte of a state on the held-out text.
    """

    model: Wrap[Decoder] | None = None
    optimizer: Wrap[optax.GradientTransformationExtraArgs] | None = None
    weights: Wrap[Any] | None = None
    forward: Wrap[Any] | None = None
    beside_weights: Callable[[Any], str] | None = None
    loss: Wrap[Any] | None = None
    method: Wrap[Method] | None = None
    metrics: tuple[str, ...] = ()
    measure: Callable[[Mapping[str, jax.Array], Any, Facts], Mapping[str, jax.Array]] | None = None
    fault: Callable[[Mapping[str, float], Any, Facts], str] | None = None
    given: Given | None = None
    begin: Callable[[Any, Any, Facts], Any] | None = None
    update: Callable[[Any, Mapping[str, jax.Array], Any, Facts], Any] | None = None
    start: Callable[[TrainState, Any, RunConfig, Sources], TrainState] | None = None
    corpus: Callable[[Corpus, Any, RunConfig], Corpus] | None = None
    finish: Callable[[TrainState, Any, RunConfig, Evaluate], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Hooked:
    """A technique of a run, with all that its traced hooks may depend on."""

    name: str
    hooks: Hooks
    config: Any
    facts: Facts

    def wrapped(self, hook: str, inner: T) -> T:
        """`inner` as the hook of that name makes it, or as it is."""
        wrap: Wrap[T] | None = getattr(self.hooks, hook)
        return inner if wrap is None else wrap(inner, self.config, self.facts)


def method_of(
    model: Decoder,
    tx: optax.GradientTransformationExtraArgs,
    plain: Callable[[Decoder, optax.GradientTransformationExtraArgs], Method],
    hooked: Sequence[Hooked],
) -> Method:
    """The method of a run: `plain` of its model and optimizer, with what techniques change."""
    for technique in hooked:
        model, tx = technique.wrapped("model", model), technique.wrapped("optimizer", tx)
    method = plain(model, tx)
    for technique in hooked:
        method = replace(
            method,
            weights=technique.wrapped("weights", method.weights),
            forward=technique.wrapped("forward", method.forward),
            loss=technique.wrapped("loss", method.loss),
            metrics=method.metrics + technique.hooks.metrics,
        )
        method = technique.wrapped("method", method)

    def begin(params: Any) -> Carried:
        return {
            h.name: h.hooks.begin(params, h.config, h.facts)
            for h in hooked
            if h.hooks.begin is not None
        }

    shapes = {
        h.name: h.hooks.given.shapes(method, h.config, h.facts)
        for h in hooked
        if h.hooks.given is not None
    }

    def update(carried: Carried, means: Mapping[str, jax.Array]) -> Carried:
        changed = {
            h.name: h.hooks.update(carried[h.name], means, h.config, h.facts)
            for h in hooked
            if h.hooks.update is not None
        }
        return {**carried, **changed}

    def measure(means: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        found: dict[str, jax.Array] = {}
        for h in hooked:
            if h.hooks.measure is not None:
                found |= h.hooks.measure(means, h.config, h.facts)
        return found

    def fault(metrics: Mapping[str, float]) -> str:
        whys = (h.hooks.fault(metrics, h.config, h.facts) for h in hooked if h.hooks.fault)
        return next(filter(None, whys), "")

    return replace(
        method, begin=begin, update=update, measure=measure, fault=fault, given=lambda: shapes
    )
