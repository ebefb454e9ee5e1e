"""The product over what varies: every combination once, named, and nothing else different."""

import dataclasses
import itertools
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.experiment import grid
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint, leaves
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import from_json, replace_paths, to_json
from chinchilla_jax.experiment.vary import variants

# Of every kind: whole, real, text and missing; of the run, of its rate, its text and its shape.
AXES = {
    "seed": (0, 1, 2, 7),
    "recipe.base_lr": (0.004, 0.333333, 1 / 3, 1e-08),
    "recipe.lr_multiplier": (0.5, 1.0, 2.0),
    "recipe.optimizer": ("adamw", "muon"),
    "recipe.definition": ("modern", "chinchilla"),
    "recipe.sequence_length": (32, 64, 128),
    "recipe.beta1": (0.8, 0.9),
    "data.max_megabytes": (None, 3.5),
    "data.path": ("", "a b/*.txt", "a_b/*.txt"),
    "training.dtype": ("float32", "bfloat16"),
    "measurement.eval_windows": (64, 128),
}
axes = st.lists(st.sampled_from(list(AXES)), max_size=4, unique=True).flatmap(
    lambda paths: st.fixed_dictionaries(
        {
            path: st.lists(st.sampled_from(AXES[path]), min_size=1, unique=True).map(tuple)
            for path in paths
        }
    )
)


def experiment(**changes):
    ladder = LadderConfig(widths=(8, 16), sizes_per_budget=(0,), min_tokens_per_param=0.01)
    return Experiment(**({"name": "t", "budgets": (1e11, 1e12), "ladder": ladder} | changes))


def fields(config):
    return {leaf.path: leaf.value for leaf in leaves(config)}


@settings(max_examples=40)
@given(axes)
def test_every_combination_is_there_once_and_each_differs_in_just_what_varies(vary):
    source = experiment(vary=vary)
    found = variants(source)
    assert len(found) == math.prod(map(len, vary.values()))
    assert len({variant.name for variant in found}) == len(found)
    for variant, values in zip(found, itertools.product(*vary.values()), strict=True):
        assert re.fullmatch(r"[\w.-]+", variant.name, re.ASCII)
        assert not variant.experiment.vary
        before, after = fields(source), fields(variant.experiment)
        assert {path: after[path] for path in vary} == dict(zip(vary, values, strict=True))
        assert {path for path in before if after[path] != before[path]} <= set(vary)


@settings(max_examples=15)
@given(axes)
def test_the_grid_is_the_product_with_ids_of_their_own(vary):
    cells = grid.plan(experiment(vary=vary))
    assert len(cells) == 2 * 2 * math.prod(map(len, vary.values()))
    assert len({cell.run.run_id for cell in cells}) == len(cells)
    assert [cell.index for cell in cells] == list(range(len(cells)))
    planned = [fingerprint(cell.run) for cell in cells if cell.status == "planned"]
    assert len(set(planned)) == len(planned)


@settings(max_examples=15)
@given(axes.filter(bool), st.data())
def test_a_value_that_is_appended_leaves_runs_and_order_as_they_are(vary, data):
    path = data.draw(st.sampled_from(sorted(vary)))
    shorter = {**vary, path: vary[path][:-1]}
    if not shorter[path]:
        return
    before, after = (
        [(c.run, c.status) for c in grid.plan(experiment(vary=v))] for v in (shorter, vary)
    )
    assert [run for run in after if run in before] == before


def test_json_and_the_command_line_say_the_same():
    vary = {"seed": (0, 1), "recipe.base_lr": (0.004, 0.006), "data.max_megabytes": (None, 2.0)}
    source = experiment(vary=vary)
    assert from_json(Experiment, json.loads(json.dumps(to_json(source))), "x") == source
    texts = [("vary.seed", "0,1"), ("vary.recipe.base_lr", ".004,.006"),
             ("vary.data.max_megabytes", "none,2")]  # fmt: skip
    assert replace_paths(experiment(), texts) == source
    # A list on the command line takes the place of that in the file; other axes stay.
    changed = replace_paths(source, [("vary.seed", "5"), ("vary.recipe.beta1", "0.8,0.9")])
    assert changed.vary == {**vary, "seed": (5,), "recipe.beta1": (0.8, 0.9)}


