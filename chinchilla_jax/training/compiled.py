"""The two compiled programs of a shape: many training steps, and one evaluation batch."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.experiment.config import OptimizerConfig, RunConfig, TrainingConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models import loss
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.training import devices, kernels, sharding
from chinchilla_jax.training.initial import abstract_state
from chinchilla_jax.training.optimizers import optimizer_of
from chinchilla_jax.training.step import readout_inputs, train_step, train_steps


@dataclass(frozen=True)
class Compiled:
    """What the loop calls; compiled at the first call and shared by all runs of the shape."""

    mesh: Mesh
    model: Decoder
    tx: Any
    abstract_state: Any  # shapes with shardings
    shardings: Any  # of the TrainState
    train: Any  # (state, tokens [N, B, S+1], rates [N], weight_decay, count) -> state, metrics
    evaluate: Any  # (params, tokens [B, S+1]) -> mean nats per token of each sequence, [B]


def compiled_for(run: RunConfig) -> Compiled:
    """The programs of a run, on all devices. Runs that differ only in rate, decay, horizon or
    seed share them.

    Raises:
      UserError: the mesh does not fit the devices, the model or the batch.
    """
    constants = replace(run.optimizer, learning_rate=1.0, weight_decay=0.0)
    return _compiled(
        run.model, constants, run.training, run.execution, run.batch_size, run.sequence_length
    )


@functools.lru_cache(maxsize=4)  # each holds tens of MB of machine code
def _compiled(
    shape: ModelConfig,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    execution: Execution,
    batch_size: int,
    sequence: int,
) -> Compiled:
    mesh = sharding.make_mesh(execution, execution.microbatch or batch_size)
    parts = sharding.batch_divisor(mesh)
    microbatches = _microbatches(execution, batch_size, parts)
    dtype = devices.compute_dtype(training)
    model = Decoder(
        shape,
        scaling=Scaling(optimizer.base_width, optimizer.parametrization),
        dtype=dtype,
        layout=sharding.layout(mesh),
        scan=devices.scan_layers(training),
        remat=devices.remat(training),
        fused=kernels.fused_attention(devices.platform(), mesh, shape, dtype, sequence),
    )
    tx = optimizer_of(optimizer, shape)
    abstract = abstract_state(model, tx)
    shardings = sharding.state_shardings(abstract, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    options = devices.compiler_options(mesh.size, shape.width)
    step = functools.partial(
        train_step,
        model=model,
        tx=tx,
        chunk_tokens=training.loss_chunk_tokens,
        microbatches=microbatches,
        parts=parts,
    )

    def evaluate(params: Any, tokens_BxS1: jax.Array) -> jax.Array:
        inputs = readout_inputs(model, params, tokens_BxS1)
        losses = loss.token_losses(*inputs, training.loss_chunk_tokens, parts)
        return jnp.mean(losses.reshape(tokens_BxS1.shape[0], -1), axis=1)

    return Compiled(
        mesh=mesh,
        model=model,
        tx=tx,
        abstract_state=jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            abstract,
            shardings,
        ),
        shardings=shardings,
        train=jax.jit(
            functools.partial(train_steps, step=step),
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
            evaluate,
            in_shardings=(shardings.params, NamedSharding(mesh, sharding.EVAL_BATCH)),
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
