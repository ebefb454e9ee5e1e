"""The state before the first step.

Weights are drawn on the host, by (seed, parameter, layer): nothing to compile, which takes longer
than training a tiny model; the same numbers on every mesh, under every version of JAX, scanned or
unrolled; and a host draws only the layers that its devices hold.
"""

import functools
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.experiment import mup
from chinchilla_jax.experiment.parameters import parameter, shape
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.layout import Layout
from chinchilla_jax.models.module import path_name
from chinchilla_jax.training import given
from chinchilla_jax.training.method import Method
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.transfers import from_shards, place


def abstract_params(model: Decoder) -> Any:
    """Shapes and dtypes of a model's parameters."""
    # Kernels have no parameters, and two tokens are neither theirs nor to be split over devices.
    plain = model.clone(fused=None, layout=Layout())

    def variables() -> Any:
        return plain.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))

    return jax.eval_shape(variables)["params"]


def abstract_state(method: Method) -> Any:
    """Shapes and dtypes of the TrainState; nothing is allocated."""
    params = abstract_params(method.model)
    scalar: Any = functools.partial(jax.ShapeDtypeStruct, ())
    return TrainState(
        step=scalar(jnp.int32),
        params=params,
        opt_state=jax.eval_shape(method.tx.init, params),
        smoothed_loss=scalar(jnp.float32),
        lowest_loss=scalar(jnp.float32),
        techniques=given.joined(jax.eval_shape(method.begin, params), method.given()),
    )


def initial_state(method: Method, shardings: Any, seed: int) -> TrainState:
    """The state of run `seed`, placed as `shardings` (a TrainState of NamedShardings) says.

    What techniques are given from outside is not in it.
    """
    abstract, shardings = given.without(abstract_state(method)), given.without(shardings)
    params = jax.tree_util.tree_map_with_path(
        functools.partial(_draw, method.model, seed), abstract.params, shardings.params
    )
    return TrainState(
        step=place(np.int32(0), shardings.step),
        params=params,
        opt_state=jax.jit(method.tx.init, out_shardings=shardings.opt_state)(params),
        smoothed_loss=place(np.float32(0), shardings.smoothed_loss),
        lowest_loss=place(np.float32(np.inf), shardings.lowest_loss),
        techniques=jax.jit(method.begin, out_shardings=shardings.techniques)(params)
        if abstract.techniques
        else {},
    )


def _draw(model: Decoder, seed: int, path: tuple[Any, ...], leaf: Any, sharding: Any) -> jax.Array:
    """One parameter, each shard made where it is needed."""
    name = path_name(path)
    row = parameter(name)
    mean, std = mup.initial(row, model.config, model.scaling)
    if not std:
        return place(np.full(leaf.shape, mean, np.float32), sharding)
    dims = shape(row.dims, model.config)
    layer = re.search(r"layers_(\d+)/", name)
    stem = zlib.crc32(re.sub(r"layers(_\d+)?/", "layers/", name).encode())

    @functools.cache
    def matrix(index: int) -> np.ndarray:
        key = np.array([seed, stem << 32 | index], np.uint64)  # a list would pass through float64
        generator = np.random.Generator(np.random.Philox(key=key))
        return mean + np.float32(std) * generator.standard_normal(dims, np.float32)

    def shard(index: Any) -> np.ndarray:
        if len(leaf.shape) == len(dims):
            return matrix(int(layer[1]) if layer else 0)[index]
        layers = range(leaf.shape[0])[index[0]]
        return np.stack([matrix(i)[index[1:]] for i in layers])

    return from_shards(leaf.shape, sharding, shard)
