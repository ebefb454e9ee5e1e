"""The mesh, and where every array of the state lies on it.

One table from logical dimensions to mesh axes, applied to the whole `TrainState`: an optimizer's
moments, or a technique's masks, carry the name of their parameter, so they lie with it. Batches are
split over data and fsdp together.
"""

import logging
import math
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.parameters import DIMENSIONS, PARAMETERS, axes_at_rest
from chinchilla_jax.models.layout import Layout
from chinchilla_jax.models.module import path_name

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")

# Where a logical dimension lies while a model computes: T tokens, B sequences, P parts of the
# batch, and those of parameters; at rest these lie as `axes_at_rest` says.
BATCH = ("data", "fsdp")
IN_USE: dict[str, Any] = {"T": BATCH, "B": BATCH, "P": BATCH}
IN_USE |= {letter: dimension.axis for letter, dimension in DIMENSIONS.items()}
# What is no parameter: our own, Adam's, Muon's.
EVERYWHERE = r"^(step|smoothed_loss|lowest_loss)$|^opt_state/.*(count|ns_coeffs)$"

# [N, B, S + 1] tokens of one dispatch, and [B, S + 1] of one evaluation batch.
TRAIN_BATCH = P(None, BATCH, None)
EVAL_BATCH = P(BATCH, None)


def make_mesh(config: Execution, sequences: int = 0) -> Mesh:
    """The mesh data x fsdp x tensor, over the first devices where it needs fewer than there are.

    Devices are ordered by process and the last axis is innermost: tensor, then fsdp, stay within
    a host as long as their product divides its devices, and data goes across. (On a TPU, JAX
    lays the axes along the chips' own network, which does not end at a host.)

    Args:
      sequences: of one pass over the model; where data_parallel is 0, it takes as many devices as
        divide them.
    Raises:
      UserError: the mesh needs more devices than there are, or leaves a process without one.
    """
    devices = jax.devices()
    rest = config.fsdp * config.tensor
    most = max(1, len(devices) // rest)
    dividing = (n for n in range(1, most + 1) if sequences % (n * config.fsdp) == 0)
    data = config.data_parallel or max(dividing, default=most)
    if not config.data_parallel and data < most:
        log.info(
            "mesh: %d of %d devices, the most that divide %d sequences",
            data * rest, len(devices), sequences,
        )  # fmt: skip
    if data * rest > len(devices):
        raise UserError(
            f"execution: a mesh of data_parallel {data} x fsdp {config.fsdp} x tensor "
            f"{config.tensor} needs {data * rest} devices; there are {len(devices)}"
        )
    idle = {device.process_index for device in devices[data * rest :]}
    idle -= {device.process_index for device in devices[: data * rest]}
    if idle:
        raise UserError(
            f"execution: a mesh of {data * rest} devices leaves process {min(idle)} of "
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
      UserError: a leaf that is not known, or a size that the mesh does not divide.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path_name(path), leaf.shape, mesh)),
        abstract_state,
    )


def with_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Shapes of arrays that are called like parameters, with where each lies; raises as above."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        state_shardings(abstract, mesh),
    )


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    row = PARAMETERS.get(name.rsplit("/", 1)[-1])
    small = name.startswith("techniques/") and len(shape) < 2
    if row is None and not small and not re.search(EVERYWHERE, name):
        raise UserError(
            f"{name} {list(shape)}: neither in experiment/parameters.py nor in EVERYWHERE"
        )
    axes = axes_at_rest(row.dims) if row else ()
    split: tuple[Any, ...] = (None,) * (len(shape) - len(axes)) + axes
    for size, axis in zip(shape, split, strict=True):
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"execution.{axis} = {mesh.shape[axis]}: does not divide {size}, a dimension of "
                f"{name} {list(shape)}; choose a divisor"
            )
    return P(*split)


def layout(mesh: Mesh) -> Layout:
    """What models are told of the mesh.

    Told nothing, the compiler splits activations as it finds the weights split, gathers the
    whole batch on every device and computes it everywhere. Told, it gathers weights over fsdp
    where they are used, and adds up and scatters their gradients.
    """
    if mesh.size == 1:
        return Layout()

    def constrain(x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*axes)))

    def place(x: jax.Array, dims: str) -> jax.Array:
        if not set(dims) & set("TBP"):
            x = constrain(x, axes_at_rest(dims))  # after its cast, and its gradient likewise
        return constrain(x, tuple(IN_USE.get(dim) for dim in dims))

    return Layout(
        place,
        batch_divisor(mesh),
        experts_over=mesh.shape[DIMENSIONS["E"].axis],
        gathers=mesh.shape["fsdp"] > 1,
    )


def batch_divisor(mesh: Mesh) -> int:
    """How many parts a batch is split in."""
    return math.prod(mesh.shape[axis] for axis in ("data", "fsdp"))
