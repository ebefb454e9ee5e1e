"""Between the host and its devices: the transfers that a run means, and guards against all others.

An implicit transfer is a copy in a place that nobody looked for it, and a wait for the device; a
promoted rank is a sum over the wrong axis that still has a shape. Under `guards` both are errors.
What is meant goes through `place`, `from_shards` and `fetch`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


@contextlib.contextmanager
def guards() -> Iterator[None]:
    """In which no array moves and no rank is promoted unless the code says so.

    Of this thread. On a CPU, where host and device share memory, JAX lets reading pass unseen.
    """
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        yield


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
    """In which arrays may move: where a library moves them that is called to do so."""
    with jax.transfer_guard("allow"):
        yield


def from_shards(
    shape: tuple[int, ...], where: NamedSharding, shard: Callable[[Any], np.ndarray]
) -> jax.Array:
    """The array of `shape` on the devices of `where`; `shard` has the part at an index.

    It is asked for the parts of this process's devices alone.
    """
    with jax.transfer_guard_host_to_device("allow"):  # to the guard this function is implicit
        return jax.make_array_from_callback(shape, where, shard)


def place(value: np.ndarray | np.generic, where: NamedSharding) -> jax.Array:
    """`value` on the devices of `where`, each process serving its own.

    With several processes `device_put` would first send it around to compare all copies.
    """
    whole = np.asarray(value)
    return from_shards(whole.shape, where, lambda index: whole[index])


def fetch(array: jax.Array) -> np.ndarray:
    """The numbers of `array` on the host, once they are computed."""
    return np.asarray(jax.device_get(array))
