"""The step: exact counts, and ways of computing that must not change what is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.method import dense
from chinchilla_jax.training.step import mean_loss_and_gradients
from tests.training.helpers import small_run, with_training


def fresh(run):
    compiled = compiled_for(run)
    return compiled, initial_state(compiled.method, compiled.shardings, run.seed)


def windows(steps, run, seed=0):
    shape = (steps, run.batch_size, run.sequence_length + 1)
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.int32)


def advance(compiled, state, tokens, rates, count):
    with jax.set_mesh(compiled.mesh):
        return compiled.train(
            state, tokens, rates.astype(np.float32), np.float32(0.1), np.int32(count)
        )


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_dispatch_does_exactly_as_many_updates_as_it_is_told():
    run = small_run(training={"data_parallel": 1})
    tokens, rates = windows(6, run), np.full(6, 1e-3)
    compiled, state = fresh(run)
    state, metrics = advance(compiled, state, tokens, rates, 4)
    assert int(state.step) == 4
    assert int(state.opt_state[1].count) == 4
    assert (np.asarray(metrics["loss"])[:4] > 0).all()
    assert (np.asarray(metrics["loss"])[4:] == 0).all()


def test_where_a_run_is_cut_into_dispatches_changes_no_bit():
    run = small_run(training={"data_parallel": 1})
    tokens, rates = windows(6, run), np.linspace(1e-3, 1e-4, 6)
    compiled, state = fresh(run)
    whole, _ = advance(compiled, state, tokens, rates, 6)
    _, parts = fresh(run)
    for first, count in ((0, 1), (1, 3), (4, 2)):
        shifted = np.roll(tokens, -first, axis=0), np.roll(rates, -first)
        parts, _ = advance(compiled, parts, *shifted, count)
    equal(whole, parts)


def test_gradient_accumulation_is_the_gradient_of_the_whole_batch():
    run = small_run(training={"data_parallel": 1})
    compiled, state = fresh(run)
    tokens = jnp.asarray(windows(1, run)[0])

    def gradients(microbatches, chunk):
        method = dense(compiled.method.model, compiled.method.tx, chunk, parts=1)
        step = jax.jit(mean_loss_and_gradients, static_argnums=(0, 4))
        return step(method, state.params, {}, tokens, microbatches)

    whole = gradients(1, 4096)
    for microbatches, chunk in ((4, 4096), (8, 5)):
        parts = gradients(microbatches, chunk)
        for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("changes", [{"microbatch": 2}, {"remat": "full"}, {"layers": "scan"}])
def test_ways_of_executing_give_the_same_update(changes):
    """One step of another program: other code, the same weights to rounding."""
    run = small_run(training={"data_parallel": 1})
    tokens, rates = windows(1, run), np.full(1, 1e-3)
    compiled, state = fresh(run)
    _, expected = advance(compiled, state, tokens, rates, 1)
    other, state = fresh(with_training(run, **changes))
    assert other.train is not compiled.train
    _, metrics = advance(other, state, tokens, rates, 1)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_runs_of_one_shape_share_one_executable():
    a = small_run(steps=10, rate=1e-3)
    b = small_run(steps=999, rate=5e-3)
    assert compiled_for(a) is compiled_for(b)
    assert compiled_for(a) is not compiled_for(small_run(model={"depth": 1}))


def test_standard_parametrization_is_optax_adamw():
    compiled, state = fresh(small_run(training={"data_parallel": 1}, parametrization="standard"))
    decayed = jax.tree.map(lambda p: p.ndim >= 2, state.params)
    reference = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(1e-2, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, mask=decayed),
    )
    ours, theirs, params = state.opt_state, reference.init(state.params), state.params
    hyper = {"learning_rate": 1e-2, "weight_decay": 0.1}
    update, expected_update = jax.jit(compiled.method.tx.update), jax.jit(reference.update)
    for scale in (0.01, 100.0):  # under the clipping norm and far over it
        grads = jax.tree.map(lambda p, scale=scale: scale * np.cos(1e4 * np.asarray(p)), params)
        expected, theirs = expected_update(grads, theirs, params)
        updates, ours = update(grads, ours, params, **hyper)
        for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(updates), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-9)


def test_mup_scales_the_updates_of_matrices_and_not_their_decay():
    """At four times the base width hidden matrices and the readout move a quarter as far."""
    compiled, state = fresh(small_run(training={"data_parallel": 1}, base_width=8))
    grads = jax.tree.map(lambda p: np.ones(p.shape, np.float32), state.params)
    update = jax.jit(compiled.method.tx.update)

    def updates(decay):
        hyper = {"learning_rate": 1.0, "weight_decay": decay}
        return update(grads, state.opt_state, state.params, **hyper)[0]

    plain, decayed = updates(0.0), updates(0.5)
    layer, attention = plain["layers_0"], plain["layers_0"]["attention"]
    for matrix in (attention["query"], layer["feed_forward"]["down"], plain["readout"]):
        np.testing.assert_allclose(matrix, -0.25, rtol=1e-3)
    for other in (plain["embedding"], layer["attention_norm"]["scale"]):
        np.testing.assert_allclose(other, -1.0, rtol=1e-3)
    shrunk = decayed["readout"] - plain["readout"]
    np.testing.assert_allclose(shrunk, -0.5 * state.params["readout"], rtol=1e-3, atol=1e-6)
    same = decayed["layers_0"]["attention_norm"]["scale"]
    np.testing.assert_array_equal(same, layer["attention_norm"]["scale"])
