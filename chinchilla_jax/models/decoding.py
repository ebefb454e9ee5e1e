"""One token more: the forward pass of a decoder beside the keys and values of the tokens before.

It computes for one token of each row what `Decoder` computes for whole sequences, from the same
weights by the same parts; only attention is written again, since it meets what is kept. A row's
tokens need not lie in the order of their positions: each slot of the cache knows the position of
what it holds, so that prompts of several lengths share one slot a step.

Shapes: B rows, C slots of the cache, W positions, D width, H heads, G key and value heads, R = H/G
queries that share one, K head size. Layers are unrolled.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.models import attention
from chinchilla_jax.models.decoder import Decoder, FeedForward
from chinchilla_jax.models.experts import Experts
from chinchilla_jax.models.loss import Sums
from chinchilla_jax.models.normalization import rms_norm
from chinchilla_jax.models.products import einsum32

EMPTY = jnp.iinfo(jnp.int32).max  # the position of a slot that holds nothing


class Kept(NamedTuple):
    """What one layer keeps: keys and values as queries meet them, and projected distances."""

    k_BxGxCxK: jax.Array
    v_BxGxCxK: jax.Array
    r_HxW1xK: jax.Array | None = None  # `chinchilla`: of the distances W down to 0


class Cache(NamedTuple):
    """What is kept of the tokens that were met."""

    layers: tuple[Kept, ...]
    position_BxC: jax.Array  # of what each slot holds; EMPTY where nothing
    used: jax.Array  # [] slots; the next token goes into the first that is not
    next_B: jax.Array  # the position of the next token of each row


def keeping(model: Decoder) -> tuple[Decoder, list[tuple[jax.Array, jax.Array]]]:
    """`model`, and the keys and values of each layer that it adds to a list when it is traced."""
    kept: list[tuple[jax.Array, jax.Array]] = []

    def cached(k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept.append(model.products.cached(k, v))
        return kept[-1]

    products = dataclasses.replace(model.products, cached=cached)
    return model.clone(products=products), kept


def begun(
    model: Decoder,
    weights: Any,
    kept: Sequence[tuple[jax.Array, jax.Array]],
    lengths_B: jax.Array,
    slots: int,
    window: int,
) -> Cache:
    """The cache after prompts.

    Args:
      weights: as products take them.
      kept: of each layer the keys and values of all tokens, [B, P, G, K] or without G, as of
        `keeping`. A row's prompt is its first tokens.
      lengths_B: tokens of each prompt.
      slots: C, at least P and one for each token to come.
      window: W, positions that there will be.
    """
    layers = []
    for i, (k, v) in enumerate(kept):
        shape = (*k.shape[:2], model.config.kv_heads, model.config.head_size)
        room = ((0, 0), (0, 0), (0, slots - k.shape[1]), (0, 0))
        k, v = (jnp.pad(jnp.moveaxis(a.reshape(shape), 1, 2), room) for a in (k, v))
        distances = None
        if model.config.definition == "chinchilla":
            w_DxHxK = weights[f"layers_{i}"]["attention"]["positions"]
            waves = attention.distance_waves(window, model.config.width).astype(model.dtype)
            r = model.products.linear("positions", waves, w_DxHxK.reshape(waves.shape[1], -1))
            distances = jnp.moveaxis(r.reshape(window + 1, *w_DxHxK.shape[1:]), 0, 1)
        k, v = (model.layout.place(a, "BGSK") for a in (k, v))
        layers.append(Kept(k, v, distances))
    slot_BxC = jnp.broadcast_to(jnp.arange(slots)[None], (lengths_B.shape[0], slots))
    held = jnp.where(slot_BxC < lengths_B[:, None], slot_BxC, EMPTY)
    used = kept[0][0].shape[1] if kept else 0
    return Cache(tuple(layers), held, jnp.int32(used), lengths_B)


def step(
    model: Decoder, weights: Any, cache: Cache, tokens_B: jax.Array
) -> tuple[jax.Array, Cache, Sums]:
    """Hidden states [B, D] of the next token of each row, the cache with it, and sums of experts.

    Args:
      weights: as products take them, as `Decoder.hidden` does.
    """
    c, layout = model.config, model.layout
    common: Any = (c, model.scaling, model.dtype, layout, model.products)
    at = (0, cache.used)
    held = jax.lax.dynamic_update_slice(cache.position_BxC, cache.next_B[:, None], at)
    cache = cache._replace(position_BxC=held, next_B=cache.next_B + 1, used=cache.used + 1)
    x_BxD = weights["embedding"][layout.place(tokens_B, "T")]
    x_BxD = layout.place(x_BxD.astype(model.dtype), "TD") * model.scaling.base(c) ** 0.5
    layers, of_layers = [], []
    for i, kept in enumerate(cache.layers):
        w = weights[f"layers_{i}"]
        y = rms_norm(x_BxD, w["attention_norm"]["scale"])
        y, kept = _attended(model, w["attention"], y, kept, cache)
        x_BxD += y
        y = rms_norm(x_BxD, w["feed_forward_norm"]["scale"])
        sums: Any = {}
        if c.ff_size:
            x_BxD += FeedForward(*common).apply({"params": w["feed_forward"]}, y)
        if c.experts:
            chosen, sums = Experts(*common).apply({"params": w["experts"]}, y, 1)
            x_BxD += chosen
        layers.append(kept)
        of_layers.append(sums)
    x_BxD = rms_norm(layout.place(x_BxD, "TD"), weights["final_norm"]["scale"])
    if c.definition == "chinchilla":
        x_BxD *= model.scaling.base(c) / c.width
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *of_layers)
    return x_BxD, cache._replace(layers=tuple(layers)), stacked


def _attended(
    model: Decoder, w: Any, x_BxD: jax.Array, kept: Kept, cache: Cache
) -> tuple[jax.Array, Kept]:
    """What attention adds to the residual stream, [B, D], and what it keeps now."""
    c = model.config

    def heads(name: str) -> jax.Array:
        y = model.products.linear(name, x_BxD, w[name].reshape(c.width, -1))
        return y.reshape(-1, *w[name].shape[1:])

    q_BxHxK, k_BxGxK, v_BxGxK = heads("query"), heads("key"), heads("value")
    now_B = cache.next_B - 1
    if c.definition == "modern":
        rates = attention.rotary_angles(2, c.head_size)[1]
        angles = now_B[:, None] * rates[None]
        q_BxHxK, k_BxGxK = (
            attention.rotate(rms_norm(a, w[f"{name}_norm"])[None], angles)[0]
            for a, name in ((q_BxHxK, "query"), (k_BxGxK, "key"))
        )
    k_Bx1xGxK, v_Bx1xGxK = model.products.cached(k_BxGxK[:, None], v_BxGxK[:, None])
    at = (0, 0, cache.used - 1, 0)
    k_BxGxCxK = jax.lax.dynamic_update_slice(kept.k_BxGxCxK, jnp.moveaxis(k_Bx1xGxK, 1, 2), at)
    v_BxGxCxK = jax.lax.dynamic_update_slice(kept.v_BxGxCxK, jnp.moveaxis(v_Bx1xGxK, 1, 2), at)
    scale = c.head_size**-0.5
    grouped = (-1, c.kv_heads, c.heads // c.kv_heads, c.head_size)
    by_key = q_BxHxK
    if kept.r_HxW1xK is not None:
        by_key = (q_BxHxK + w["content_bias"][None]).astype(model.dtype)
    scores_BxGxRxC = einsum32("bgrk,bgck->bgrc", (by_key * scale).reshape(grouped), k_BxGxCxK)
    if kept.r_HxW1xK is not None:
        by_distance = (q_BxHxK + w["position_bias"][None]).astype(model.dtype) * scale
        of_all_BxHxW1 = einsum32("bhk,hwk->bhw", by_distance, kept.r_HxW1xK)
        longest = kept.r_HxW1xK.shape[1] - 1
        index_BxC = jnp.clip(longest - (now_B[:, None] - cache.position_BxC), 0, longest)
        scores_BxGxRxC += jnp.take_along_axis(of_all_BxHxW1, index_BxC[:, None], axis=2)[:, :, None]
    there = cache.position_BxC <= now_B[:, None]
    scores_BxGxRxC = jnp.where(there[:, None, None], scores_BxGxRxC, -jnp.inf)
    weights = jax.nn.softmax(scores_BxGxRxC, axis=-1).astype(v_BxGxCxK.dtype)
    y = jnp.einsum("bgrc,bgck->bgrk", weights, v_BxGxCxK)
    out = model.products.linear("out", y.reshape(y.shape[0], -1), w["out"].reshape(-1, c.width))
    return out, kept._replace(k_BxGxCxK=k_BxGxCxK, v_BxGxCxK=v_BxGxCxK)
