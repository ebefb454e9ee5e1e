"""How techniques are trained: a file and a row of HOOKS each.

The step, the loop and the compiled programs call the functions of this file and name no technique.
"""

from collections.abc import Mapping
from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.ledger import facts
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.training import given, sources
from chinchilla_jax.training.sources import ExportedSource, Sources
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.techniques import (
    data,
    distillation,
    experts,
    quantisation,
    sparsity,
    transfer,
)
from chinchilla_jax.training.techniques.hooks import Evaluate, Hooked, Hooks, method_of
from chinchilla_jax.training.transfers import unguarded

__all__ = [
    "HOOKS", "Evaluate", "Hooked", "Hooks", "completed", "corpus_of", "hooked", "measured",
    "method_of", "sources_of", "started",
]  # fmt: skip

# By the technique's name. One that only changes what is planned, or what is counted, has none.
HOOKS: Mapping[str, Hooks] = {
    "sparsity": sparsity.HOOKS,
    "distillation": distillation.HOOKS,
    "quantisation": quantisation.HOOKS,
    "experts": experts.HOOKS,
    "data": data.HOOKS,
    "transfer": transfer.HOOKS,
}


def hooked(run: RunConfig) -> tuple[Hooked, ...]:
    """The techniques of a run that change its training."""
    return tuple(
        Hooked(technique.name, HOOKS[technique.name], config, facts(run))
        for technique, config in techniques.active(run.techniques)
        if technique.name in HOOKS
    )


def corpus_of(run: RunConfig, corpus: Corpus) -> Corpus:
    """The text that a run is trained on."""
    for technique in hooked(run):
        if technique.hooks.corpus is not None:
            corpus = technique.hooks.corpus(corpus, technique.config, run)
    return corpus


def sources_of(run: RunConfig, corpus: Corpus, directory: RunDirectory) -> Sources:
    """The runs that `run`, of this folder, needs.

    Raises:
      UserError: as `sources.opened`, or one whose weights alone do not make its predictions.
    """
    found = sources.opened(run, corpus, directory)
    for source in found.values():
        if isinstance(source, ExportedSource):
            continue
        function = object()
        reason = beside_weights(source.run)
        for technique in hooked(source.run):
            if technique.wrapped("weights", function) is not function:
                reason = f"techniques.{technique.name}"
        if reason:
            raise UserError(
                f"{run.run_id} needs {source.other.run}, which computes with other weights "
                f"than it stores ({reason}); take a run without that"
            )
    return found


def beside_weights(run: RunConfig) -> str:
    """What a run predicts by beside weights, as `Method.weights` makes them; empty for nothing."""
    model, function = Decoder(run.model), object()
    for technique in hooked(run):
        if technique.wrapped("model", model) is not model:
            return f"techniques.{technique.name} computes with another model"
        if technique.wrapped("forward", function) is not function:
            beside = technique.hooks.beside_weights
            if beside is None or beside(technique.config):
                what = beside(technique.config) if beside else "is a forward pass of its own"
                return f"techniques.{technique.name} {what}"
    return ""


def started(run: RunConfig, state: TrainState, sources: Sources) -> TrainState:
    """The state that a new run starts from."""
    for technique in hooked(run):
        if technique.hooks.start is not None:
            with unguarded():
                state = technique.hooks.start(state, technique.config, run, sources)
    return state


def completed(
    run: RunConfig, state: TrainState, abstract: TrainState, sources: Sources
) -> TrainState:
    """A state that was begun or restored, with what techniques are given from outside.

    Args:
      abstract: shapes with shardings of the whole.
    """
    arrays = {
        technique.name: technique.hooks.given.arrays(
            given.of(abstract.techniques, technique.name), technique.config, sources
        )
        for technique in hooked(run)
        if technique.hooks.given is not None
    }
    return state.replace(techniques=given.joined(state.techniques, arrays))


def measured(run: RunConfig, state: TrainState, evaluate: Evaluate) -> dict[str, Any]:
    """What the techniques of a run measure at its end."""
    found: dict[str, Any] = {}
    for technique in hooked(run):
        if technique.hooks.finish is not None:
            with unguarded():
                found |= technique.hooks.finish(state, technique.config, run, evaluate)
    return found
