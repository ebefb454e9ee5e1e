"""The products of a model, and einsum in 16 bits with a result in float32."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp


def _plain(name: str, x_NxI: jax.Array, w_IxO: jax.Array) -> jax.Array:
    return x_NxI @ w_IxO


def _as_they_are(k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    return k, v


@dataclass(frozen=True)
class Products:
    """How a model multiplies; these, the default, are the products as they are written.

    All of its products with parameters go through `linear` but the last, with the readout: its two
    sides are what `training.method.Method.forward` returns.

    Attributes:
      linear: (name of the parameter, activations [N, I], weights [I, O]) -> [N, O].
      cached: keys and values as queries meet them, [B, S, G, K] or without G: what a server keeps.
    """

    linear: Callable[[str, jax.Array, jax.Array], jax.Array] = _plain
    cached: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = _as_they_are


@jax.custom_vjp
def _turned(x_NxI: jax.Array, w_IxO: jax.Array) -> jax.Array:
    return x_NxI @ w_IxO


def _turned_forward(
    x_NxI: jax.Array, w_IxO: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x_NxI @ w_IxO, (x_NxI, w_IxO)


def _turned_backward(
    saved: tuple[jax.Array, jax.Array], dy_NxO: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_NxI, w_IxO = saved
    # Without the barrier XLA would take the copy back into the product.
    x_IxN = jax.lax.optimization_barrier(x_NxI.T)
    return dy_NxO @ w_IxO.T, x_IxN @ dy_NxO


_turned.defvjp(_turned_forward, _turned_backward)


def _turned_but_of_experts(name: str, x_NxI: jax.Array, w_IxO: jax.Array) -> jax.Array:
    return x_NxI @ w_IxO if name.startswith("expert_") else _turned(x_NxI, w_IxO)


# The same products, whose gradients by weights read a copy of the activations, turned: Eigen, by
# which XLA multiplies on a CPU, reads rows of it as they are, and columns of what was not turned
# by a few numbers of each cache line, most of them again and again where I is a power of two.
# Blocks of experts, whose rows are few, are left alone.
TURNED = Products(linear=_turned_but_of_experts)


def einsum32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.einsum` of two arrays of one dtype, accumulated and returned in float32.

    The gradient with respect to the result is rounded to the operands' dtype before it meets
    them: otherwise both products of the backward pass would have a float32 operand, and run at a
    fraction of the 16-bit speed.

    Args:
      equation: as `ab,bc->ac`, in which each index occurs in two of the three terms.
    """
    if x.dtype == jnp.float32:
        return jnp.einsum(equation, x, y)
    return _einsum32(equation, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _forward(
    equation: str, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _einsum32(equation, x, y), (x, y)


def _backward(
    equation: str, saved: tuple[jax.Array, jax.Array], dz: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = saved
    left, result = equation.split("->")
    first, second = left.split(",")
    dz = dz.astype(x.dtype)
    dx = jnp.einsum(f"{result},{second}->{first}", dz, y)
    return dx, jnp.einsum(f"{first},{result}->{second}", x, dz)


_einsum32.defvjp(_forward, _backward)
