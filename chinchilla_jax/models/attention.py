"""Causal self-attention of both definitions.

Shapes: B batch, S sequence, T = B S tokens, D width, H heads, G key and value heads, K head size.
Scores, softmax and positions are float32 whatever the dtype of the rest.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from chinchilla_jax.models.module import ParameterModule
from chinchilla_jax.models.normalization import rms_norm
from chinchilla_jax.models.products import einsum32


def rotary_angles(sequence: int, head_size: int) -> jax.Array:
    """Angles of rotary positions, [S, K/2]: position times 10000^(-2 i / K).

    Su et al. 2021, equation 15.
    """
    rates = 10_000.0 ** (-jnp.arange(0, head_size, 2) / head_size)
    return jnp.arange(sequence)[:, None] * rates[None]


def rotate(x_BxSxHxK: jax.Array, angles_SxK: jax.Array) -> jax.Array:
    """Turns the pairs (i, i + K/2) of each head by its position's angles; H may be left out.

    Su et al. 2021, equation 34, with the halves as pairs, as in GPT-NeoX and Llama.
    """
    cos, sin = jnp.cos(angles_SxK), jnp.sin(angles_SxK)
    beside = (0, *range(2, x_BxSxHxK.ndim - 1))  # B, and H where it is there
    cos, sin = (
        jnp.expand_dims(jnp.concatenate(halves, axis=-1), beside)
        for halves in ((cos, cos), (-sin, sin))
    )
    # A roll, since concatenated halves come out as slow scalar code on CPU.
    partner = jnp.roll(x_BxSxHxK, x_BxSxHxK.shape[-1] // 2, axis=-1)
    return (x_BxSxHxK * cos + partner * sin).astype(x_BxSxHxK.dtype)


def distance_waves(sequence: int, width: int) -> jax.Array:
    """Sinusoidal encoding of the distances S down to 0, [S + 1, D], sines then cosines.

    Dai et al. 2019, section 3.3: the matrix R, with the frequencies of Vaswani et al. 2017.
    """
    rates = 10_000.0 ** (-jnp.arange(0, width, 2) / width)
    angles = jnp.arange(sequence, -1, -1)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def relative_shift(scores_BxHxSxS1: jax.Array) -> jax.Array:
    """Scores by distance to scores by key: out[i, j] = scores[i, S - (i - j)] for j <= i.

    The last axis counts S + 1 distances, S down to 0, so that row i + 1 of the result begins S
    places after row i in memory: dropping the first S is the whole shift (Dai et al. 2019,
    appendix B, without its padding). Entries with j > i are meaningless and are to be masked.
    """
    *batch, sequence, _ = scores_BxHxSxS1.shape
    flat = scores_BxHxSxS1.reshape(*batch, sequence * (sequence + 1))
    return flat[..., sequence:].reshape(*batch, sequence, sequence)


def scores(q_BxHxSxK: jax.Array, k_BxHxSxK: jax.Array) -> jax.Array:
    """Products of queries and keys over sqrt(K), [B, H, S, keys] float32.

    Where keys have no batch, [H, keys, K], all queries meet the same.
    """
    q = q_BxHxSxK * q_BxHxSxK.shape[-1] ** -0.5
    shared = k_BxHxSxK.ndim < q.ndim
    return einsum32("bhsk,htk->bhst" if shared else "...sk,...tk->...st", q, k_BxHxSxK)


@jax.custom_vjp
def attend(scores_BxHxSxS: jax.Array, v_BxHxSxK: jax.Array) -> jax.Array:
    """Causal softmax of float32 scores, then the mean of the values, [B, H, S, K]."""
    return _attend_forward(scores_BxHxSxS, v_BxHxSxK)[0]


def _attend_forward(scores_BxHxSxS: jax.Array, v_BxHxSxK: jax.Array) -> tuple[jax.Array, Any]:
    sequence = scores_BxHxSxS.shape[-1]
    causal = jnp.tril(jnp.ones((sequence, sequence), bool))
    causal = jax.lax.broadcast_to_rank(causal, scores_BxHxSxS.ndim)
    weights = jax.nn.softmax(jnp.where(causal, scores_BxHxSxS, -jnp.inf), axis=-1)
    weights = weights.astype(v_BxHxSxK.dtype)
    y = jnp.einsum("...st,...tk->...sk", weights, v_BxHxSxK)
    return y, (weights, v_BxHxSxK, y)


def _attend_backward(saved: Any, dy_BxHxSxK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The softmax's row sums from dy and y, not from S x S (Dao et al. 2022, appendix B.2)."""
    weights, v, y = saved
    dv = jnp.einsum("...st,...sk->...tk", weights, dy_BxHxSxK)
    dweights = jnp.einsum("...sk,...tk->...st", dy_BxHxSxK, v, preferred_element_type=jnp.float32)
    row_BxHxSx1 = jnp.sum(dy_BxHxSxK.astype(jnp.float32) * y, axis=-1, keepdims=True)
    return weights * (dweights - row_BxHxSx1), dv


