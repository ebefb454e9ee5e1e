"""Losses of tokens from their logits, by chunks: a large vocabulary does not set the memory.

Shapes: T tokens, C tokens of a chunk, P parts that the tokens are split in over devices, D width,
V vocabulary. Logits and all sums over them are float32.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.models.products import einsum32

# Sums over tokens, by name, each of any shape; those of microbatches are added.
Sums = dict[str, jax.Array]


@dataclass(frozen=True)
class TokenLoss:
    """A loss of each token as a function of its logits, [..., V].

    Attributes:
      value: (logits, targets, constants) -> [...] float32.
      gradient: the same -> [..., V], the derivative of `value` by the logits.
      beside: the same -> what is summed up beside `value`, [...] float32 by name; no gradient.

    `targets` is what belongs to the tokens, an array or a tree of them with their axes in front,
    and `constants` what belongs to all of them; neither has a gradient.
    """

    value: Callable[[jax.Array, Any, Any], jax.Array]
    gradient: Callable[[jax.Array, Any, Any], jax.Array]
    beside: Callable[[jax.Array, Any, Any], Sums] = lambda logits, targets, constants: {}


def _chosen(targets: jax.Array, vocab_size: int) -> jax.Array:
    # A comparison instead of a gather: its gradient is no scatter, and it fuses and shards.
    return targets[..., None] == jax.lax.broadcast_to_rank(jnp.arange(vocab_size), targets.ndim + 1)


def _nats(logits: jax.Array, targets: jax.Array, _: Any) -> jax.Array:
    right = jnp.sum(jnp.where(_chosen(targets, logits.shape[-1]), logits, 0.0), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - right


def _dnats(logits: jax.Array, targets: jax.Array, _: Any) -> jax.Array:
    return jax.nn.softmax(logits, axis=-1) - _chosen(targets, logits.shape[-1])


CROSS_ENTROPY = TokenLoss(_nats, _dnats)


def _chunks(tree: Any, count: int, parts: int) -> Any:
    """[T, ...] to [count, P, C, ...], with zeros after the last token of each part."""

    def chunked(a: jax.Array) -> jax.Array:
        a = a.reshape(parts, -1, *a.shape[1:])
        size = -(-a.shape[1] // count)
        a = jnp.pad(a, [(0, 0), (0, size * count - a.shape[1])] + [(0, 0)] * (a.ndim - 2))
        return a.reshape(parts, count, size, *a.shape[2:]).swapaxes(0, 1)

    return jax.tree.map(chunked, tree)


def _tokens(a: jax.Array, tokens: int) -> jax.Array:
    """The inverse of `_chunks`."""
    _, parts, _, *rest = a.shape
    a = a.swapaxes(0, 1).reshape(parts, -1, *rest)
    return a[:, : tokens // parts].reshape(tokens, *rest)


def token_losses(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets: Any,
    chunk_tokens: int,
    parts: int = 1,
    of: TokenLoss = CROSS_ENTROPY,
    constants: Any = (),
) -> jax.Array:
    """The loss of each token, [T] float32, in nats; `total_loss` is for training.

    Args:
      x_TxD: hidden states, `Decoder.hidden`.
      readout_DxV: `Decoder.readout_DxV`.
      targets: of cross-entropy the next token of each position, [T]; see `TokenLoss`.
      chunk_tokens: most tokens with logits at any time on a device, at least 1.
      parts: how many devices the tokens are split over; divides them.
    """
    return _of_tokens(x_TxD, readout_DxV, targets, constants, chunk_tokens, parts, of)[0]


def _of_tokens(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets: Any,
    constants: Any,
    chunk_tokens: int,
    parts: int,
    of: TokenLoss,
) -> tuple[jax.Array, Sums]:
    """(`value`, `beside`) of each token, [T] each."""
    tokens = x_TxD.shape[0]
    count = -(-tokens // (parts * chunk_tokens))
    if count == 1:
        logits = einsum32("td,dv->tv", x_TxD, readout_DxV)
        return of.value(logits, targets, constants), of.beside(logits, targets, constants)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(part: tuple[jax.Array, Any]) -> tuple[jax.Array, Sums]:
        x_PxCxD, targets_PxC = part
        logits = einsum32("pcd,dv->pcv", x_PxCxD, readout_DxV)
        return of.value(logits, targets_PxC, constants), of.beside(logits, targets_PxC, constants)

    parts_of = functools.partial(_chunks, count=count, parts=parts)
    found = jax.lax.map(chunk, (parts_of(x_TxD), parts_of(targets)))
    return jax.tree.map(functools.partial(_tokens, tokens=tokens), found)


def total_loss(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets: Any,
    chunk_tokens: int,
    parts: int = 1,
    of: TokenLoss = CROSS_ENTROPY,
    constants: Any = (),
) -> tuple[jax.Array, Sums]:
    """The sum of `token_losses`, [] float32, whose gradient computes no logits twice; and the sums
    of what is beside it.

    Where more than one chunk is needed the forward pass computes the gradient as well, chunk by
    chunk, while it has the logits.
    """
    arrays = (x_TxD, readout_DxV, targets, constants)
    if x_TxD.shape[0] <= parts * chunk_tokens:
        return _total(*arrays, chunk_tokens, parts, of)
    return _chunked_total(*arrays, chunk_tokens, parts, of)


def _total(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets: Any,
    constants: Any,
    chunk_tokens: int,
    parts: int,
    of: TokenLoss,
) -> tuple[jax.Array, Sums]:
    found = _of_tokens(x_TxD, readout_DxV, targets, constants, chunk_tokens, parts, of)
    return jax.tree.map(jnp.sum, found)


_chunked_total = jax.custom_vjp(_total, nondiff_argnums=(4, 5, 6))


def _forward(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets: Any,
    constants: Any,
    chunk_tokens: int,
    parts: int,
    of: TokenLoss,
) -> tuple[tuple[jax.Array, Sums], tuple[jax.Array, jax.Array]]:
    tokens = x_TxD.shape[0]
    parts_of = functools.partial(_chunks, count=-(-tokens // (parts * chunk_tokens)), parts=parts)
    counted_T = jnp.ones(tokens, bool)  # the padding of chunks is not

    # Sums go on by part, so that devices meet once and not in each chunk.
    def chunk(carry: tuple[jax.Array, jax.Array], part: Any) -> tuple[Any, tuple[jax.Array, Sums]]:
        total_P, dreadout_PxDxV = carry
        x_PxCxD, targets_PxC, counted_PxC = part
        logits = einsum32("pcd,dv->pcv", x_PxCxD, readout_DxV)

        def summed(nats: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(counted_PxC, nats, 0.0), axis=1)

        total_P += summed(of.value(logits, targets_PxC, constants))
        beside_P = jax.tree.map(summed, of.beside(logits, targets_PxC, constants))
        dlogits = of.gradient(logits, targets_PxC, constants)
        dlogits = jnp.where(counted_PxC[..., None], dlogits, 0.0).astype(x_TxD.dtype)
        dreadout_PxDxV += einsum32("pcd,pcv->pdv", x_PxCxD, dlogits)
        dx_PxCxD = jnp.einsum("pcv,dv->pcd", dlogits, readout_DxV)
        return (total_P, dreadout_PxDxV), (dx_PxCxD, beside_P)

    zeros = jnp.zeros(parts), jnp.zeros((parts, *readout_DxV.shape), jnp.float32)
    (total_P, dreadout_PxDxV), (dx, beside) = jax.lax.scan(
        chunk, zeros, (parts_of(x_TxD), parts_of(targets), parts_of(counted_T))
    )
    dreadout_DxV = jnp.sum(dreadout_PxDxV, axis=0).astype(readout_DxV.dtype)
    totals = jnp.sum(total_P), jax.tree.map(jnp.sum, beside)
    return totals, (_tokens(dx, tokens), dreadout_DxV)


def _backward(
    chunk_tokens: int,
    parts: int,
    of: TokenLoss,
    saved: tuple[jax.Array, jax.Array],
    dtotals: tuple[jax.Array, Sums],
) -> tuple[jax.Array, jax.Array, None, None]:
    dtotal, _ = dtotals
    dx_TxD, dreadout_DxV = ((dtotal * a).astype(a.dtype) for a in saved)
    return dx_TxD, dreadout_DxV, None, None


_chunked_total.defvjp(_forward, _backward)
