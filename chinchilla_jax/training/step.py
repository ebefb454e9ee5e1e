"""The training step.

Shapes: B sequences, S tokens each, N steps a dispatch, M microbatches a step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from chinchilla_jax.models import loss
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.module import in_compute_dtype

SMOOTHING = 0.95  # of the training loss, per step


class TrainState(struct.PyTreeNode):
    """All that a run carries from step to step."""

    step: jax.Array  # updates done
    params: Any
    opt_state: Any
    smoothed_loss: jax.Array  # exponential mean of the training loss
    lowest_loss: jax.Array  # the lowest it has been


def readout_inputs(
    model: Decoder, params: Any, tokens_BxS1: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `models.loss` takes, from windows of S + 1 tokens: x [B S, D], [D, V], targets [B S]."""
    variables = {"params": params}
    x_TxD: Any = model.apply(variables, tokens_BxS1[:, :-1], method="hidden")
    readout_DxV: Any = model.apply(variables, method="readout_DxV")
    return x_TxD, readout_DxV, tokens_BxS1[:, 1:].reshape(-1)


def mean_loss_and_gradients(
    model: Decoder,
    params: Any,
    tokens_BxS1: jax.Array,
    chunk_tokens: int,
    microbatches: int,
    parts: int = 1,
) -> tuple[jax.Array, Any]:
    """Mean loss per token over the whole batch and its float32 gradient, in M equal passes.

    Args:
      chunk_tokens: as in `models.loss`, like `parts`, the devices that the batch is split over.
    """
    tokens = tokens_BxS1.shape[0] * (tokens_BxS1.shape[1] - 1)
    # Cast once a step, not where each layer, recomputation and microbatch uses them, and before
    # they are gathered from other devices.
    weights = in_compute_dtype(params, model.dtype)

    def share(weights: Any, part: jax.Array) -> jax.Array:
        # Each pass contributes its sum over *all* tokens of the batch: not a mean of means.
        inputs = readout_inputs(model, weights, part)
        return loss.total_loss(*inputs, chunk_tokens, parts) / tokens

    if microbatches == 1:
        value, grads = jax.value_and_grad(share)(weights, tokens_BxS1)
        return value, jax.tree.map(lambda g: g.astype(jnp.float32), grads)

    def accumulate(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(share)(weights, part)), None

    # Strided, so that rows split over devices stay split in every microbatch.
    passes = tokens_BxS1.reshape(-1, microbatches, tokens_BxS1.shape[1]).swapaxes(0, 1)
    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(accumulate, zeros, passes)[0]


def train_step(
    state: TrainState,
    tokens_BxS1: jax.Array,
    hyper: Mapping[str, jax.Array],
    *,
    model: Decoder,
    tx: optax.GradientTransformationExtraArgs,
    chunk_tokens: int,
    microbatches: int,
    parts: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on one batch; `hyper` has its learning_rate and weight_decay."""
    value, grads = mean_loss_and_gradients(
        model, state.params, tokens_BxS1, chunk_tokens, microbatches, parts
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params, **hyper)
    smoothed = SMOOTHING * state.smoothed_loss + (1 - SMOOTHING) * value
    smoothed = jnp.where(state.step == 0, value, smoothed)
    metrics = {
        "loss": value,
        "grad_norm": optax.tree.norm(grads),
        "smoothed_loss": smoothed,
        "lowest_loss": jnp.minimum(state.lowest_loss, smoothed),
    }
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        smoothed_loss=smoothed,
        lowest_loss=metrics["lowest_loss"],
    )
    return state, metrics


def train_steps(
    state: TrainState,
    tokens_NxBxS1: jax.Array,
    rates_N: jax.Array,
    weight_decay: jax.Array,
    count: jax.Array,
    *,
    step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first `count` of N updates in one dispatch; metrics are [N], zero past `count`.

    `count` is data: the same executable does any number of steps, so that where a run is cut
    into dispatches, or interrupted, changes no digit of it. Of one update, `count` is 1.
    """
    length = rates_N.shape[0]

    def body(i: jax.Array, carry: Any) -> Any:
        state, history = carry
        hyper = {"learning_rate": rates_N[i], "weight_decay": weight_decay}
        state, metrics = step(state, tokens_NxBxS1[i], hyper)
        return state, {name: history[name].at[i].set(metrics[name]) for name in history}

    if length == 1:
        # No loop whose end the device must first read: the host runs ahead of an accelerator.
        state, history = step(
            state, tokens_NxBxS1[0], {"learning_rate": rates_N[0], "weight_decay": weight_decay}
        )
        return state, {name: value[None] for name, value in history.items()}
    names = ("loss", "grad_norm", "smoothed_loss", "lowest_loss")
    history = {name: jnp.zeros(length, jnp.float32) for name in names}
    return jax.lax.fori_loop(0, count, body, (state, history))
