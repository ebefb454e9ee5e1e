"""Shapes at equal parameters: nearest to the planned one, with heads that fit, or one line."""

import math

import pytest

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.counting import (
    attention_flops,
    count_params,
    forward_flops,
    product_flops,
)
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ladder import read_table
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import PARAMETERS
from chinchilla_jax.experiment.recipe import shape_for_width
from chinchilla_jax.techniques import Techniques, shape
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


def test_heads_share_keys_and_values_and_the_feed_forward_network_takes_what_that_leaves():
    for planned in (ladder(48), ladder(64), ladder(160)):
        found = shaped(planned, Shape(kv_heads=1))
        assert (found.kv_heads, found.heads, found.width) == (1, planned.heads, planned.width)
        assert found.ff_size > planned.ff_size
        assert abs(total(found) / total(planned) - 1) < 0.01
    deep = shaped(ladder(64), Shape(kv_heads=1, depth_multiplier=0.5))
    assert (deep.depth, deep.kv_heads, deep.heads) == (2, 1, 4)
    assert abs(total(deep) / total(ladder(64)) - 1) < 0.01


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
        (10, {"kv_heads": 1}, "kv_heads = 1: 10x2 with 1 head has as many; name other widths"),
        (48, {"kv_heads": 3}, "kv_heads = 3: does not divide the 2 heads of 48x3; 1, 2 do"),
        (16, {"width_multiplier": 1.5}, "24x1, has 1.26 times its 14192 parameters"),
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


# MobileNet (Howard et al. 2017, table 1): channels and strides of its 13 separable layers.
SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
    (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet(multiplier, resolution=224):
    """(Multiplications of pointwise convolutions, of depthwise ones, of the rest) of an image.

    Pointwise ones are matrices that meet every place, and counted as ours are.
    """
    side, inputs = resolution // 2, round(32 * multiplier)
    pointwise, depthwise, first = 0, 0, 9 * 3 * inputs * side**2
    for channels, stride in SEPARABLE:
        side, outputs = side // stride, round(channels * multiplier)
        matrix = ModelConfig(
            width=inputs, depth=1, heads=1, kv_heads=1, head_size=inputs, ff_size=outputs
        )
        depthwise += 9 * inputs * side**2
        pointwise += product_flops(PARAMETERS["up"], matrix) // 2 * side**2
        inputs = outputs
    return pointwise, depthwise, first + 1000 * inputs


@pytest.mark.parametrize(
    ("multiplier", "resolution", "millions"),
    [
        (1.0, 224, 569), (0.75, 224, 325), (0.5, 224, 149.5), (0.25, 224, 41),
        (1.0, 192, 418), (1.0, 160, 290.7), (1.0, 128, 186),
    ],
)  # fmt: skip
def test_mobilenets_cost_is_the_published_one(multiplier, resolution, millions):
    """Tables 6 and 7 of the paper; .5 and 160 with a digit more, by its formula."""
    counted = sum(mobilenet(multiplier, resolution)) / 1e6
    assert counted == pytest.approx(millions, abs=0.06 if millions % 1 else 0.5)


def test_of_mobilenet_the_pointwise_convolutions_are_nearly_all():
    """Table 2 of the paper, in percent."""
    pointwise, depthwise, rest = mobilenet(1.0)
    total = pointwise + depthwise + rest
    assert 100 * pointwise / total == pytest.approx(94.86, abs=0.005)
    assert 100 * depthwise / total == pytest.approx(3.06, abs=0.005)


def quadratic(cost):
    """(a, b) of cost(m) = a m^2 + b m, from m = 1 and 1/2."""
    whole, half = cost(1.0), cost(0.5)
    a = 2 * whole - 4 * half
    return a, whole - a


def test_a_width_multiplier_costs_as_mobilenets_does():
    """Matrices by its square, all else by itself, at every value: MobileNet's and our shapes."""
    a, b = quadratic(lambda m: sum(mobilenet(m)))
    assert a == mobilenet(1.0)[0] and b == sum(mobilenet(1.0)[1:])
    planned = ModelConfig(width=64, depth=3, heads=4, kv_heads=2, head_size=16, ff_size=160)

    def cost(multiplier):
        wide = shape._of_width(round(64 * multiplier), planned, 1.0)
        assert wide.depth == 3 and wide.ff_size == 160 * multiplier
        return forward_flops(wide, 1, 128) / 128

    a, b = quadratic(cost)
    counted = count_params(planned)
    assert a == 2 * (counted.attention + counted.feed_forward)
    assert b == 2 * counted.readout + attention_flops(planned, 128)
    for multiplier in (0.75, 1.5, 2.0, 2.5):
        assert cost(multiplier) == a * multiplier**2 + b * multiplier
        some = sum(mobilenet(multiplier))
        pointwise, *others = mobilenet(1.0)
        assert some == pytest.approx(pointwise * multiplier**2 + sum(others) * multiplier)
