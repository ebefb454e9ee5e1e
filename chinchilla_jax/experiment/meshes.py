"""The shape of a mesh, and what of a model lies on each of its devices.

`training/sharding.py` lays arrays out like this; here are only numbers.
"""

import math
from dataclasses import dataclass

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import (
    DIMENSIONS,
    Parameter,
    axes_at_rest,
    parameters,
    size,
    stored,
)


@dataclass(frozen=True)
class MeshShape:
    """Devices on each axis: data (whole copies), fsdp (split and gathered), tensor (split)."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def parts(self) -> int:
        """How many parts the batch is split in."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return f"{self.data}x{self.fsdp}x{self.tensor}"


@dataclass(frozen=True)
class Matrices:
    """Parameters of all matrices by what happens to them; vectors are small and everywhere."""

    layers: int  # of one layer, but for `positions`
    positions: int  # of one layer: what is multiplied by distances
    embedding: int
    readout: int  # 0 where it is the embedding


def matrices(model: ModelConfig) -> Matrices:
    """The parameters of `model` that fsdp and tensor split."""

    def count(kind: str, product: str = "token") -> int:
        rows = (p for p in parameters(model) if p.kind == kind and p.product == product)
        return sum((p.per_layer or p.outside) * size(p.dims, model) for p in rows)

    layers = count("hidden") + count("router")
    return Matrices(layers, count("hidden", "distance"), count("input"), count("output"))


def held(model: ModelConfig, mesh: MeshShape) -> tuple[int, int]:
    """Parameters (in matrices, in vectors) that each device holds at rest.

    Exact where the mesh divides the model.
    """

    def count(vectors: bool) -> int:
        rows = (p for p in parameters(model) if (p.kind == "vector") == vectors)
        return sum(stored(p, model) // _parts(p, mesh) for p in rows)

    return count(vectors=False), count(vectors=True)


def _parts(p: Parameter, mesh: MeshShape) -> int:
    """In how many parts the mesh splits a parameter at rest."""
    sizes = {"fsdp": mesh.fsdp, "tensor": mesh.tensor}
    return math.prod(sizes[axis] for axis in axes_at_rest(p.dims) if axis)


def divisors(number: int) -> list[int]:
    """The divisors of a whole number, in order; in sqrt(number) steps."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def misfit(run: RunConfig, mesh: MeshShape) -> str:
    """Why the mesh cannot run the model at all: what does not divide; empty where all does."""
    sizes = [
        (axis, getattr(mesh, axis), dimension.field, getattr(run.model, dimension.field))
        for dimension in DIMENSIONS.values()
        for axis in (dimension.axis, dimension.at_rest)
        if axis
    ]
    sizes.append(("data x fsdp", mesh.parts, "batch", run.batch_size))
    return next(
        (f"{axis} {n} does not divide {name} {size}" for axis, n, name, size in sizes if size % n),
        "",
    )
