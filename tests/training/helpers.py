"""Small runs that the tests of the training wing share."""

import dataclasses

from chinchilla_jax.experiment.config import (
    DataConfig,
    Measurement,
    RecipeConfig,
    RunConfig,
    TrainingConfig,
)
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.recipe import optimizer_for


def small_run(steps=12, batch_size=8, sequence=16, rate=6e-3, model=None, training=None, **recipe):
    """A run of a model with eight heads, so that every mesh of eight devices divides it.

    `training` has fields of TrainingConfig, Measurement and Execution, by their own names.
    """
    model = {
        "width": 32, "depth": 2, "heads": 8, "kv_heads": 8, "head_size": 4, "ff_size": 64,
    } | (model or {})  # fmt: skip
    run = RunConfig(
        run_id="small",
        experiment="test",
        budget=1e9,
        flops_convention="matmul",
        model=ModelConfig(**model),
        data=DataConfig(),
        optimizer=optimizer_for(steps, rate, RecipeConfig(**recipe)),
        training=TrainingConfig(),
        measurement=Measurement(eval_windows=16),
        execution=Execution(data_parallel=8, log_every=1),
        batch_size=batch_size,
        sequence_length=sequence,
        steps=steps,
        seed=0,
    )
    return with_training(run, **(training or {}))


def with_training(run, **changes):
    """The run under another mesh, another program or another measurement."""
    for group in ("training", "measurement", "execution"):
        fields = {f.name for f in dataclasses.fields(getattr(run, group))}
        inner = {name: changes.pop(name) for name in fields & set(changes)}
        run = dataclasses.replace(run, **{group: dataclasses.replace(getattr(run, group), **inner)})
    assert not changes, changes
    return run
