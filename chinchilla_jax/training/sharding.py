"""The mesh, and where every array of the state lies on it.

One ordered table of (pattern, PartitionSpec), EasyLM's idiom, applied to the whole `TrainState`:
an optimizer's moments carry the path of their parameter, so they follow its rule. Batches are
split over data and fsdp together.
"""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from chinchilla_jax.experiment.config import TrainingConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training.optimizers import path_name

AXES = ("data", "fsdp", "tensor")

# First match wins. Dimensions are those of models/roles.py; a leading axis of layers, under a
# scan, is never split.
RULES = (
    (r"embedding$", P("tensor", "fsdp")),  # V D
    (r"readout$", P("fsdp", "tensor")),  # D V
    (r"attention/(query|key|value|positions)$", P("fsdp", "tensor", None)),  # D H K
    (r"attention/out$", P("tensor", None, "fsdp")),  # H K D
    (r"attention/(content|position)_bias$", P("tensor", None)),  # H K
    (r"feed_forward/(gate|up)$", P("fsdp", "tensor")),  # D F
    (r"feed_forward/down$", P("tensor", "fsdp")),  # F D
    (r"(scale|query_norm|key_norm)$", P(None)),
    (r"^(step|smoothed_loss|lowest_loss)$", P()),
    (r"^opt_state/.*(count|ns_coeffs)$", P()),  # Adam's, Muon's
)

# [N, B, S + 1] tokens of one dispatch, and [B, S + 1] of one evaluation batch.
TRAIN_BATCH = P(None, ("data", "fsdp"), None)
EVAL_BATCH = P(("data", "fsdp"), None)


def make_mesh(config: TrainingConfig) -> Mesh:
    """The mesh data x fsdp x tensor, over the first devices where it needs fewer than there are.

    Devices are ordered by process and the last axis is innermost: tensor, then fsdp, stay within
    a host as long as their product divides its devices, and data goes across. (On a TPU, JAX
    lays the axes along the chips' own network, which does not end at a host.)

    Raises:
      UserError: the mesh needs more devices than there are, or leaves a process without one.
    """
    devices = jax.devices()
    rest = config.fsdp * config.tensor
    data = config.data_parallel or max(1, len(devices) // rest)
    if data * rest > len(devices):
        raise UserError(
            f"training: a mesh of data_parallel {data} x fsdp {config.fsdp} x tensor "
            f"{config.tensor} needs {data * rest} devices; there are {len(devices)}"
        )
    idle = {device.process_index for device in devices[data * rest :]}
    idle -= {device.process_index for device in devices[: data * rest]}
    if idle:
        raise UserError(
            f"training: a mesh of {data * rest} devices leaves process {min(idle)} of "
            f"{jax.process_count()} without one; use all {len(devices)} devices, or fewer processes"
        )
    return jax.make_mesh(
        (data, config.fsdp, config.tensor),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices[: data * rest],
    )


def state_shardings(abstract_state: Any, mesh: Mesh) -> Any:
    """The NamedSharding of every leaf of a TrainState, from its path and shape.

    Raises:
      UserError: a leaf that no rule matches, or a size that the mesh does not divide.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path_name(path), leaf.shape, mesh)),
        abstract_state,
    )


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), None)
    if spec is None:
        raise UserError(f"{name} {list(shape)}: no rule of training/sharding.py matches it")
    split: tuple[Any, ...] = (None,) * (len(shape) - len(spec)) + tuple(spec)
    for size, axis in zip(shape, split, strict=True):
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"training.{axis} = {mesh.shape[axis]}: does not divide {size}, a dimension of "
                f"{name} {list(shape)}; choose a divisor"
            )
    return P(*split)


def place(value: np.ndarray | np.generic, where: NamedSharding) -> jax.Array:
    """`value` on the devices of `where`, each process serving its own.

    With several processes `device_put` would first send it around to compare all copies.
    """
    whole = np.asarray(value)

    def part(index: Any) -> np.ndarray:
        return whole[index]

    return jax.make_array_from_callback(whole.shape, where, part)


def batch_divisor(mesh: Mesh) -> int:
    """How many parts a batch is split in."""
    return math.prod(mesh.shape[axis] for axis in ("data", "fsdp"))
