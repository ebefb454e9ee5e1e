"""muP against its definition (Yang et al. 2022, Table 3)."""

import dataclasses

import pytest

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling, initial, learning_rate_multiplier
from chinchilla_jax.experiment.parameters import PARAMETERS

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


def test_rates_and_the_readout_scale_with_the_width():
    """Adam's rate and the readout's variance."""
    scaling = Scaling(base_width=64)
    expected = {"input": 1.0, "vector": 1.0, "hidden": 1 / 4, "output": 1 / 4, "router": 1 / 4}
    for name, row in PARAMETERS.items():
        narrow, wide = (learning_rate_multiplier(row, c, scaling) for c in (NARROW, WIDE))
        assert (narrow, wide) == (1.0, expected[row.kind]), name
        standard = Scaling(base_width=64, parametrization="standard")
        assert learning_rate_multiplier(row, WIDE, standard) == 1.0
    ratios = {
        name: initial(PARAMETERS[name], WIDE, scaling)[1]
        / initial(PARAMETERS[name], NARROW, scaling)[1]
        for name in ("embedding", "query", "out", "down", "readout")
    }
    assert ratios == pytest.approx(
        {"embedding": 1.0, "query": 1 / 2, "out": 1 / 2, "down": 1 / 2, "readout": 1 / 4}
    )


def test_what_writes_to_the_residual_stream_starts_smaller_with_the_depth():
    narrow = dataclasses.replace(NARROW, experts=4, expert_picks=1, expert_size=64)
    deep = dataclasses.replace(narrow, depth=8)
    for name, row in PARAMETERS.items():
        (_, shallow), (_, std) = (initial(row, c, Scaling(64)) for c in (narrow, deep))
        halved = name in ("out", "down", "expert_down")
        assert std == shallow * (1 / 2 if halved else 1), name


@pytest.mark.parametrize("parametrization", ["mup", "standard"])
def test_the_ends_start_as_the_standard_does_up_to_the_base_width(parametrization):
    """Readout 1/sqrt(D); embedding 1 once multiplied by sqrt(base), the root of D in standard."""
    scaling = Scaling(64, parametrization)
    starts = {
        width: [
            initial(PARAMETERS[name], dataclasses.replace(NARROW, width=width), scaling)[1]
            for name in ("readout", "embedding")
        ]
        for width in (16, 64, 256)
    }
    if parametrization == "mup":
        assert starts == {16: [1 / 4, 1 / 8], 64: [1 / 8, 1 / 8], 256: [1 / 32, 1 / 8]}
    else:
        assert starts == {16: [1 / 4, 1 / 4], 64: [1 / 8, 1 / 8], 256: [1 / 16, 1 / 16]}
