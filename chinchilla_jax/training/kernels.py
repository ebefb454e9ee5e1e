"""Fused attention: the kernel that a platform has, and how it runs on a mesh.

It never holds the S x S scores and skips those above the diagonal. `modern` takes it wherever
platform, precision and shape allow, and Decoder's own attention elsewhere. `chinchilla` always
takes the latter: its relative positions give each pair of tokens a score of its own, which no
kernel knows how to compute, so that its memory grows with S x S (`remat="attention"` keeps one
layer's of it).

Shapes: B batch, S sequence, H heads, G key and value heads, K head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from chinchilla_jax.experiment.model import ModelConfig


def cudnn(q_BxSxHxK: jax.Array, k_BxSxGxK: jax.Array, v_BxSxGxK: jax.Array) -> jax.Array:
    """cuDNN's flash attention, [B, S, H, K]; grouped queries without repeated keys."""
    return jax.nn.dot_product_attention(
        q_BxSxHxK, k_BxSxGxK, v_BxSxGxK, is_causal=True, implementation="cudnn"
    )


def splash(
    q_BxSxHxK: jax.Array, k_BxSxGxK: jax.Array, v_BxSxGxK: jax.Array, interpret: bool = False
) -> jax.Array:
    """JAX's own Pallas kernel for TPUs, [B, S, H, K]; `interpret` runs it anywhere, slowly."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, sequence, heads, head_size = q_BxSxHxK.shape
    block = next(size for size in (512, 256, 128) if sequence % size == 0)
    blocks: Any = dict.fromkeys(
        ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv",
         "block_kv_dkv_compute", "block_q_dq", "block_kv_dq"),
        block,
    )  # fmt: skip
    attend = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.CausalMask((sequence, sequence))] * heads),
        block_sizes=kernels.BlockSizes(**blocks),
        interpret=interpret,
    )
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (q_BxSxHxK, k_BxSxGxK, v_BxSxGxK))
    return jnp.swapaxes(jax.vmap(attend)(q * head_size**-0.5, k, v), 1, 2)


@dataclass(frozen=True)
class Kernel:
    """One implementation and what it asks of shapes."""

    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    head_multiple: int
    head_most: int
    sequence_multiple: int


# The sequence: both work in blocks of as many tokens. The head: cuDNN takes more on Hopper only.
KERNELS = {
    "cuda": Kernel(cudnn, head_multiple=8, head_most=128, sequence_multiple=64),
    "tpu": Kernel(splash, head_multiple=64, head_most=256, sequence_multiple=128),
}
CUDNN_CAPABILITY = 8.0  # Ampere, the first that has it


def fused_attention(
    platform: str, mesh: Mesh, model: ModelConfig, dtype: Any, sequence: int
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None:
    """The kernel of `platform` (`devices.platform`) over `mesh`, None where it has none that fits.

    Each device attends to its own sequences and heads: to the partitioner a kernel is a black
    box, which it might feed with gathered activations.
    """
    kernel = KERNELS.get(platform)
    capability = float(getattr(mesh.devices.flat[0], "compute_capability", CUDNN_CAPABILITY))
    if (
        kernel is None
        or model.definition != "modern"
        or jnp.dtype(dtype).itemsize != 2
        or model.head_size % kernel.head_multiple
        or model.head_size > kernel.head_most
        or sequence % kernel.sequence_multiple
        or (platform == "cuda" and capability < CUDNN_CAPABILITY)
    ):
        return None
    return on_mesh(kernel.attend, mesh)


def on_mesh(
    attend: Callable[..., jax.Array], mesh: Mesh
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """`attend` by each device of `mesh` on its part of the batch and of the heads."""
    parts = P(("data", "fsdp"), None, "tensor", None)
    return jax.shard_map(attend, mesh=mesh, in_specs=(parts,) * 3, out_specs=parts, check_vma=False)
