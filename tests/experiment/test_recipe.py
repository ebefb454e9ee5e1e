"""The rules, at the points where their sources fix them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment import recipe
from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError

# The tuned ladder: width x depth (head size).
TUNED = (
    (8, 2, 8), (12, 2, 12), (16, 2, 8), (24, 3, 12), (32, 3, 16), (48, 3, 24), (64, 4, 32),
    (96, 4, 32), (128, 5, 32), (160, 6, 32),
)  # fmt: skip


@pytest.mark.parametrize("width,depth,head_size", TUNED)
def test_the_tuned_ladder(width, depth, head_size):
    shape = recipe.shape_for_width(width, RecipeConfig(), 256)
    assert (shape.depth, shape.head_size) == (depth, head_size)
    assert shape.heads * shape.head_size == width


def test_chinchillas_own_shape_is_the_nearest_to_its_size():
    """Hoffmann et al. 2022, Table 4: 70B has 80 layers, 64 heads of 128, width 8192."""
    shape = recipe.nearest_shape(70e9, RecipeConfig(definition="chinchilla"), 32000)
    assert (shape.width, shape.depth, shape.heads, shape.head_size) == (8192, 80, 64, 128)
    assert shape.ff_size == 4 * 8192


@given(st.floats(3e4, 1e11))
def test_nearest_shape_is_near(params):
    shape = recipe.nearest_shape(params, RecipeConfig(), 256)
    assert 0.7 < count_params(shape).total / params < 1.4


@given(st.integers(4, 4000))
def test_sizes_grow_with_width(half):
    small, large = (
        recipe.shape_for_width(w, RecipeConfig(), 256) for w in (2 * half, 2 * half + 8)
    )
    assert small.depth <= large.depth
    assert count_params(small).total < count_params(large).total


@given(st.floats(1e3, 1e13), st.floats(1.0, 100.0))
def test_batch_follows_the_power_law_in_steps_of_two_and_three(tokens, factor):
    config = RecipeConfig()
    batch = recipe.batch_size(tokens, config)
    wanted = min(384 * (tokens / 2e6) ** 0.6, config.max_batch_tokens) / 64
    odd = batch
    while odd % 2 == 0:
        odd //= 2
    assert odd in (1, 3)
    assert batch == 1 or 2**-0.3 < batch / wanted < 2**0.3
    assert recipe.batch_size(tokens * factor, config) >= batch


def test_rate_and_decay_at_their_anchors():
    """lr = 6e-3 sqrt(B / 8) at 64 tokens; lr x wd x steps = 1.5."""
    config = RecipeConfig()
    assert recipe.learning_rate(8, config) == pytest.approx(6e-3)
    assert recipe.learning_rate(32, config) == pytest.approx(12e-3)
    optimizer = recipe.optimizer_for(1234, 6e-3, config)
    assert optimizer.learning_rate * optimizer.weight_decay * 1234 == pytest.approx(1.5)


@pytest.mark.parametrize("width", [13, 0, -8])
def test_impossible_widths_are_refused(width):
    with pytest.raises(UserError, match=f"{width}: must be positive and even"):
        recipe.shape_for_width(width, RecipeConfig(), 256)


def test_widths_of_very_small_heads_are_told_with_better_ones_near_them():
    shapes = [recipe.shape_for_width(width, RecipeConfig(), 256) for width in (26, 34, 48, 62, 68)]
    said = recipe.of_small_heads(shapes)
    assert "34 in 17 heads of 2, 62 in 31 heads of 2, 68 in 17 heads of 4: " in said
    assert said.endswith("near widths that split well are 32, 40, 56, 64, 72")
    good = (recipe.shape_for_width(width, RecipeConfig(), 256) for width in range(32, 512, 8))
    assert recipe.of_small_heads(good) is None
    chosen = dataclasses.replace(recipe.shape_for_width(32, RecipeConfig(), 256), head_size=4)
    assert recipe.of_small_heads([chosen]) is None  # by a table, or a technique


def test_key_value_groups_must_divide_the_heads():
    with pytest.raises(UserError, match="does not divide the 2 heads"):
        recipe.shape_for_width(16, RecipeConfig(heads_per_kv_head=3), 256)


def test_from_width_16_two_even_heads_share_a_width_where_they_can():
    assert [recipe.head_size_for_width(w) for w in (4, 12, 20, 22, 44)] == [4, 12, 10, 22, 22]


def test_a_warm_up_in_tokens_is_a_share_of_each_run():
    """As many tokens for every run, and never more than nine tenths of it or into a cooldown."""
    rules = RecipeConfig(warmup_tokens=1e5)
    assert recipe.warmup_fraction(1e6, rules) == pytest.approx(0.1)
    assert recipe.warmup_fraction(5e4, rules) == pytest.approx(0.9)
    cooling = RecipeConfig(warmup_tokens=1e5, schedule="wsd", cooldown_fraction=0.3)
    assert recipe.warmup_fraction(5e4, cooling) == pytest.approx(0.7)
    assert recipe.optimizer_for(10, 1e-3, rules, tokens=4e5).warmup_fraction == pytest.approx(0.25)
    assert recipe.warmup_fraction(5e4, RecipeConfig()) == RecipeConfig().warmup_fraction
    with pytest.raises(UserError, match="warmup_tokens"):
        RecipeConfig(warmup_tokens=0.0)
