"""Cross-entropy over tokens, in chunks, so that a large vocabulary does not set the memory.

Shapes: T tokens, C tokens of a chunk, P parts that the tokens are split in over devices, D width,
V vocabulary. Logits and all sums over them are float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.models.products import einsum32


def _chosen(targets: jax.Array, vocab_size: int) -> jax.Array:
    # A comparison instead of a gather: its gradient is no scatter, and it fuses and shards.
    return targets[..., None] == jnp.arange(vocab_size)


def _nats(logits: jax.Array, targets: jax.Array) -> jax.Array:
    right = jnp.sum(jnp.where(_chosen(targets, logits.shape[-1]), logits, 0.0), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - right


def _chunks(a: jax.Array, count: int, parts: int) -> jax.Array:
    """[T, ...] to [count, P, C, ...], with zeros after the last token of each part."""
    a = a.reshape(parts, -1, *a.shape[1:])
    size = -(-a.shape[1] // count)
    a = jnp.pad(a, [(0, 0), (0, size * count - a.shape[1])] + [(0, 0)] * (a.ndim - 2))
    return a.reshape(parts, count, size, *a.shape[2:]).swapaxes(0, 1)


def _tokens(a: jax.Array, tokens: int) -> jax.Array:
    """The inverse of `_chunks`."""
    _, parts, _, *rest = a.shape
    a = a.swapaxes(0, 1).reshape(parts, -1, *rest)
    return a[:, : tokens // parts].reshape(tokens, *rest)


def token_losses(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets_T: jax.Array,
    chunk_tokens: int,
    parts: int = 1,
) -> jax.Array:
    """Cross-entropy of each token, [T] float32, in nats; `total_loss` is for training.

    Args:
      x_TxD: hidden states, `Decoder.hidden`.
      readout_DxV: `Decoder.readout_DxV`.
      targets_T: the next token of each position.
      chunk_tokens: most tokens with logits at any time on a device, at least 1.
      parts: how many devices the tokens are split over; divides them.
    """
    tokens = x_TxD.shape[0]
    count = -(-tokens // (parts * chunk_tokens))
    if count == 1:
        return _nats(einsum32("td,dv->tv", x_TxD, readout_DxV), targets_T)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_PxCxD, targets_PxC = part
        return _nats(einsum32("pcd,dv->pcv", x_PxCxD, readout_DxV), targets_PxC)

    parts_of = functools.partial(_chunks, count=count, parts=parts)
    return _tokens(jax.lax.map(chunk, (parts_of(x_TxD), parts_of(targets_T))), tokens)


def total_loss(
    x_TxD: jax.Array,
    readout_DxV: jax.Array,
    targets_T: jax.Array,
    chunk_tokens: int,
    parts: int = 1,
) -> jax.Array:
    """The sum of `token_losses`, [] float32, whose gradient computes no logits twice.

    Where more than one chunk is needed the forward pass computes the gradient as well, chunk by
    chunk, while it has the logits.
    """
    if x_TxD.shape[0] <= parts * chunk_tokens:
        return jnp.sum(token_losses(x_TxD, readout_DxV, targets_T, chunk_tokens, parts))
    return _chunked_total(x_TxD, readout_DxV, targets_T, chunk_tokens, parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunked_total(
    x_TxD: jax.Array, readout_DxV: jax.Array, targets_T: jax.Array, chunk_tokens: int, parts: int
) -> jax.Array:
    return jnp.sum(token_losses(x_TxD, readout_DxV, targets_T, chunk_tokens, parts))


def _forward(
    x_TxD: jax.Array, readout_DxV: jax.Array, targets_T: jax.Array, chunk_tokens: int, parts: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    tokens = x_TxD.shape[0]
    parts_of = functools.partial(_chunks, count=-(-tokens // (parts * chunk_tokens)), parts=parts)
    counted_T = jnp.ones(tokens, bool)  # the padding of chunks is not

    # Sums go on by part, so that devices meet once and not in each chunk.
    def chunk(carry: tuple[jax.Array, jax.Array], part: Any) -> tuple[Any, jax.Array]:
        total_P, dreadout_PxDxV = carry
        x_PxCxD, targets_PxC, counted_PxC = part
        logits = einsum32("pcd,dv->pcv", x_PxCxD, readout_DxV)
        total_P += jnp.sum(jnp.where(counted_PxC, _nats(logits, targets_PxC), 0.0), axis=1)
        dlogits = jax.nn.softmax(logits, axis=-1) - _chosen(targets_PxC, logits.shape[-1])
        dlogits = jnp.where(counted_PxC[..., None], dlogits, 0.0).astype(x_TxD.dtype)
        dreadout_PxDxV += einsum32("pcd,pcv->pdv", x_PxCxD, dlogits)
        return (total_P, dreadout_PxDxV), jnp.einsum("pcv,dv->pcd", dlogits, readout_DxV)

    zeros = jnp.zeros(parts), jnp.zeros((parts, *readout_DxV.shape), jnp.float32)
    (total_P, dreadout_PxDxV), dx = jax.lax.scan(
        chunk, zeros, (parts_of(x_TxD), parts_of(targets_T), parts_of(counted_T))
    )
    dreadout_DxV = jnp.sum(dreadout_PxDxV, axis=0).astype(readout_DxV.dtype)
    return jnp.sum(total_P), (_tokens(dx, tokens), dreadout_DxV)


def _backward(
    chunk_tokens: int, parts: int, saved: tuple[jax.Array, jax.Array], dtotal: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    dx_TxD, dreadout_DxV = ((dtotal * a).astype(a.dtype) for a in saved)
    return dx_TxD, dreadout_DxV, None


_chunked_total.defvjp(_forward, _backward)
