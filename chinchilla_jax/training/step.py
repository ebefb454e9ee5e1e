"""The training step.

Shapes: B sequences, S tokens each, N steps a dispatch, M microbatches a step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from chinchilla_jax.models.loss import Sums
from chinchilla_jax.training.method import Carried, Method

SMOOTHING = 0.95  # of the training loss, per step
METRICS = ("loss", "grad_norm", "smoothed_loss", "lowest_loss")  # of every step


class TrainState(struct.PyTreeNode):
    """All that a run carries from step to step."""

    step: jax.Array  # updates done
    params: Any
    opt_state: Any
    smoothed_loss: jax.Array  # exponential mean of the training loss
    lowest_loss: jax.Array  # the lowest it has been
    techniques: Carried  # what techniques carry besides, by their names


def mean_loss_and_gradients(
    method: Method, params: Any, carried: Carried, tokens_BxS1: jax.Array, microbatches: int
) -> tuple[jax.Array, Sums, Any]:
    """What is minimised and all sums, per token of the whole batch, and the float32 gradient.

    The batch is passed in M equal parts.
    """
    tokens = tokens_BxS1.shape[0] * (tokens_BxS1.shape[1] - 1)
    weights = method.weights(params, carried)

    def mean_loss(weights: Any, part: jax.Array) -> tuple[jax.Array, Sums]:
        # Each pass contributes its sum over *all* tokens of the batch: not a mean of means.
        inputs, beside = method.forward(weights, carried, part)
        value, more = method.loss(inputs, carried, part)
        sums = beside | more
        if "penalty" in beside:
            sums, value = {"loss": value} | sums, value + beside["penalty"]
        return value / tokens, {name: x / tokens for name, x in sums.items()}

    gradient = jax.value_and_grad(mean_loss, has_aux=True)
    if microbatches == 1:
        (value, means), grads = gradient(weights, tokens_BxS1)
        return value, means, jax.tree.map(lambda g: g.astype(jnp.float32), grads)

    def accumulate(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(weights, part)), None

    # Strided, so that rows split over devices stay split in every microbatch.
    passes = tokens_BxS1.reshape(-1, microbatches, tokens_BxS1.shape[1]).swapaxes(0, 1)
    one = jax.ShapeDtypeStruct(passes.shape[1:], passes.dtype)
    none = jax.tree.map(jnp.zeros_like, jax.eval_shape(mean_loss, weights, one)[1])
    zeros = (jnp.float32(0), none), jax.tree.map(jnp.zeros_like, params)
    (value, means), grads = jax.lax.scan(accumulate, zeros, passes)[0]
    return value, means, grads


def train_step(
    state: TrainState,
    tokens_BxS1: jax.Array,
    hyper: Mapping[str, jax.Array],
    *,
    method: Method,
    microbatches: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on one batch; `hyper` has its learning_rate and weight_decay."""
    value, means, grads = mean_loss_and_gradients(
        method, state.params, state.techniques, tokens_BxS1, microbatches
    )
    value = means.get("loss", value)
    updates, opt_state = method.tx.update(grads, state.opt_state, state.params, **hyper)
    smoothed = SMOOTHING * state.smoothed_loss + (1 - SMOOTHING) * value
    smoothed = jnp.where(state.step == 0, value, smoothed)
    metrics = {
        "loss": value,
        "grad_norm": optax.tree.norm(grads),
        "smoothed_loss": smoothed,
        "lowest_loss": jnp.minimum(state.lowest_loss, smoothed),
    }
    beside = {**means, **method.measure(means)}
    metrics |= {name: beside[name] for name in method.metrics}
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        smoothed_loss=smoothed,
        lowest_loss=metrics["lowest_loss"],
        techniques=method.update(state.techniques, means),
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
    metrics: tuple[str, ...] = METRICS,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first `count` of N updates in one dispatch; `metrics` are [N], zero past `count`.

    `count` is data: the same executable does any number of steps, so that where a run is cut
    into dispatches, or interrupted, changes no digit of it. Of one update, `count` is 1.
    """
    length = rates_N.shape[0]

    def body(i: jax.Array, carry: Any) -> Any:
        state, history = carry
        hyper = {"learning_rate": rates_N[i], "weight_decay": weight_decay}
        state, values = step(state, tokens_NxBxS1[i], hyper)
        return state, {name: history[name].at[i].set(values[name]) for name in history}

    if length == 1:
        # No loop whose end the device must first read: the host runs ahead of an accelerator.
        state, history = step(
            state, tokens_NxBxS1[0], {"learning_rate": rates_N[0], "weight_decay": weight_decay}
        )
        return state, {name: value[None] for name, value in history.items()}
    history = {name: jnp.zeros(length, jnp.float32) for name in metrics}
    return jax.lax.fori_loop(0, count, body, (state, history))
