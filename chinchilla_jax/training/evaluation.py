"""Loss on the held-out windows of an experiment, with its standard error."""

import math
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.training import sharding, techniques, transfers
from chinchilla_jax.training.compiled import Compiled
from chinchilla_jax.training.sources import Sources
from chinchilla_jax.training.step import TrainState

BATCH = 32  # windows at once


def evaluate(
    compiled: Compiled, state: TrainState, windows: np.ndarray, predicted_bytes: int
) -> dict[str, float | None]:
    """Mean loss over held-out windows, `Corpus.validation_windows`.

    Args:
      windows: tokens, [count, S + 1], of which all but the first are predicted.
      predicted_bytes: bytes of text that the predicted tokens stand for.
    Returns:
      loss, nats per token; loss_se, its standard error over windows (None for a single one);
      bits_per_byte, loss in bits times the tokens per byte of these very windows.
    """
    batch = BATCH * sharding.batch_divisor(compiled.mesh)
    padding = -len(windows) % batch
    padded = np.concatenate([windows, np.repeat(windows[:1], padding, axis=0)])
    where = NamedSharding(compiled.mesh, sharding.EVAL_BATCH)
    losses = [
        compiled.evaluate(state.params, state.techniques, transfers.place(part, where))
        for part in padded.reshape(-1, batch, padded.shape[1])
    ]
    nats = np.concatenate([transfers.fetch(part).astype(np.float64) for part in losses])[
        : len(windows)
    ]
    loss = float(nats.mean())
    return {
        "loss": loss,
        "loss_se": float(nats.std(ddof=1) / math.sqrt(len(nats))) if len(nats) > 1 else None,
        "bits_per_byte": loss / math.log(2) * windows[:, 1:].size / predicted_bytes,
    }


def at_end(
    run: RunConfig,
    compiled: Compiled,
    state: TrainState,
    held_out: tuple[np.ndarray, int],
    sources: Sources,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of a run that has ended: of its own state, and what its techniques measure.

    Args:
      held_out: what `evaluate` takes.
    """

    def evaluated(other: TrainState) -> dict[str, float | None]:
        return evaluate(compiled, other, *held_out)

    outcomes = evaluated(state)
    known = techniques.Evaluate(evaluated, outcomes, compiled.method, sources)
    return outcomes, techniques.measured(run, state, known)
