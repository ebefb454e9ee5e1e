"""Where arrays lie while a model computes, told by their logical dimensions.

Models name the dimensions of what they compute; which of them is split over which devices is
decided outside, by `training/sharding.py`, and changes no number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax


def _anywhere(x: jax.Array, dims: str) -> jax.Array:
    return x


@dataclass(frozen=True)
class Layout:
    """The layout of a mesh; this one, the default, is that of a single device.

    Attributes:
      place: (x, dims) -> x, told how to lie. `dims` has a letter per axis of x: T tokens,
        B sequences, S positions, P parts of the batch, and those of a parameter
        (`experiment/parameters.py`).
      parts: in how many parts tokens are split.
      experts_over: how many devices the experts of a layer are split over.
      gathers: whether weights are collected from other devices for use; then a layer gives them
        up after its forward pass and collects them again for the backward pass.
    """

    place: Callable[[jax.Array, str], jax.Array] = _anywhere
    parts: int = 1
    experts_over: int = 1
    gathers: bool = False
