"""While a run trains nothing moves between host and device, and no rank grows, unasked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import loop
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.transfers import fetch, from_shards, guards, place
from tests.training.helpers import small_run


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def test_what_is_meant_passes(mesh):
    split = NamedSharding(mesh, PartitionSpec("data"))
    numbers = np.arange(16.0, dtype=np.float32)
    with guards():
        for array in (
            place(numbers, split),
            from_shards((16,), split, lambda index: numbers[index]),
        ):
            assert array.sharding == split
            np.testing.assert_array_equal(fetch(array), numbers)


@pytest.mark.parametrize(
    "implicit",
    [
        lambda x: jax.jit(jnp.add)(x, np.float32(1)),
        lambda x: jnp.asarray(np.ones(3)),
        lambda x: x[0],
    ],
)
def test_a_transfer_that_nobody_asked_for_is_an_error(mesh, implicit):
    x = place(np.ones(8, np.float32), NamedSharding(mesh, PartitionSpec()))
    implicit(x)
    with guards(), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        implicit(x)


def test_a_rank_that_grows_by_itself_is_an_error():
    def promoted(x, y):
        return x + y

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 2), (2,))]
    jax.eval_shape(promoted, *shapes)
    with guards(), pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        jax.eval_shape(promoted, *shapes)


def with_step(monkeypatch, run, change):
    """Trains `run` with a step that does something else as well."""
    program = compiled_for(run)
    changed = dataclasses.replace(program, train=lambda *a: change(program.train, *a))
    monkeypatch.setattr(loop, "compiled_for", lambda _: changed)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda step, state, tokens, *rest: step(state, np.asarray(tokens), *rest), "host-to-dev"),
        (lambda step, state, t, rates, *rest: step(state, t, rates[0] + rates, *rest), "host-to-d"),
        (lambda step, state, t, r, d, count: step(state, t, r, d, np.int32(count)), "host-to-dev"),
        (lambda step, state, *rest: (jnp.ones((2, 2)) + jnp.ones(2), step(state, *rest)), "Disall"),
    ],
)
def test_in_the_loop_of_a_run_too(monkeypatch, text_corpus, tmp_path, change, words):
    run = small_run(steps=2, training={"data_parallel": 1})
    with_step(monkeypatch, run, change)
    with pytest.raises(jax.errors.JaxRuntimeError, match=words):
        train(run, text_corpus, RunDirectory(tmp_path))


def test_a_promoted_rank_in_the_model_ends_the_run(monkeypatch, text_corpus, tmp_path):
    """As a gain [D] of activations [T, D] would be, were it not made [1, D] first."""
    from chinchilla_jax.models import normalization

    def careless(x, scale):
        return x * scale

    monkeypatch.setattr(normalization, "rms_norm", careless)
    run = small_run(steps=2, model={"ff_size": 40}, training={"data_parallel": 1})
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        train(run, text_corpus, RunDirectory(tmp_path))
