"""The first lines of a run's log: what runs, on what, from which code and text."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.numbers import count, data_size, flops
from chinchilla_jax.experiment.version import code_version
from chinchilla_jax.training.compiled import Compiled

log = logging.getLogger(__name__)


def announce(run: RunConfig, compiled: Compiled, corpus: Corpus) -> None:
    """Logs `lines`, by one process."""
    if jax.process_index():
        return
    text = {
        "corpus": corpus.data_fingerprint,
        "tokenizer": corpus.tokenizer_fingerprint,
        "training tokens": count(corpus.train_tokens),
    }
    code, processes = code_version(), jax.process_count()
    for line in lines(run, compiled.mesh, compiled.abstract_state, code, text, processes):
        log.info("%s: %s", run.run_id, line)


def lines(
    run: RunConfig, mesh: Mesh, state: Any, code: str, corpus: Mapping[str, Any], processes: int
) -> list[str]:
    """Devices, mesh, shapes, parameters, bytes, FLOPs, code and corpus, ready to be logged.

    Args:
      state: the TrainState as `jax.ShapeDtypeStruct`s with shardings.
      code: version of the code; corpus: facts by name, fingerprints and counts.
      processes: of this run, over hosts.
    """
    model = run.model
    spent = ledger(run).training_flops(run.flops_convention)
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    heads = f"{model.heads} x {model.head_size} (keys {model.kv_heads})"
    return [
        f"devices: {mesh.size} x {kind}, {processes} process{'es' if processes > 1 else ''}; "
        f"mesh: {axes}",
        f"model: {model.definition}, width {model.width}, depth {model.depth}, heads {heads}, "
        f"feed-forward {model.ff_size}, vocabulary {model.vocab_size}",
        f"batch: {run.batch_size} sequences of {run.sequence_length} tokens; {run.steps} steps, "
        f"{count(run.tokens)} tokens in all",
        f"parameters: {count(count_params(model).total)}; state: "
        f"{data_size(bytes_per_device(state))} per device",
        f"FLOPs: {flops(spent / run.steps, 4)} a step, {flops(spent, 4)} in all "
        f"({run.flops_convention} convention)",
        f"code: {code}; " + ", ".join(f"{name} {value}" for name, value in corpus.items()),
    ]


def bytes_per_device(state: Any) -> int:
    """What a state takes of one device's memory: weights and the optimizer's moments."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
