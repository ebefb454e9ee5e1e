"""Shapes at equal parameters: nearest to the planned one, with heads that fit, or one line."""

import math

import pytest

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan, read_table
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.recipe import shape_for_width
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.shape import MOST_APART, Shape, shaped

WIDTHS = (32, 48, 64, 96, 128, 160)
MULTIPLIERS = (
    {"width_multiplier": 0.5}, {"depth_multiplier": 2.0}, {"depth_multiplier": 0.5},
    {"ff_multiplier": 2.0}, {"ff_multiplier": 0.5}, {"depth_multiplier": 2.0, "ff_multiplier": 0.5},
)  # fmt: skip


def ladder(width, **recipe):
    return shape_for_width(width, RecipeConfig(**recipe), 256)


def total(model):
    return count_params(model).total


@pytest.mark.parametrize("multipliers", MULTIPLIERS, ids=str)
def test_parameters_are_equal_to_a_few_percent(multipliers):
    for planned in map(ladder, WIDTHS):
        found = shaped(planned, Shape(**multipliers))
        assert found != planned
        assert abs(total(found) / total(planned) - 1) < 0.03
        assert found.heads * found.head_size == found.width
        assert planned.head_size // 2 <= found.head_size <= planned.head_size
        assert found.head_size % 2 == 0 and found.ff_size % 4 == 0


@pytest.mark.parametrize("multipliers", MULTIPLIERS, ids=str)
def test_no_neighbour_is_nearer(multipliers):
    """Of those that keep what was asked for: the given side, and heads that fit."""
    config = Shape(**multipliers)
    for planned in map(ladder, WIDTHS):
        found = shaped(planned, config)
        best = abs(math.log(total(found) / total(planned)))
        for ff_size in (found.ff_size - 4, found.ff_size + 4):
            other = ModelConfig(**{**vars(found), "ff_size": ff_size})
            assert abs(math.log(total(other) / total(planned))) >= best
        if config.width_multiplier == 1.0:
            assert found.depth == max(1, math.floor(planned.depth * config.depth_multiplier + 0.5))
        else:
            assert found.width == planned.width * config.width_multiplier


def test_the_feed_forward_ratio_is_kept_or_multiplied():
    for planned in map(ladder, WIDTHS):
        for multiplier in (0.5, 1.0, 2.0):
            config = Shape(depth_multiplier=3.0, ff_multiplier=multiplier)
            found = shaped(planned, config)
            ratio = (found.ff_size / found.width) / (planned.ff_size / planned.width)
            assert 0.7 < ratio / multiplier < 1.4


def test_groups_of_heads_stay_as_large_and_large_models_are_met_closely():
    for planned in read_table("chinchilla_table_a9")[::10]:
        found = shaped(planned, Shape(depth_multiplier=0.5))
        assert abs(total(found) / total(planned) - 1) < 1e-3
    grouped = ladder(64, heads_per_kv_head=2)
    found = shaped(grouped, Shape(depth_multiplier=2.0))
    assert found.heads == 2 * found.kv_heads and grouped.heads == 2 * grouped.kv_heads


def test_off_it_is_the_planned_shape():
    for planned in (ladder(48), read_table("chinchilla_table_a9")[3]):
        assert Experiment(
            name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8,))
        ).techniques == Techniques(shape=Shape())
        assert shaped(planned, Shape()) == planned


@pytest.mark.parametrize(
    "width,multipliers,message",
    [
        (
            48,
            {"width_multiplier": 1.1},
            r"48 x 1.1 = 52.8 is no width that heads of 12 to 24 divide",
        ),
        (48, {"width_multiplier": 1.1}, r"near it are 1.125 \(54\) and 1.16667 \(56\)"),
        (48, {"width_multiplier": 53 / 24}, "no width that heads of 12 to 24 divide"),
        (32, {"depth_multiplier": 1.1}, "3 layers x 1.1 = 3.3, which is 3 again"),
        (16, {"width_multiplier": 1.5}, "24x1, has 1.26 times its 14224 parameters"),
    ],
)
def test_what_cannot_be_is_one_line(width, multipliers, message):
    with pytest.raises(UserError, match=message) as raised:
        shaped(ladder(width), Shape(**multipliers))
    assert "\n" not in str(raised.value) and str(raised.value).startswith("techniques.shape")


@pytest.mark.parametrize(
    "multipliers", [{"width_multiplier": 0.0}, {"width_multiplier": 2.0, "depth_multiplier": 2.0}]
)
def test_a_configuration_that_means_nothing_is_one_line(multipliers):
    with pytest.raises(UserError, match=r"techniques\.shape\..*_multiplier = "):
        Shape(**multipliers)


def test_a_grid_over_shapes_has_the_same_sizes_in_each():
    axis = "techniques.shape.depth_multiplier"
    experiment = Experiment(
        name="t", budgets=(3e11, 1e12), vary={axis: (1.0, 2.0, 0.5)},
        ladder=LadderConfig(widths=(16, 24, 32, 48), sizes_per_budget=(0,)),
    )  # fmt: skip
    cells = plan(experiment)
    assert {cell.run.run_id.split("-")[2] for cell in cells} == {"d1", "d2", "d0.5"}
    by_depth = {}
    for cell in cells:
        depth = cell.run.techniques.shape.depth_multiplier
        by_depth.setdefault(depth, []).append((cell.run.budget, cell.params))
    for depth in (2.0, 0.5):
        for (budget, params), (same, other) in zip(by_depth[1.0], by_depth[depth], strict=True):
            assert budget == same and max(params / other, other / params) < MOST_APART
