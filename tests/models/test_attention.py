"""Properties of attention that the comparison with NumPy does not state."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.models import attention
from chinchilla_jax.models.decoder import Decoder
from tests.models.test_decoder import MODERN, apply, noisy_params, tokens


def test_rotary_scores_depend_on_the_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 16))
    angles = attention.rotary_angles(40, 16)
    everywhere = lambda x: attention.rotate(jnp.broadcast_to(x, (1, 40, 1, 16)), angles)  # noqa: E731
    scores = np.asarray(jnp.einsum("bshk,bthk->st", everywhere(q), everywhere(k)))
    for distance in range(-39, 40):
        along = np.diagonal(scores, -distance)
        np.testing.assert_allclose(along, along[0], atol=1e-4)
    assert np.std(scores[:, 0]) > 0.1


def test_relative_shift_takes_each_key_at_its_distance():
    scores = np.arange(2 * 5 * 6).reshape(1, 2, 5, 6)
    shifted = attention.relative_shift(jnp.asarray(scores))
    for i in range(5):
        for j in range(i + 1):
            np.testing.assert_array_equal(shifted[0, :, i, j], scores[0, :, i, 5 - (i - j)])


def test_grouped_queries_equal_repeated_keys_and_values():
    params = noisy_params(Decoder(MODERN))
    full = dataclasses.replace(MODERN, kv_heads=MODERN.heads)
    repeated = jax.tree.map(lambda p: p, params)
    for i in range(MODERN.depth):
        layer = repeated[f"layers_{i}"]["attention"]
        for name in ("key", "value"):
            layer[name] = jnp.repeat(layer[name], MODERN.heads // MODERN.kv_heads, axis=1)
    np.testing.assert_allclose(
        apply(Decoder(MODERN), params, tokens()),
        apply(Decoder(full), repeated, tokens()),
        rtol=1e-5,
        atol=1e-5,
    )


ONE_HEAD = dataclasses.replace(MODERN, heads=1, kv_heads=1)  # which takes a path of its own


@pytest.mark.parametrize("config", [MODERN, ONE_HEAD], ids=lambda c: str(c.heads))
def test_a_fused_kernel_takes_the_place_of_our_own_attention(config):
    params = noisy_params(Decoder(config))
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="xla")

    def run(fused):
        model = Decoder(config, fused=fused)
        variance = lambda p: jnp.var(model.apply({"params": p}, tokens()))  # noqa: E731
        return jax.jit(jax.value_and_grad(variance))(params)

    for a, b in zip(jax.tree.leaves(run(library)), jax.tree.leaves(run(None)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
