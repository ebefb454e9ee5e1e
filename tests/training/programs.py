"""One training step, compiled for the eight CPU devices and looked at, never run."""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from chinchilla_jax.training import sharding
from chinchilla_jax.training.compiled import compiled_for


@functools.cache
def compiled_step(run):
    """The executable of `train_step` of a run: the loop over steps has no length of its own."""
    compiled = compiled_for(run)
    step = compiled.train.__wrapped__.keywords["step"]
    everywhere = NamedSharding(compiled.mesh, P())
    tokens = jax.ShapeDtypeStruct((run.batch_size, run.sequence_length + 1), np.int32)
    number = jax.ShapeDtypeStruct((), np.float32)
    step = jax.jit(
        step,
        in_shardings=(
            compiled.shardings,
            NamedSharding(compiled.mesh, sharding.EVAL_BATCH),
            everywhere,
        ),
        out_shardings=(compiled.shardings, everywhere),
        donate_argnums=0,
    )
    hyper = {"learning_rate": number, "weight_decay": number}
    with jax.set_mesh(compiled.mesh):
        return step.lower(compiled.abstract_state, tokens, hyper).compile()
