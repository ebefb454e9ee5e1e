"""The shape of a mesh, and what of a model lies on each of its devices.

`training/sharding.py` lays arrays out like this; here are only numbers.
"""

from dataclasses import dataclass

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.model import ModelConfig


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
    positions: int  # of one layer: the projection of relative positions
    embedding: int
    readout: int  # 0 where it is the embedding


def matrices(model: ModelConfig) -> Matrices:
    """The parameters of `model` that fsdp and tensor split."""
    params = count_params(model)
    heads = model.heads * model.head_size
    return Matrices(
        layers=(params.attention + params.feed_forward) // model.depth,
        positions=model.width * heads if model.definition == "chinchilla" else 0,
        embedding=params.embedding,
        readout=params.readout,
    )


def split(model: ModelConfig, mesh: MeshShape) -> tuple[int, int]:
    """(parameters in matrices, of which a device holds 1 / (fsdp tensor); those it holds whole).

    The two biases of the chinchilla definition are split over tensor; with them the second number
    is exact for the mesh.
    """
    total, m = count_params(model).total, matrices(model)
    inside = model.depth * (m.layers + m.positions) + m.embedding + m.readout
    biases = 2 * model.depth * model.heads * model.head_size if m.positions else 0
    return inside, total - inside - biases + biases // mesh.tensor


def misfit(run: RunConfig, mesh: MeshShape) -> str:
    """Why the mesh cannot run the model at all: what does not divide; empty where all does."""
    model = run.model
    sizes = (
        ("fsdp", mesh.fsdp, "width", model.width),
        ("tensor", mesh.tensor, "heads", model.heads),
        ("tensor", mesh.tensor, "kv_heads", model.kv_heads),
        ("tensor", mesh.tensor, "ff_size", model.ff_size),
        ("tensor", mesh.tensor, "vocabulary", model.vocab_size),
        ("data x fsdp", mesh.parts, "batch", run.batch_size),
    )
    return next(
        (f"{axis} {n} does not divide {name} {size}" for axis, n, name, size in sizes if size % n),
        "",
    )
