"""AdamW, and Muon for hidden matrices, under muP.

The rate and the weight decay of a step arrive with the step (optax's extra arguments), so that
one executable serves all of them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from chinchilla_jax.experiment.config import OptimizerConfig
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling, learning_rate_multiplier
from chinchilla_jax.experiment.parameters import Parameter, parameter, size
from chinchilla_jax.models.module import path_name

# Jordan et al. 2024 (kellerjordan.github.io/posts/muon): Nesterov momentum and five quintic
# Newton-Schulz iterations, which are optax's defaults.
MUON_MOMENTUM = 0.95
# Root mean square of AdamW's updates in practice (Liu et al. 2025, arXiv 2502.16982, 2.2).
ADAM_RMS = 0.2


def optimizer_of(
    config: OptimizerConfig, model: ModelConfig
) -> optax.GradientTransformationExtraArgs:
    """Clipping by global norm, a direction, muP's rate per parameter, decoupled weight decay.

    `update` needs `learning_rate` and `weight_decay`. The direction is Adam's; with `muon`, hidden
    matrices take Muon's, and embedding, readout, gains and biases Adam's still. muP scales the
    direction and not the decay, so that lr x wd, the decay per step, is the same at every width
    (Yang et al. 2022, Table 3; Dey et al. 2025, arXiv 2505.01618, for the decay). Gains and biases
    do not decay.
    """
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    direction: Any = adam
    if config.name == "muon":
        muon = scale_by_muon(beta=MUON_MOMENTUM, weight_dimension_numbers=matrix_sides)
        direction = optax.partition({"adamw": adam, "muon": muon}, _direction_names)
    return optax.chain(_clip(config.clip_norm), direction, _descend(config, model))


def _clip(most: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, by one factor, which takes no pass of its own over gradients
    where theirs divides each number."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1.0, most / optax.tree.norm(updates))
        return jax.tree.map(lambda u: u * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def is_muons(p: Parameter) -> bool:
    """Whether Muon updates it: hidden matrices, whose two sides both are features."""
    return p.kind == "hidden"


def _direction_names(params: Any) -> Any:
    def name(path: tuple[Any, ...], _: jax.Array) -> str:
        return "muon" if is_muons(parameter(path_name(path))) else "adamw"

    return jax.tree_util.tree_map_with_path(name, params)


def matrix_sides(params: Any) -> Any:
    """Which axes of each parameter are the two sides of a matrix, by its row.

    A weight D H K is one matrix of D x (H K), not H matrices; the axis of layers under a scan is
    neither side, so that each layer is a matrix of its own.
    """

    def sides(path: tuple[Any, ...], leaf: jax.Array) -> MuonDimensionNumbers:
        row = parameter(path_name(path))
        first = leaf.ndim - len(row.dims)
        axes = {dim: first + i for i, dim in enumerate(row.dims)}
        return MuonDimensionNumbers(
            reduction_axis=tuple(axes[dim] for dim in row.fan_in),
            output_axis=tuple(axes[dim] for dim in row.fan_out),
        )

    return jax.tree_util.tree_map_with_path(sides, params)


def muon_multiplier(p: Parameter, model: ModelConfig, scaling: Scaling) -> float:
    """Muon's learning rate over that of Adam at the base width.

    The singular values of a direction are near 1, its root mean square is 1 / sqrt(larger side).
    At the base width it gets AdamW's, so that rates and decays found for AdamW serve both (Liu et
    al. 2025, equation 4). From there on the largest singular value stays as it is, for that is
    how far one step can move a feature at every width (Yang et al. 2023, arXiv 2310.17813); it
    would grow with sqrt(width) otherwise. Under the standard parametrization the first rule is
    all.
    """
    side = max(size(p.fan_in, model), size(p.fan_out, model))
    return ADAM_RMS * math.sqrt(side * scaling.base(model) / model.width)


def _descend(config: OptimizerConfig, model: ModelConfig) -> optax.GradientTransformationExtraArgs:
    """directions -> -learning_rate (multiplier directions + weight_decay params)."""
    scaling = Scaling(config.base_width, config.parametrization)

    def multiplier(p: Parameter) -> float:
        muons = config.name == "muon" and is_muons(p)
        rule = muon_multiplier if muons else learning_rate_multiplier
        return rule(p, model, scaling)

    def update(
        updates: Any,
        state: optax.EmptyState,
        params: Any,
        *,
        learning_rate: jax.Array,
        weight_decay: jax.Array,
        **_: Any,
    ) -> tuple[Any, optax.EmptyState]:
        def one(path: tuple[Any, ...], u: jax.Array, p: jax.Array) -> jax.Array:
            row = parameter(path_name(path))
            step = multiplier(row) * u
            return -learning_rate * (step if row.kind == "vector" else step + weight_decay * p)

        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