def test_a_run_differs_in_what_its_axis_decides_and_in_nothing_else():
    def differences(vary):
        runs = [cell.run for cell in grid.plan(experiment(budgets=(1e11,), vary=vary))]
        first, second = (fields(run) for run in runs[:2])
        return {path for path in first if first[path] != second[path]} - {"run_id"}

    rate = {"optimizer.learning_rate", "optimizer.weight_decay"}
    assert differences({"seed": (0, 1)}) == {"seed"}
    assert differences({"recipe.lr_multiplier": (1.0, 2.0)}) == {"lr_multiplier", *rate}
    assert differences({"recipe.base_lr": (0.004, 0.006)}) == rate
    assert differences({"recipe.optimizer": ("adamw", "muon")}) == {"optimizer.name"}
    assert differences({"measurement.eval_windows": (64, 128)}) == {"measurement.eval_windows"}
    assert differences({"data.max_megabytes": (1.0, 2.0)}) == {"data.max_megabytes"}
    # D is solved anew for each, and the batch and the rate from it.
    length = differences({"recipe.sequence_length": (64, 128)})
    assert {"sequence_length", "batch_size", "steps"} <= length <= {
        "sequence_length", "batch_size", "steps", *rate
    }  # fmt: skip


def test_ids_name_what_varies():
    def ids(**changes):
        return [cell.run.run_id for cell in grid.plan(experiment(budgets=(1e11,), **changes))]

    assert ids()[0] == "1e11-8x2-s0"
    assert ids(seed=3)[0] == "1e11-8x2-s3"
    assert ids(vary={"seed": (0, 1), "recipe.lr_multiplier": (0.5, 2.0)})[:3] == [
        "1e11-8x2-lr0.5-s0", "1e11-8x2-lr2-s0", "1e11-8x2-lr0.5-s1"
    ]  # fmt: skip
    assert ids(vary={"recipe.base_lr": (0.004,)})[0] == "1e11-8x2-base_lr_0.004-s0"
    both = {"recipe.definition": ("modern",), "recipe.lr_batch_tokens": (1e6,)}
    assert ids(vary=both)[0] == "1e11-8x2-definition_modern-lr_batch_tokens_1e06-s0"


def test_where_two_last_names_clash_ids_have_longer_ones():
    @dataclasses.dataclass(frozen=True)
    class Level:
        level: float = 0.0

    @dataclasses.dataclass(frozen=True)
    class Two:
        sparsity: Level = Level()
        experts: Level = Level()
        seed: int = dataclasses.field(default=0, metadata={"short": "s"})
        vary: dict = dataclasses.field(default_factory=dict)
        panel: dict = dataclasses.field(default_factory=dict)
        points: tuple = ()

    one = Two(vary={"sparsity.level": (0.5,)})
    assert [variant.name for variant in variants(one)] == ["level_0.5-s0"]
    two = Two(vary={"sparsity.level": (0.5,), "experts.level": (0.0, 2.0)})
    assert [variant.name for variant in variants(two)] == [
        "sparsity_level_0.5-experts_level_0-s0", "sparsity_level_0.5-experts_level_2-s0"
    ]  # fmt: skip


def test_a_value_that_changes_nothing_makes_no_second_run():
    """The largest batch matters to no run that is smaller."""
    vary = {"recipe.max_batch_tokens": (1e6, 2e6)}
    cells = grid.plan(experiment(budgets=(1e11,), vary=vary))
    assert [cell.status for cell in cells] == ["planned", "rejected"] * 2
    assert cells[1].reason == "is the same run as 1e11-8x2-max_batch_tokens_1e06-s0"


