"""What a run trains and how: the functions that its step and its evaluation are made of.

`dense` is the plain way. A technique wraps any of them (`training/techniques`), so that what is
evaluated is what is trained, and no loop knows of it.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models import loss as losses
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.loss import Sums
from chinchilla_jax.models.module import in_compute_dtype

# What techniques carry from step to step, by their names: `TrainState.techniques`.
Carried = dict[str, Any]


class Inputs(NamedTuple):
    """What `models.loss` takes."""

    x_TxD: jax.Array
    readout_DxV: jax.Array
    targets_T: jax.Array


@dataclass(frozen=True)
class Method:
    """A model, its loss and its optimizer.

    Attributes:
      model: the decoder.
      tx: updates from gradients.
      weights: (params, carried) -> weights as products take them, in training and in evaluation.
      forward: (weights, carried, tokens [B, S + 1]) -> (inputs of the loss, sums beside it). The
        sum `penalty`, a scalar, is minimised with the loss.
      loss: (inputs, carried, tokens) -> (what is minimised, summed over tokens; sums beside it).
        Where that is not cross-entropy, the sum `loss` is: it is what curves and divergence show.
      metrics: names of scalars that are logged beside the loss: means per token of sums, or
      measure: means of all sums per token -> what is logged and is no mean.
      fault: metrics of one step -> why the run cannot go on, empty where it can.
      begin: params -> what techniques carry at the start.
      update: (carried, means of all sums per token) -> carried after a step.
      given: () -> what techniques are given from outside (`hooks.Given`), by their names.
      total_loss: `models.loss.total_loss` by the chunks of this run.
      decoder: (shape, scaling) -> another decoder on the same devices, in the same precision.
    """

    model: Decoder
    tx: optax.GradientTransformationExtraArgs
    weights: Callable[[Any, Carried], Any]
    forward: Callable[[Any, Carried, jax.Array], tuple[Inputs, Sums]]
    loss: Callable[[Inputs, Carried, jax.Array], tuple[jax.Array, Sums]]
    metrics: tuple[str, ...] = ()
    measure: Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]] = lambda means: {}
    fault: Callable[[Mapping[str, float]], str] = lambda metrics: ""
    begin: Callable[[Any], Carried] = lambda params: {}
    update: Callable[[Carried, Mapping[str, jax.Array]], Carried] = lambda carried, means: carried
    given: Callable[[], Carried] = dict
    total_loss: Callable[..., tuple[jax.Array, Sums]] = losses.total_loss
    decoder: Callable[[ModelConfig, Scaling], Decoder] = Decoder


def dense(
    model: Decoder,
    tx: optax.GradientTransformationExtraArgs,
    chunk_tokens: int,
    parts: int,
    decoder: Callable[[ModelConfig, Scaling], Decoder] = Decoder,
) -> Method:
    """Cross-entropy of the model as it is.

    Args:
      chunk_tokens: as in `models.loss`, like `parts`, the devices that a batch is split over.
      decoder: of `Method`.
    """
    total_loss = functools.partial(losses.total_loss, chunk_tokens=chunk_tokens, parts=parts)

    def weights(params: Any, carried: Carried) -> Any:
        # Cast once a step, not where each layer, recomputation and microbatch uses them, and
        # before they are gathered from other devices.
        return in_compute_dtype(params, model.dtype)

    def forward(weights: Any, carried: Carried, tokens_BxS1: jax.Array) -> tuple[Inputs, Sums]:
        variables = {"params": weights}
        passed: Any = model.apply(variables, tokens_BxS1[:, :-1], method="hidden_and_sums")
        x_TxD, sums = passed
        readout_DxV: Any = model.apply(variables, method="readout_DxV")
        return Inputs(x_TxD, readout_DxV, tokens_BxS1[:, 1:].reshape(-1)), sums

    def cross_entropy(
        inputs: Inputs, carried: Carried, tokens_BxS1: jax.Array
    ) -> tuple[jax.Array, Sums]:
        return total_loss(*inputs)

    return Method(
        model, tx, weights, forward, cross_entropy, total_loss=total_loss, decoder=decoder
    )


def sequence_losses(
    method: Method, chunk_tokens: int, parts: int
) -> Callable[[Any, Carried, jax.Array], jax.Array]:
    """(params, carried, tokens [B, S + 1]) -> mean cross-entropy of each sequence, [B] nats."""

    def evaluate(params: Any, carried: Carried, tokens_BxS1: jax.Array) -> jax.Array:
        inputs, _ = method.forward(method.weights(params, carried), carried, tokens_BxS1)
        nats_T = losses.token_losses(*inputs, chunk_tokens, parts)
        return jnp.mean(nats_T.reshape(tokens_BxS1.shape[0], -1), axis=1)

    return evaluate
