"""RMSNorm's gradient by hand against that of its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.models.normalization import EPS, rms_norm


def test_norms_and_their_gradients_are_those_of_the_formula():
    random = np.random.default_rng(0)
    x, weights = random.standard_normal((2, 3, 5, 2, 8)).astype(np.float32)
    x, scale = 0.01 * x, random.standard_normal(8).astype(np.float32)  # so small that EPS tells

    def formula(x, scale):
        return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS) * scale

    def of(norm):
        total = jax.value_and_grad(lambda x, s: jnp.sum(weights * norm(x, s)), (0, 1))
        return jax.jit(total)(x, scale)

    (y, gradients), (expected, others) = of(rms_norm), of(formula)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
