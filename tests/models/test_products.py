"""Products whose gradients are written by hand against those of JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.models.products import TURNED, Products


def test_turned_products_have_the_gradients_of_plain_ones():
    random = np.random.default_rng(0)
    x, dy = random.standard_normal((2, 96, 64)).astype(np.float32)
    w = random.standard_normal((64, 64)).astype(np.float32)

    def of(products):
        total = jax.value_and_grad(lambda x, w: jnp.sum(dy * products.linear("up", x, w)), (0, 1))
        return jax.jit(total)

    (y, gradients), (expected, others) = of(TURNED)(x, w), of(Products())(x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
    # The copy is one of its own, that products read as it lies.
    texts = [of(p).lower(x, w).compile().as_text() for p in (TURNED, Products())]
    assert ["f32[64,96]{1,0}" in text for text in texts] == [True, False]
