"""The table of parameters against the modules that use it, and muP against its definition."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.models import roles
from chinchilla_jax.models.decoder import Decoder

NARROW = ModelConfig(
    definition="modern",
    vocab_size=256,
    width=64,
    depth=2,
    heads=4,
    kv_heads=4,
    head_size=32,
    ff_size=256,
)
WIDE = dataclasses.replace(NARROW, width=256, heads=16, kv_heads=16, ff_size=1024)


@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_modules_start_as_the_table_says(definition):
    config = dataclasses.replace(NARROW, definition=definition)
    scaling = roles.Scaling(base_width=16)
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(Decoder(config, scaling=scaling).init)(jax.random.key(0), tokens)["params"]
    for path, array in flax.traverse_util.flatten_dict(params, sep="/").items():
        role = roles.role(path)
        assert array.shape == roles.shape(role.dims, config), path
        if role.initial is not None:
            np.testing.assert_array_equal(array, role.initial, err_msg=path)
        else:
            std = roles.initial_std(role, config, scaling)
            np.testing.assert_allclose(np.std(array), std, rtol=0.05, err_msg=path)


def test_mup_scales_rates_and_the_readout_with_the_width():
    """Yang et al. 2022, Table 3: Adam's rate and the readout's variance."""
    scaling = roles.Scaling(base_width=64)
    expected = {"input": 1.0, "vector": 1.0, "hidden": 1 / 4, "output": 1 / 4}
    for name, role in roles.ROLES.items():
        narrow, wide = (roles.learning_rate_multiplier(role, c, scaling) for c in (NARROW, WIDE))
        assert (narrow, wide) == (1.0, expected[role.kind]), name
        standard = roles.Scaling(base_width=64, parametrization="standard")
        assert roles.learning_rate_multiplier(role, WIDE, standard) == 1.0
    std = {
        name: roles.initial_std(roles.ROLES[name], WIDE, scaling)
        / roles.initial_std(roles.ROLES[name], NARROW, scaling)
        for name in ("embedding", "query", "out", "down", "readout")
    }
    assert std == pytest.approx(
        {"embedding": 1.0, "query": 1 / 2, "out": 1 / 2, "down": 1 / 2, "readout": 1 / 4}
    )


@pytest.mark.parametrize("parametrization", ["mup", "standard"])
def test_the_ends_start_as_the_standard_does_up_to_the_base_width(parametrization):
    """Readout 1/sqrt(D); embedding 1 once multiplied by sqrt(base), the root of D in standard."""
    scaling = roles.Scaling(64, parametrization)
    starts = {
        width: [
            roles.initial_std(roles.ROLES[name], dataclasses.replace(NARROW, width=width), scaling)
            for name in ("readout", "embedding")
        ]
        for width in (16, 64, 256)
    }
    if parametrization == "mup":
        assert starts == {16: [1 / 4, 1 / 8], 64: [1 / 8, 1 / 8], 256: [1 / 32, 1 / 8]}
    else:
        assert starts == {16: [1 / 4, 1 / 4], 64: [1 / 8, 1 / 8], 256: [1 / 16, 1 / 16]}
