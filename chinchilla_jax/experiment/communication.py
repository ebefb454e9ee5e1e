"""Bytes that a training step sends between devices, by collective and mesh axis.

What is counted is what the compiler is told to do (`training/sharding.py`): tests hold that the
program of eight devices does that and nothing else, up to vectors and scalars. A `payload` is the
whole array of one collective on one device: what a gather leaves there, what a reduction takes.

* fsdp: every layer's matrices are gathered where they are used, in the forward pass and again in
  the backward pass; embedding and readout once, before the loop over microbatches.
* data and fsdp together: every matrix's gradient is added up, and over fsdp scattered. XLA's CPU
  back end adds up everywhere and slices; GPUs and TPUs scatter.
* tensor: activations are added up after attention and after the feed-forward network, and their
  gradients at the inputs of each of the matrices that read the residual stream; the looked-up
  embedding and the gradient of the last hidden states once.

Not counted: what Muon sends to multiply a split matrix by itself.
"""

from dataclasses import dataclass

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.memory import remat
from chinchilla_jax.experiment.meshes import MeshShape, matrices
from chinchilla_jax.experiment.parameters import FLOAT32, is_tied, parameters, size


@dataclass(frozen=True)
class Traffic:
    """Payloads of one step on one device, bytes."""

    gather: float  # over fsdp
    reduce: float  # over data and fsdp
    tensor: float  # over tensor


def traffic(run: RunConfig, mesh: MeshShape, *, microbatches: int, compute: int) -> Traffic:
    """Payloads of one training step of AdamW; each microbatch gathers layers and reduces anew.

    Args:
      compute: bytes of a number in products, 2 for bfloat16.
    """
    passes = microbatches / mesh.tensor
    return Traffic(
        gather=_gathered(run, microbatches, compute) / mesh.tensor if mesh.fsdp > 1 else 0.0,
        reduce=passes * _reduced(run, compute) if mesh.parts > 1 else 0.0,
        tensor=_activations(run, mesh, compute) if mesh.tensor > 1 else 0.0,
    )


def _reduced(run: RunConfig, compute: int) -> float:
    """Bytes of all gradients that one pass over the model adds up."""
    model = run.model
    m = matrices(model)
    # Relative positions: the gradient of S + 1 projected distances and of two biases is added up;
    # that of the projection follows from it.
    distances = sum(size(p.fan_out, model) for p in parameters(model) if p.product == "distance")
    layers = model.depth * (m.layers + (run.sequence_length + 3) * distances) * compute
    # A tied embedding gets one gradient as a table and one as the readout.
    readout = m.readout or m.embedding
    return layers + m.embedding * FLOAT32 + readout * compute


def _gathered(run: RunConfig, microbatches: int, compute: int) -> float:
    """Bytes of all weights as often as a step gathers them."""
    model, kept = run.model, remat(run)
    m = matrices(model)
    again = 1 if kept == "attention" else 2
    # The gradient of the projection of distances needs no weight, but computing it again does.
    positions = 2 if kept == "full" else 1
    layers = model.depth * (again * m.layers + positions * m.positions) * compute
    ends = 2 * m.embedding * FLOAT32 if is_tied(model) else m.embedding * FLOAT32
    return microbatches * layers + ends + m.readout * compute


def _activations(run: RunConfig, mesh: MeshShape, compute: int) -> float:
    """Residual streams that tensor parallelism adds up, all microbatches together."""
    model, kept = run.model, remat(run)
    hidden = [p for p in parameters(model) if p.kind == "hidden" and p.product == "token"]
    forward = sum(p.per_layer for p in hidden if p.writes_residual)
    backward = sum(p.per_layer for p in hidden if not p.writes_residual)  # q, k, v; gate, up
    again = 1 if kept == "full" else 0  # attention's result, to reach the feed-forward network
    tokens = run.batch_size * run.sequence_length / mesh.parts
    stream = tokens * model.width
    return stream * (model.depth * (forward + backward + again) * compute + FLOAT32 + compute)
