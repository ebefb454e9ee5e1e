"""The coordinate check: under muP activations move as much at every width (Yang et al. 2022, D.1).

That the best learning rate then stays put over widths is measured by
tests/benchmarks/learning_rate_transfer.py, which takes minutes.
"""

import functools

import jax
import numpy as np
import pytest

from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.recipe import optimizer_for
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from tests.training.helpers import small_run

WIDTHS = (32, 256)


def movements(width, parametrization, definition, **recipe):
    """Root mean square of what a few steps change in the last layer's output and the logits."""
    run = small_run(
        batch_size=4,
        model={
            "definition": definition, "width": width, "heads": width // 16,
            "kv_heads": width // 16, "head_size": 16, "ff_size": 4 * width,
        },
        training={"data_parallel": 1},
        parametrization=parametrization,
        base_width=32,
        **recipe,
    )  # fmt: skip
    compiled = compiled_for(run)
    state = initial_state(compiled.method, compiled.shardings, 0)
    tokens = np.random.default_rng(0).integers(1, 256, (1, 4, 17)).astype(np.int32)
    before = activations(compiled.method.model, state.params, tokens[0, :, :-1])
    with jax.set_mesh(compiled.mesh):
        for _ in range(4):
            rates = np.full(1, 0.01, np.float32)
            state, _ = compiled.train(state, tokens, rates, np.float32(0), np.int32(1))
    after = activations(compiled.method.model, state.params, tokens[0, :, :-1])
    return [float(np.sqrt(np.mean((a - b) ** 2))) for a, b in zip(after, before, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def activations(model: Decoder, params, tokens):
    logits, extra = model.apply(
        {"params": params}, tokens, capture_intermediates=True, mutable="intermediates"
    )
    layer = extra["intermediates"]["layers_1"]["__call__"][0][0]
    return layer, logits


def slopes(parametrization, definition, **recipe):
    """Of ln movement against ln width, for the last layer and the logits."""
    moved = np.log([movements(width, parametrization, definition, **recipe) for width in WIDTHS])
    return np.polyfit(np.log(WIDTHS), moved, 1)[0]


@pytest.mark.parametrize(
    "definition", ["modern", pytest.param("chinchilla", marks=pytest.mark.slow)]
)
def test_under_mup_activations_move_alike_at_every_width(definition):
    layer, logits = slopes("mup", definition)
    assert abs(layer) < 0.2
    # Tied, the share of the random start in the logits falls with the width; none may grow.
    assert -0.4 < logits < 0.25


@pytest.mark.slow
def test_under_the_standard_parametrization_they_do_not():
    """The check can fail: with one rate for all, movements grow with the width."""
    assert slopes("standard", "modern")[0] > 0.4


def test_the_base_width_is_where_both_agree():
    optimizer = optimizer_for(10, 1e-3, RecipeConfig())
    assert Scaling(64, "mup").base(small_run().model) == optimizer.base_width == 64
    assert Scaling(64, "standard").base(small_run().model) == small_run().model.width
