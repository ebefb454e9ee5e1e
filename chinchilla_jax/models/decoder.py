"""The decoder: token ids to final hidden states, and on to logits.

Activations are [T, D] with T = B S tokens at every linear layer, never [B, S, D]: XLA's CPU back
end lowers the weight gradient of a product with two batch dimensions through transposed copies,
which costs up to half of a training step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models import attention
from chinchilla_jax.models.experts import Experts
from chinchilla_jax.models.layout import Layout
from chinchilla_jax.models.loss import Sums
from chinchilla_jax.models.module import ParameterModule
from chinchilla_jax.models.normalization import RMSNorm
from chinchilla_jax.models.products import Products, einsum32

# What JAX calls the forward pass of cuDNN's and of Pallas' attention.
FUSED_ATTENTION = ("dot_product_attention_fwd_wrapper", "pallas_call")


def _products(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    keeps: Any = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive.name in FUSED_ATTENTION or keeps(primitive, *arguments, **parameters)


def _all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
    """Keeps everything but weights, as `Layout.place` returns them and reshaped."""
    return primitive.name not in ("sharding_constraint", "reshape")


# What a layer keeps for the backward pass, from most to least; the rest it computes again:
# `none` all, `attention` all but the S x S scores (nothing else where attention is fused), `dots`
# the results of linear layers and of fused attention, `full` its input only.
REMAT_POLICIES = {"dots": _products, "full": jax.checkpoint_policies.nothing_saveable}


class FeedForward(ParameterModule):
    """`modern`: SwiGLU (Shazeer 2020); `chinchilla`: two matrices around a GELU."""

    @nn.compact
    def __call__(self, x_TxD: jax.Array) -> jax.Array:
        if self.config.definition == "modern":
            h_TxF = jax.nn.silu(self.times(x_TxD, "gate")) * self.times(x_TxD, "up")
        else:
            h_TxF = jax.nn.gelu(self.times(x_TxD, "up"))
        return self.times(h_TxF, "down")


class Layer(ParameterModule):
    """Pre-norm attention and feed-forward, each added to the residual stream.

    With it comes what experts sum up over tokens.
    """

    recompute: bool
    fused: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None

    @nn.compact
    def __call__(self, x_TxD: jax.Array, positions: jax.Array) -> tuple[jax.Array, Sums]:
        modern = self.config.definition == "modern"
        kind = attention.RotaryAttention if modern else attention.RelativeAttention
        y = RMSNorm(*self.common, name="attention_norm")(x_TxD)
        x_TxD += kind(*self.common, self.recompute, self.fused, name="attention")(y, positions)
        y = RMSNorm(*self.common, name="feed_forward_norm")(x_TxD)
        sums: Sums = {}
        if self.config.ff_size:
            x_TxD += FeedForward(*self.common, name="feed_forward")(y)
        if self.config.experts:
            sequence = positions.shape[0] - (not modern)
            chosen_TxD, sums = Experts(*self.common, name="experts")(y, sequence)
            x_TxD += chosen_TxD
        return self.layout.place(x_TxD, "TD"), sums


class Decoder(ParameterModule):
    """A causal language model.

    Attributes:
      config: its shape.
      scaling: muP or standard, and the base width.
      dtype: of activations and products; parameters are float32.
      layout: where arrays lie while it computes.
      products: how it multiplies.
      scan: layers in one `nn.scan` (parameters `layers/...` with an axis L in front) or unrolled
        (`layers_0/...`, `layers_1/...`).
      remat: what the backward pass computes again, by name (beside `REMAT_POLICIES`).
      fused: attention of the modern definition, as in `attention.Attention`; None for our own.
    """

    scaling: Scaling = Scaling()
    dtype: Any = jnp.float32
    layout: Layout = Layout()
    products: Products = Products()
    scan: bool = False
    remat: str = "none"
    fused: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None

    def setup(self) -> None:
        extra = (self.remat == "attention", self.fused)
        self.embedding = self.weight("embedding")
        if self.config.definition == "modern":
            self.readout = self.weight("readout")
        layer: Any = Layer
        policy = REMAT_POLICIES.get(self.remat)
        if self.remat == "none" and (self.scan or self.layout.gathers):
            policy = _all_but_weights  # a scan would stack a copy of those that it reshapes
        if policy:
            layer = nn.remat(layer, policy=policy, prevent_cse=not self.scan)
        if self.scan:
            layer = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.config.depth,
            )
            self.layers = layer(*self.common, *extra)
        else:
            self.layers = [layer(*self.common, *extra) for _ in range(self.config.depth)]
        self.final_norm = RMSNorm(*self.common)

    def hidden(self, tokens_BxS: jax.Array) -> jax.Array:
        """Hidden states after the last norm, [T, D], ready for `readout_DxV`."""
        return self.hidden_and_sums(tokens_BxS)[0]

    def hidden_and_sums(self, tokens_BxS: jax.Array) -> tuple[jax.Array, Sums]:
        """`hidden`, and what experts sum up over tokens, each with an axis L of layers in front."""
        c = self.config
        sequence = tokens_BxS.shape[1]
        x_TxD = self.embedding[self.layout.place(tokens_BxS.reshape(-1), "T")]
        x_TxD = self.layout.place(x_TxD.astype(self.dtype), "TD") * self.scaling.base(c) ** 0.5
        if c.definition == "modern":
            positions = attention.rotary_angles(sequence, c.head_size)
        else:
            positions = attention.distance_waves(sequence, c.width)
        if self.scan:
            x_TxD, sums = self.layers(x_TxD, positions)
        else:
            of_layers = []
            for layer in self.layers:
                x_TxD, of_layer = layer(x_TxD, positions)
                of_layers.append(of_layer)
            sums = jax.tree.map(lambda *each: jnp.stack(each), *of_layers)
        x_TxD = self.final_norm(x_TxD)
        if c.definition == "chinchilla":
            x_TxD *= self.scaling.base(c) / c.width
        return x_TxD, sums

    def readout_DxV(self) -> jax.Array:
        """The matrix from hidden states to logits, [D, V] in `dtype`."""
        if self.config.definition == "modern":
            return self.readout
        return self.embedding.T.astype(self.dtype)

    def __call__(self, tokens_BxS: jax.Array) -> jax.Array:
        """Logits of each next token, [B, S, V] float32.

        Training does not build them all at once: see `models.loss`.
        """
        logits_TxV = einsum32("td,dv->tv", self.hidden(tokens_BxS), self.readout_DxV())
        return logits_TxV.reshape(*tokens_BxS.shape, -1)
