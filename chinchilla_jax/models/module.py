"""Modules whose parameters are rows of `experiment/parameters.py`."""

from typing import Any

import jax
from flax import linen as nn

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling, initial
from chinchilla_jax.experiment.parameters import PARAMETERS, parameter, shape
from chinchilla_jax.models.layout import Layout
from chinchilla_jax.models.products import Products


def path_name(path: tuple[Any, ...]) -> str:
    """`layers_0/attention/query` for a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def in_compute_dtype(params: Any, dtype: Any) -> Any:
    """A tree of parameters, by their names: what products take part with in `dtype`, else as it is.

    Embeddings are looked up, and gains and biases applied, in float32, so that their gradients
    add up over tokens in float32. Routers choose in float32, where near ones are not equal.
    """

    def cast(path: tuple[Any, ...], weight: jax.Array) -> jax.Array:
        row = parameter(path_name(path))
        return weight.astype(dtype) if row.fan_in and row.kind != "router" else weight

    return jax.tree_util.tree_map_with_path(cast, params)


class ParameterModule(nn.Module):
    """A module whose parameters are declared by their names in `PARAMETERS`."""

    config: ModelConfig
    scaling: Scaling
    dtype: Any  # of activations and products
    layout: Layout  # where arrays lie while it computes
    products: Products  # how it multiplies

    @property
    def common(self) -> tuple[ModelConfig, Scaling, Any, Layout, Products]:
        """What the modules inside are given too."""
        return self.config, self.scaling, self.dtype, self.layout, self.products

    def times(self, x_NxI: jax.Array, name: str) -> jax.Array:
        """Activations times the parameter `name`, [N, O]."""
        return self.products.linear(name, x_NxI, self.weight(name))

    def weight(self, name: str) -> jax.Array:
        """Declares the float32 parameter `name`; matrices of products come in `dtype`.

        `init` draws from the same distribution as `training/initial.py`, which runs start from.
        """
        row = PARAMETERS[name]
        mean, std = initial(row, self.config, self.scaling)

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return mean + std * jax.random.normal(key, shape)

        weight = self.param(name, draw, shape(row.dims, self.config))
        return self.layout.place(in_compute_dtype({name: weight}, self.dtype)[name], row.dims)
