"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from chinchilla_jax.models.module import ParameterModule

EPS = 1e-6


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x over its root mean square along the last axis, times a float32 `scale`, all in float32.

    Zhang and Sennrich 2019, equation 4.
    """
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + EPS)
    gain = jax.lax.broadcast_to_rank(scale, x.ndim)
    return (x32 * inverse * gain).astype(x.dtype)


class RMSNorm(ParameterModule):
    """`rms_norm` with its gain, a parameter `scale` [D]."""

    @nn.compact
    def __call__(self, x_TxD: jax.Array) -> jax.Array:
        return rms_norm(x_TxD, self.weight("scale"))
