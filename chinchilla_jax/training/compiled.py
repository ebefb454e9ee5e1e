"""The two compiled programs of a shape: many training steps, and one evaluation batch."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.experiment.config import OptimizerConfig, RunConfig, TrainingConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.training import devices, kernels, sharding, techniques
from chinchilla_jax.training.initial import abstract_state
from chinchilla_jax.training.method import Method, dense, sequence_losses
from chinchilla_jax.training.optimizers import optimizer_of
from chinchilla_jax.training.step import METRICS, train_step, train_steps


@dataclass(frozen=True)
class Compiled:
    """What the loop calls; compiled at the first call and shared by all runs of the shape."""

    mesh: Mesh
    method: Method
    abstract_state: Any  # shapes with shardings
    shardings: Any  # of the TrainState
    train: Any  # (state, tokens [N, B, S+1], rates [N], weight_decay, count) -> state, metrics
    # (params, what techniques carry, tokens [B, S+1]) -> mean nats per token of each sequence, [B]
    evaluate: Any


def compiled_for(run: RunConfig) -> Compiled:
    """The programs of a run, on all devices. Runs that differ only in rate, decay, horizon or
    seed share them, unless a technique asks for the horizon.

    Raises:
      UserError: the mesh does not fit the devices, the model or the batch.
    """
    constants = replace(run.optimizer, learning_rate=1.0, weight_decay=0.0)
    return _compiled(
        run.model,
        constants,
        run.training,
        run.execution,
        run.batch_size,
        run.sequence_length,
        techniques.hooked(run),
    )


@functools.lru_cache(maxsize=4)  # each holds tens of MB of machine code
def _compiled(
    shape: ModelConfig,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    execution: Execution,
    batch_size: int,
    sequence: int,
    hooked: tuple[techniques.Hooked, ...],
) -> Compiled:
    mesh = sharding.make_mesh(execution, execution.microbatch or batch_size)
    parts = sharding.batch_divisor(mesh)
    microbatches = _microbatches(execution, batch_size, parts)
    dtype = devices.compute_dtype(training)

    def decoder(shape: ModelConfig, scaling: Scaling) -> Decoder:
        return Decoder(
            shape,
            scaling=scaling,
            dtype=dtype,
            layout=sharding.layout(mesh),
            products=devices.products(mesh.size, shape.width),
            scan=devices.scan_layers(training),
            remat=devices.remat(training),
            fused=kernels.fused_attention(devices.platform(), mesh, shape, dtype, sequence),
        )

    model = decoder(shape, Scaling(optimizer.base_width, optimizer.parametrization))
    plain = functools.partial(
        dense, chunk_tokens=training.loss_chunk_tokens, parts=parts, decoder=decoder
    )
    method = techniques.method_of(model, optimizer_of(optimizer, shape), plain, hooked)
    abstract = abstract_state(method)
    shardings = sharding.state_shardings(abstract, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    options = devices.compiler_options(mesh.size, shape.width)
    step = functools.partial(train_step, method=method, microbatches=microbatches)
    return Compiled(
        mesh=mesh,
        method=method,
        abstract_state=sharding.with_shardings(abstract, mesh),
        shardings=shardings,
        train=jax.jit(
            functools.partial(train_steps, step=step, metrics=METRICS + method.metrics),
            in_shardings=(
                shardings,
                NamedSharding(mesh, sharding.TRAIN_BATCH),
                *(everywhere,) * 3,
            ),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
            compiler_options=options,
        ),
        evaluate=jax.jit(
            sequence_losses(method, training.loss_chunk_tokens, parts),
            in_shardings=(
                shardings.params,
                shardings.techniques,
                NamedSharding(mesh, sharding.EVAL_BATCH),
            ),
            out_shardings=everywhere,
            compiler_options=options,
        ),
    )


def _microbatches(execution: Execution, batch_size: int, parts: int) -> int:
    """Gradient accumulation steps of a batch that is split in `parts` over devices."""
    size = execution.microbatch or batch_size
    if batch_size % size:
        raise UserError(
            f"execution.microbatch = {size}: does not divide the batch of {batch_size} sequences"
        )
    if size % parts:
        raise UserError(
            f"execution: data_parallel x fsdp = {parts} devices do not divide "
            f"{size} sequences; choose a mesh whose product divides the batch"
        )
    return batch_size // size
