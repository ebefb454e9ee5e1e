"""Token by token beside a cache equals whole sequences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models import decoding
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.products import einsum32
from tests.models.test_decoder import CHINCHILLA, MODERN, apply, noisy_params, tokens

MIXED = dataclasses.replace(MODERN, depth=1, experts=4, expert_picks=2, expert_size=8)
ONE_HEAD = dataclasses.replace(MODERN, depth=1, heads=1, kv_heads=1)


@pytest.mark.parametrize(
    "config", [MODERN, CHINCHILLA, MIXED, ONE_HEAD], ids=["grouped", "relative", "experts", "head"]
)
def test_each_token_beside_the_cache_is_as_in_its_sequence(config):
    """After prompts of several lengths, to the end of the window."""
    model = Decoder(config, scaling=Scaling(base_width=8))
    params, window = noisy_params(model), 11
    text_BxS = tokens(3, window)
    whole = apply(model, params, text_BxS)
    lengths_B, most = jnp.array([2, 5, 4]), 5

    @jax.jit
    def by_steps(params):
        keeping, kept = decoding.keeping(model)
        logits = [apply_to(keeping, params, text_BxS[:, :most])]
        cache = decoding.begun(model, params, kept, lengths_B, most + window - 2, window)

        def one(cache, i):
            token_B = jnp.take_along_axis(text_BxS, (lengths_B + i)[:, None], axis=1)[:, 0]
            x_BxD, cache, _ = decoding.step(model, params, cache, token_B)
            return cache, einsum32("bd,dv->bv", x_BxD, readout(params))

        return logits[0], jax.lax.scan(one, cache, jnp.arange(window - 2))[1]

    def readout(params):
        return model.apply({"params": params}, method="readout_DxV")

    prompts, later = by_steps(params)
    np.testing.assert_allclose(prompts, whole[:, :most], rtol=1e-5, atol=1e-5)
    for row, length in enumerate(np.asarray(lengths_B)):
        found = later[: window - length, row]
        np.testing.assert_allclose(found, whole[row, length:], rtol=1e-4, atol=1e-5)


def apply_to(model, params, text):
    return model.apply({"params": params}, text)
