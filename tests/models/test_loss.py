"""Chunked cross-entropy is the dense one, in value and gradient, and never has all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.models import loss
from tests.jaxprs import equations

DOT = "dot_general"
T, D, V = 37, 8, 19


def inputs():
    a, b, c = jax.random.split(jax.random.key(0), 3)
    x, readout = jax.random.normal(a, (T, D)), jax.random.normal(b, (D, V))
    return x, readout, jax.random.randint(c, (T,), 0, V)


def dense(x_TxD, readout_DxV, targets_T):
    return -jax.nn.log_softmax(x_TxD @ readout_DxV)[jnp.arange(targets_T.size), targets_T]


@pytest.mark.parametrize("chunk_tokens", [1, 5, 18, 36, 37, 100])
def test_chunked_equals_dense(chunk_tokens):
    x, readout, targets = inputs()
    weights = jnp.linspace(0.0, 2.0, T)  # each token's gradient must come out at its own place

    def value(function, *extra):
        def weighted(x, readout):
            nats = function(x, readout, targets, *extra)
            return jnp.sum(nats * weights), nats

        return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(x, readout)

    expected, actual = value(dense), value(loss.token_losses, chunk_tokens)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def total(chunk_tokens, parts=1):
    def tripled(x, readout, targets):
        return 3 * loss.total_loss(x, readout, targets, chunk_tokens, parts)[0]

    return tripled


@pytest.mark.parametrize("chunk_tokens,parts", [(5, 1), (36, 1), (100, 1), (5, 4), (7, 9)])
def test_the_total_and_its_gradient(chunk_tokens, parts):
    x, readout, targets = inputs()
    x, targets = x[:36], targets[:36]
    both = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, readout, targets)  # noqa: E731
    expected = both(lambda x, readout, targets: 3 * jnp.sum(dense(x, readout, targets)))
    actual = both(total(chunk_tokens, parts))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    value = total(chunk_tokens, parts)(x, readout, targets)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)


def _soft(logits, targets, constants):
    """Cross-entropy against a mixture of the true token and what another readout says."""
    token, x = targets
    other = jax.nn.softmax(jnp.einsum("...d,dv->...v", x, constants))
    return jax.nn.one_hot(token, V) * 0.25 + 0.75 * other


SOFT = loss.TokenLoss(
    lambda logits, *to: -jnp.sum(_soft(logits, *to) * jax.nn.log_softmax(logits), axis=-1),
    lambda logits, *to: jax.nn.softmax(logits) - _soft(logits, *to),
    lambda logits, targets, _: {"nats": loss.CROSS_ENTROPY.value(logits, targets[0], ())},
)


@pytest.mark.parametrize("chunk_tokens,parts", [(5, 1), (36, 1), (5, 4), (7, 9)])
def test_other_losses_of_tokens_go_by_chunks_too(chunk_tokens, parts):
    """With targets that are trees of arrays, and constants, none of which has a gradient."""
    x, readout, token = inputs()
    keys = jax.random.split(jax.random.key(1), 2)
    others = jax.random.normal(keys[0], (36, 5)), jax.random.normal(keys[1], (5, V))
    targets, constants = (token[:36], others[0]), others[1]

    def chunked(x, readout, targets, constants):
        return loss.total_loss(x, readout, targets, chunk_tokens, parts, SOFT, constants)

    def whole(x, readout, targets, constants):
        logits = x @ readout
        nats = jnp.sum(SOFT.value(logits, targets, constants))
        return nats, {"nats": jnp.sum(dense(x, readout, targets[0]))}

    actual, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(
            x[:36], readout, targets, constants
        )
        for f in (chunked, whole)
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [9, 100])
def test_the_gradient_costs_three_products_and_their_operands_are_16_bits(chunk_tokens):
    x, readout, targets = inputs()
    x, readout = x.astype(jnp.bfloat16), readout.astype(jnp.bfloat16)
    gradient = jax.jit(jax.value_and_grad(total(chunk_tokens), argnums=(0, 1)))
    products = [e for e in equations(gradient, x, readout, targets) if e.primitive.name == DOT]
    assert len(products) == 3
    for product in products:
        assert [v.aval.dtype for v in product.invars] == [jnp.bfloat16] * 2
    value, gradients = gradient(x, readout, targets)
    assert value.dtype == jnp.float32
    exact = [a.astype(jnp.float32) for a in (x, readout)]
    expected = gradient(*exact, targets)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    for a, b in zip(gradients, expected[1], strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.05, atol=0.05)


def test_one_chunk_needs_no_loop_and_many_chunks_need_less_memory():
    primitives = lambda n: {e.primitive.name for e in equations(total(n), *inputs())}  # noqa: E731
    assert "scan" not in primitives(T)
    assert "scan" in primitives(T - 1)

    def temporary_bytes(chunk_tokens):
        shapes = (
            jax.ShapeDtypeStruct((4096, 32), jnp.float32),
            jax.ShapeDtypeStruct((32, 8192), jnp.float32),
            jax.ShapeDtypeStruct((4096,), jnp.int32),
        )
        gradient = jax.jit(jax.grad(total(chunk_tokens), argnums=(0, 1)))
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(256) < temporary_bytes(4096) / 6


def test_uniform_logits_cost_log_v():
    nats = loss.token_losses(jnp.zeros((T, D)), jnp.ones((D, V)), jnp.zeros(T, jnp.int32), 10)
    np.testing.assert_allclose(nats, np.log(V), rtol=1e-6)
