"""Bytes of one device while it trains: what a run keeps, and what a step needs besides.

State is exact. Activations are counted tensor by tensor, as Korthikanti et al. 2022 (arXiv
2205.05198, section 4) do: `saved` names what one layer keeps for its backward pass. Temporaries
are the gradients and the larger of two peaks: the loss, and the backward pass of one layer.

It describes layers under a scan, as on accelerators, and AdamW; Muon keeps one moment less of its
matrices and is counted as AdamW. XLA's plan on a CPU mesh agrees within ten percent
(tests/training/test_memory.py); of unrolled layers it decides itself what is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from chinchilla_jax import techniques
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.ledger import facts
from chinchilla_jax.experiment.meshes import MeshShape, held, matrices
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import FLOAT32, parameters


@dataclass(frozen=True)
class Memory:
    """Bytes of one device."""

    state: float  # parameters and the optimizer's moments, float32, and what techniques carry
    activations: float  # what all layers keep for the backward pass
    temporaries: float  # gradients, and the peak of the loss or of one layer

    @property
    def total(self) -> float:
        return self.state + self.activations + self.temporaries


@dataclass(frozen=True)
class Saved:
    """Arrays that a layer keeps: how many, of which dimensions, of float32 or the compute type.

    Dimensions: T tokens of a device, D width, H and G heads and key-value heads of a device, K
    head size, F feed-forward of a device, X what a token meets of experts, S sequence.
    """

    what: str
    count: int
    dims: str
    wide: bool = False  # float32 whatever the compute type


_INPUT = Saved("input", 1, "TD")
_NORMS = (
    Saved("inputs of the two norms", 2, "TD", wide=True),
    Saved("normed, before their gain", 2, "TD", wide=True),
    Saved("inverse roots and their cubes", 4, "T", wide=True),
    Saved("outputs of the two norms", 2, "TD"),
)
_ATTENTION = {
    "modern": (
        Saved("queries and normed queries", 2, "THK", wide=True),
        Saved("keys and normed keys", 2, "TGK", wide=True),
        Saved("inverse roots of queries and keys", 2, "TH", wide=True),
        Saved("", 2, "TG", wide=True),
        Saved("what attention takes and returns: q, k, v, y", 4, "THK"),
    ),
    "chinchilla": (
        Saved("queries with either bias, k, v, y", 5, "THK"),
        Saved("projected distances", 1, "SHK"),
    ),
}
_HEADS_FIRST = {  # copies, where attention is our own
    "modern": (Saved("q, k, v", 3, "THK"),),
    "chinchilla": (Saved("queries with either bias, k, v", 4, "THK"),),
}
_SCORES = (Saved("weights of attention", 1, "THS"),)
_FEED_FORWARD = {
    "modern": (
        Saved("gate, its sigmoid twice, silu, up, their product", 6, "TF"),
        Saved("of experts the same", 6, "TX"),
    ),
    "chinchilla": (
        Saved("up and five inside GELU", 6, "TF"),
        Saved("of experts the same", 6, "TX"),
    ),
}


def remat(run: RunConfig) -> str:
    """What layers keep on an accelerator, as `training/devices.py` resolves it there."""
    return "dots" if run.training.remat == "auto" else run.training.remat


def saved(model: ModelConfig, remat: str, fused: bool) -> tuple[Saved, ...]:
    """What one layer keeps for its backward pass.

    Args:
      fused: whether attention is a kernel that keeps no scores.
    """
    if remat == "full":
        return (_INPUT,)
    if remat == "dots":
        return (_INPUT, *_results(model))
    scores = () if fused or remat == "attention" else _SCORES
    copies = () if fused else _HEADS_FIRST[model.definition]
    return (
        *_NORMS, *_ATTENTION[model.definition], *copies, *scores, *_FEED_FORWARD[model.definition],
    )  # fmt: skip


def _results(model: ModelConfig) -> tuple[Saved, ...]:
    """Results of a layer's products with weights; of the last only the next layer's input stays."""
    rows = {"token": "T", "distance": "S"}
    *inner, _ = (p for p in parameters(model) if p.kind == "hidden")
    return tuple(Saved(p.name, p.per_layer, rows[p.product] + p.fan_out) for p in inner)


def _bytes(arrays: tuple[Saved, ...], sizes: Mapping[str, int], compute: int) -> int:
    total = 0
    for array in arrays:
        elements = array.count
        for dim in array.dims:
            elements *= sizes[dim]
        total += elements * (FLOAT32 if array.wide else compute)
    return total


def state_bytes(run: RunConfig, mesh: MeshShape) -> int:
    """Bytes of parameters and Adam's two moments on each device, exactly; four scalars beside.

    And of what techniques carry, as if every parameter were split alike.
    """
    kept = sum(held(run.model, mesh))
    state = 3 * FLOAT32 * kept + 4 * FLOAT32
    carried = techniques.carried_bytes(run.techniques, facts(run))
    return state + carried * kept // count_params(run.model).total


def estimate(
    run: RunConfig, mesh: MeshShape, *, microbatches: int, compute: int, fused: bool
) -> Memory:
    """Bytes of one device.

    Args:
      compute: bytes of a number in products, 2 for bfloat16.
      fused: whether attention is a kernel that keeps no scores.
    """
    model = run.model
    sizes = _sizes(run, mesh, microbatches)
    layer = saved(model, remat(run), fused)
    kept = model.depth * _bytes(layer, sizes, compute)
    kept += _bytes((Saved("around the last norm", 3, "TD", wide=True),), sizes, compute)
    if remat(run) == "attention" and mesh.fsdp > 1:  # which does not give gathered weights up
        kept += model.depth * matrices(model).layers // mesh.tensor * compute
    return Memory(
        state=state_bytes(run, mesh),
        activations=kept,
        temporaries=_gradients(model, mesh, compute, microbatches)
        + max(_loss(run, mesh, sizes, compute), _layer(run, mesh, sizes, compute, fused)),
    )


def _sizes(run: RunConfig, mesh: MeshShape, microbatches: int) -> dict[str, int]:
    model = run.model
    return {
        "T": run.batch_size * run.sequence_length // (mesh.parts * microbatches),
        "D": model.width,
        "H": model.heads // mesh.tensor,
        "G": model.kv_heads // mesh.tensor,
        "K": model.head_size,
        "F": model.ff_size // mesh.tensor,
        "E": model.experts,
        "X": model.expert_picks * model.expert_size // mesh.tensor,
        "V": model.vocab_size // mesh.tensor,
        "S": run.sequence_length,
    }


def _gradients(model: ModelConfig, mesh: MeshShape, compute: int, microbatches: int) -> int:
    """Gradients at rest, once in the compute type and with it the cast weights, or accumulated."""
    rest, _ = held(model, mesh)
    cast = 0 if compute == FLOAT32 else rest * compute  # the weights, once a step
    accumulated = rest * FLOAT32 if microbatches > 1 else 0
    return rest * (FLOAT32 if compute == FLOAT32 else compute) + cast + accumulated


def _loss(run: RunConfig, mesh: MeshShape, sizes: Mapping[str, int], compute: int) -> int:
    """At the loss: logits and their gradient, the whole readout and its gradient."""
    chunk = min(sizes["T"], run.training.loss_chunk_tokens)
    readout = sizes["D"] * sizes["V"]
    logits = 2 * chunk * sizes["V"] * FLOAT32
    whole = readout * compute if mesh.fsdp > 1 else 0
    gradient = readout * FLOAT32
    return logits + whole + gradient + 2 * sizes["T"] * sizes["D"] * compute


def _layer(
    run: RunConfig, mesh: MeshShape, sizes: Mapping[str, int], compute: int, fused: bool
) -> int:
    """In the backward pass of one layer: its weights and their gradients whole, what it computes
    again that does not melt into products, and gradients of its widest arrays."""
    m = matrices(run.model)
    weights = (m.layers + m.positions) // mesh.tensor * compute
    scored = not fused  # attention is our own
    arrays = [
        Saved("gradient of the scores of attention", scored, "THS", wide=True),
        Saved("gradients around the feed-forward network", 2, "TF"),
        Saved("gradients around experts", 2, "TX"),
        Saved("gradients of the residual stream", 4, "TD"),
    ]
    if remat(run) != "none":
        arrays.append(Saved("weights of attention again", scored, "THS"))
    if remat(run) in ("dots", "full"):
        gated = sum(p.fan_out == "F" for p in parameters(run.model)) > 1
        gate_and_up = 2 * (remat(run) == "full" and gated)
        arrays.append(Saved("the feed-forward network again", 1 + gate_and_up, "TF"))
    return (2 if mesh.fsdp > 1 else 1) * weights + _bytes(tuple(arrays), sizes, compute)