attend.defvjp(_attend_forward, _attend_backward)


class Attention(ParameterModule):
    """What both definitions share: products between the residual stream and heads.

    Between them our own attention has heads before positions, [B, H, S, K]: so products copy no
    S x S of scores or weights.

    Attributes:
      recompute: whether the backward pass computes scores and weights again instead of keeping
        S x S of them.
      fused: a kernel from q [B, S, H, K], k and v [B, S, G, K] to [B, S, H, K], for `modern`.
    """

    recompute: bool = False
    fused: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None

    def heads_first(
        self, function: Callable[..., jax.Array], *inputs_BxSxHxK: jax.Array
    ) -> jax.Array:
        """`function`, which makes the scores, of inputs with heads first, [B, S, H, K].

        It obeys the module's choice to recompute what it makes.
        """
        function = jax.checkpoint(function) if self.recompute else function
        return jnp.moveaxis(function(*(jnp.moveaxis(a, 1, -2) for a in inputs_BxSxHxK)), -2, 1)

    def heads(self, name: str, x_NxD: jax.Array, sequence: int) -> jax.Array:
        """Rows of x times the parameter `name`, [N / S, S, heads, K]."""
        w_DxHxK = self.weight(name)
        y_NxHK = self.products.linear(name, x_NxD, w_DxHxK.reshape(w_DxHxK.shape[0], -1))
        return y_NxHK.reshape(-1, sequence, *w_DxHxK.shape[1:])

    def output(self, y_BxSxHxK: jax.Array) -> jax.Array:
        """Heads back to the residual stream, [T, D]."""
        w_HKxD = self.weight("out").reshape(-1, self.config.width)
        return self.products.linear("out", y_BxSxHxK.reshape(-1, w_HKxD.shape[0]), w_HKxD)


class RotaryAttention(Attention):
    """`modern`: rotary positions, RMS-normalised queries and keys, grouped keys and values.

    Vaswani et al. 2017; Su et al. 2021 (rotary); Dehghani et al. 2023 (QK-norm); Ainslie et al.
    2023 (grouped queries).
    """

    @nn.compact
    def __call__(self, x_TxD: jax.Array, angles_SxK: jax.Array) -> jax.Array:
        sequence = angles_SxK.shape[0]
        q, k, v = (self.heads(name, x_TxD, sequence) for name in ("query", "key", "value"))
        if self.config.heads == 1 and self.fused is None:
            # Beside a dimension of 1 sums are slow on a CPU: 15-25 % of a step at widths 8 and 16.
            q, k, v = (jnp.squeeze(a, axis=2) for a in (q, k, v))
        q = rotate(rms_norm(q, self.weight("query_norm")), angles_SxK)
        k = rotate(rms_norm(k, self.weight("key_norm")), angles_SxK)
        k, v = self.products.cached(k, v)
        if self.fused is not None:
            return self.output(self.fused(q, k, v))
        # Query head h belongs to key and value head h // (H / G); gradients add up in float32.
        if (group := self.config.heads // self.config.kv_heads) > 1:
            k, v = (
                jnp.repeat(a.astype(jnp.float32), group, axis=2).astype(a.dtype) for a in (k, v)
            )
        return self.output(self.heads_first(lambda q, k, v: attend(scores(q, k), v), q, k, v))


class RelativeAttention(Attention):
    """`chinchilla`: the relative positions of Transformer-XL, without its memory.

    Dai et al. 2019, section 3.3: score(i, j) = ((q_i + u) k_j + (q_i + v) W R_{i-j}) / sqrt(K).
    """

    @nn.compact
    def __call__(self, x_TxD: jax.Array, waves_S1xD: jax.Array) -> jax.Array:
        distances = waves_S1xD.shape[0]
        q, k, v = (self.heads(name, x_TxD, distances - 1) for name in ("query", "key", "value"))
        k, v = self.products.cached(k, v)
        r_1xS1xHxK = self.heads("positions", waves_S1xD.astype(self.dtype), distances)
        by_key, by_distance = (
            (q + self.weight(name)[None, None]).astype(self.dtype)
            for name in ("content_bias", "position_bias")
        )

        r_HxS1xK = jnp.moveaxis(r_1xS1xHxK[0], 0, 1)

        def attended(
            by_key: jax.Array, by_distance: jax.Array, k: jax.Array, v: jax.Array
        ) -> jax.Array:
            return attend(scores(by_key, k) + relative_shift(scores(by_distance, r_HxS1xK)), v)

        return self.output(self.heads_first(attended, by_key, by_distance, k, v))