def test_ids_tell_shapes_apart():
    def shape(**changes):
        dims = {"width": 16, "depth": 2, "heads": 2, "kv_heads": 2, "head_size": 8, "ff_size": 48}
        return ModelConfig(**(dims | changes))

    shapes = (shape(), shape(kv_heads=1), shape(heads=4, kv_heads=2, head_size=4), shape(depth=3))
    ladder = LadderConfig(shapes=shapes, sizes_per_budget=(0,), min_tokens_per_param=0.01)
    cells = grid.plan(experiment(ladder=ladder))
    assert len({cell.run.run_id for cell in cells}) == len(cells) == 8


def test_each_corpus_has_its_own_limit():
    source = experiment(vary={"data.max_megabytes": (1.0, 100.0)}, budgets=(1e11,))
    small, large = (variant.experiment.data for variant in variants(source))
    cells = grid.plan(source, {small: 10_000, large: 10**9})
    assert [("epochs" in cell.reason) for cell in cells] == [True, False] * 2


@pytest.mark.parametrize(
    "vary,words",
    [
        ({"recipe.base_ltr": (1.0,)}, ("vary.recipe.base_ltr", "did you mean base_lr")),
        ({"recipee.base_lr": (1.0,)}, ("vary.recipee", "did you mean recipe")),
        ({"recipe": (RecipeConfig(),)}, ("vary.recipe", "is a group")),
        ({"seed": (0, "1")}, ("vary.seed[1] = '1'", "a whole number")),
        ({"seed": "0,1"}, ("vary.seed = '0,1'", "a list")),
        ({"seed": 3}, ("vary.seed = 3", "a list")),
        ({"recipe.base_lr": (1, 1.0)}, ("vary.recipe.base_lr", "twice")),
        ({"seed": ()}, ("vary.seed", "at least one value")),
        ({"recipe.optimizer": ("adamw", "muonn")}, ("recipe.optimizer", "did you mean muon")),
        ({"seed": (-1,)}, ("seed = -1", "[0, 2**31)")),
        ({"budgets": (1e11,)}, ("vary.budgets", "set config.budgets")),
        ({"ladder.widths": ((8,), (16,))}, ("vary.ladder.widths", "set config.ladder.widths")),
        ({"ladder.table": ("a9",)}, ("vary.ladder.table", "an axis of the grid already")),
        ({"ladder.min_steps": (1, 2)}, ("set config.ladder.min_steps",)),
        ({"ladder.width": ((8,),)}, ("vary.ladder.width: no such field", "did you mean widths")),
        ({"flops_convention": ("matmul", "six_nd")}, ("every convention", "config.flops_conv")),
        ({"ladder": ()}, ("vary.ladder", "cannot vary")),
        ({"vary": ()}, ("vary.vary", "cannot vary")),
        ({"name": ("a",)}, ("vary.name", "cannot vary")),
        ({"order": ("planned",)}, ("vary.order", "decides no number")),
        ({"execution.fsdp": (1, 2)}, ("vary.execution.fsdp", "decides no number")),
        ({"execution": ()}, ("vary.execution", "decides no number")),
        ({"data.cache": ("a",)}, ("vary.data.cache", "decides no number")),
        ({"data.path": ("x" * 90,), "data.text_field": ("y" * 30,), "recipe.beta1": (0.5,),
          "recipe.lr_batch_tokens": (1 / 3,), "recipe.batch_data_tokens": (1 / 3,),
          "recipe.warmup_fraction": (1 / 3,), "recipe.cooldown_fraction": (1 / 7,)},
         ("too long", "fewer fields")),
    ],
)  # fmt: skip
def test_what_cannot_vary_is_one_line(vary, words):
    with pytest.raises(UserError) as error:
        grid.plan(experiment(vary=vary))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
