"""The schema refuses what is wrong, in one line that helps, and survives JSON."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment.config import (
    DataConfig,
    Experiment,
    LadderConfig,
    RecipeConfig,
    RunConfig,
)
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import from_json, replace_paths, to_json, unknown_field


def experiment(**changes):
    values = {"name": "t", "budgets": (1e11, 1e12), "ladder": LadderConfig(widths=(8, 16, 24))}
    return Experiment(**(values | changes))


def test_json_round_trip_of_an_experiment_and_of_its_runs():
    original = experiment(data=DataConfig(max_megabytes=3.5), vary={"seed": (3, 4)})
    assert from_json(Experiment, json.loads(json.dumps(to_json(original))), "x") == original
    run = next(c.run for c in plan(original) if c.status == "planned")
    assert from_json(RunConfig, json.loads(json.dumps(to_json(run))), "x") == run


@given(
    st.lists(st.floats(1e8, 1e25), min_size=1, max_size=4, unique=True),
    st.floats(1e-6, 1.0),
    st.integers(1, 10**6),
)
def test_overrides_from_text_equal_values_set_in_code(budgets, rate, steps):
    texts = {
        "budgets": ",".join(map(repr, budgets)),
        "recipe.base_lr": repr(rate),
        "ladder.min_steps": str(steps),
    }
    assert replace_paths(experiment(), list(texts.items())) == experiment(
        budgets=tuple(budgets),
        recipe=RecipeConfig(base_lr=rate),
        ladder=LadderConfig(widths=(8, 16, 24), min_steps=steps),
    )


@pytest.mark.parametrize(
    "path,text,words",
    [
        ("recipe.base_ltr", "1", ("config.recipe.base_ltr", "did you mean base_lr")),
        ("recipee.base_lr", "1", ("config.recipee", "did you mean recipe")),
        ("recipe", "1", ("config.recipe", "group")),
        ("name.x", "1", ("config.name", "no fields")),
        ("budgets", "abc", ("config.budgets", "abc", "a number")),
        ("budgets", "", ("budgets", "at least one")),
        ("budgets", "1e11,1e11", ("budgets", "twice")),
        ("budgets", "1e11,-3", ("budgets", "positive")),
        ("budgets", "inf", ("config.budgets", "finite")),
        ("seed", "1.5", ("config.seed", "whole number")),
        ("seed", "9" * 400, ("config.seed", "whole number")),
        ("seed", "9" * 5000, ("config.seed", "whole number")),
        ("ladder.widths", "1e300", ("config.ladder.widths", "too large")),
        ("ladder.widths", "9" * 5000, ("config.ladder.widths", "whole number")),
        ("seed", "-1", ("seed", "[0, 2**31)")),
        ("flops_convention", "matmull", ("flops_convention", "did you mean matmul")),
        ("execution.threads", "257", ("execution.threads", "at most 256")),
        ("execution.tensorboard", "yes", ("config.execution.tensorboard", "true or false")),
        ("ladder.shapes", "1", ("config.ladder.shapes", "in the file")),
        ("ladder.table", "a9", ("exactly one", "widths")),
        ("data.vocab_size", "300", ("data.vocab_size", "256")),
        ("recipe.warmup_fraction", "1", ("recipe.warmup_fraction", "[0, 1)")),
    ],
)
def test_a_wrong_override_is_one_line_that_helps(path, text, words):
    with pytest.raises(UserError) as error:
        replace_paths(experiment(), [(path, text)])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "name,near",
    [("techniques", None), ("exec", None), ("zzz", None), ("bdgets", "budgets"), ("sead", "seed"),
     ("measurment", "measurement"), ("lr_mult", "lr_multiplier"), ("wds", "wsd")],
)  # fmt: skip
def test_only_what_is_near_is_suggested(name, near):
    names = ["budgets", "seed", "recipe", "execution", "measurement", "lr_multiplier", "wsd"]
    told = str(unknown_field("config", name, names))
    between = f"; did you mean {near}?" if near else ""
    assert told.startswith(f"config.{name}: no such field{between} (the fields are budgets, ")


def test_types_are_checked_in_python_too():
    with pytest.raises(UserError, match=r"config\.budgets\[1\] = '3e11': expected a number"):
        experiment(budgets=(1e11, "3e11"))
    with pytest.raises(UserError, match=r"ladder\.widths = \.\.\.: must lie in \[1e-30, 1e\+30\]"):
        experiment(ladder=LadderConfig(widths=(10**5000,)))
    with pytest.raises(UserError, match=r"config\.name = \.\.\.: expected a text"):
        experiment(name=10**5000)
    with pytest.raises(UserError, match=r"expected LadderConfig"):
        experiment(ladder={"widths": (8,)})


@dataclass(frozen=True)
class _Record:
    from_: str
    ends: tuple[float, float]
    whole: int | None


def test_pairs_have_their_length_and_keywords_their_name():
    data = {"from": "seeds", "ends": [1, 2.5], "whole": None}
    record = from_json(_Record, data, "record")
    assert record == _Record("seeds", (1.0, 2.5), None) and to_json(record) == data
    for ends, words in (([1.0], "a list of 2"), ([1.0, 2.0, 3.0], "a list of 2"),
                        ([1.0, "2"], r"ends\[1\]"), ([1.0, 10**400], "finite")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            from_json(_Record, data | {"ends": ends}, "record")
    with pytest.raises(UserError, match="the field from is missing"):
        from_json(_Record, {"ends": [1.0, 2.0], "whole": 1}, "record")


def test_unknown_and_missing_fields_in_json_are_named():
    data = to_json(experiment())
    with pytest.raises(UserError, match=r"plan\.budgetts: no such field; did you mean budgets"):
        from_json(Experiment, data | {"budgetts": 1}, "plan")
    del data["budgets"]
    with pytest.raises(UserError, match="budgets is missing"):
        from_json(Experiment, data, "plan")


@pytest.mark.parametrize(
    "changes,word",
    [
        ({"kv_heads": 3}, "divide heads"),
        ({"head_size": 7}, "even"),
        ({"width": 0}, "positive"),
        ({"definition": "moderne"}, "did you mean modern"),
        ({"definition": "chinchilla", "kv_heads": 2}, "as many as heads"),
    ],
)
def test_impossible_shapes_are_refused(changes, word):
    good = {"width": 64, "depth": 1, "heads": 4, "kv_heads": 4, "head_size": 16, "ff_size": 64}
    ModelConfig(**good)
    with pytest.raises(UserError, match=word):
        ModelConfig(**(good | changes))


def test_fields_that_need_each_other_may_come_in_any_order():
    overrides = [("data.builder", "local_text"), ("data.path", "my/*.txt")]
    for order in (overrides, overrides[::-1]):
        assert replace_paths(experiment(), order).data.path == "my/*.txt"
    with pytest.raises(UserError, match="needs the path"):
        replace_paths(experiment(), overrides[:1])
