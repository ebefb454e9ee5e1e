"""A fitted recipe: what it gives, where it is refused, and what is said outside its range."""

import dataclasses
import json

import pytest

from chinchilla_jax.experiment import fitted_recipe, grid, recipe
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fitted_recipe import Evidence, FittedRecipe, MadeFor, SettingRule

MADE_FOR = MadeFor(
    tokenizer="bytes", vocab_size=256, optimizer="adamw", parametrization="mup", base_width=64,
    definition="modern", sequence_length=64,
)  # fmt: skip
EVIDENCE = Evidence(
    source="made up", runs=100, cells=12, noise=0.01, near=0.08, rows="0" * 64,
    data_fingerprint="text", code_version="test", schedule="linear",
)  # fmt: skip


def fitted(**changes):
    return FittedRecipe(**{
        "version": fitted_recipe.VERSION, "made_for": MADE_FOR, "evidence": EVIDENCE,
        "params": (5e3, 1e5), "tokens": (5e4, 5e6),
        "learning_rate": SettingRule(coefficient=0.01, exponents={"params": -0.1, "batch": 0.5},
                                     curvature=0.04),
        "batch": SettingRule(coefficient=0.1, exponents={"tokens": 0.6}, curvature=0.01),
        **changes,
    })  # fmt: skip


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(fitted_recipe.text(fitted()))
    return file


def experiment(source, **changes):
    return Experiment(
        name="test", budgets=(1e11,), recipe=RecipeConfig(source=str(source), **changes),
        ladder=LadderConfig(widths=(8, 16, 24)),
    )  # fmt: skip


def test_cells_have_its_batch_and_rate(source):
    for cell in grid.plan(experiment(source)):
        run = cell.run
        wanted = 0.1 * cell.tokens**0.6 / 64
        assert 2**-0.3 < run.batch_size / wanted < 2**0.3
        rate = 0.01 * cell.params**-0.1 * (64 * run.batch_size) ** 0.5
        assert run.optimizer.learning_rate == pytest.approx(rate)
        decay = run.optimizer.weight_decay
        assert rate * decay * run.steps == pytest.approx(RecipeConfig().decay_timescale)
    (twice, *_) = grid.plan(experiment(source, lr_multiplier=2.0))
    (once, *_) = grid.plan(experiment(source))
    ratio = twice.run.optimizer.learning_rate / once.run.optimizer.learning_rate
    assert ratio == pytest.approx(2.0)


def test_a_timescale_of_weight_decay(tmp_path):
    """B / (lr wd D) = 1.084 (D/N)^-.527 (Bergsma et al. 2025): .2236 at 20 tokens a parameter."""
    file = tmp_path / "recipe.json"
    law = SettingRule(coefficient=1.084, exponents={"tokens_per_param": -0.527}, curvature=0.01)
    file.write_text(fitted_recipe.text(fitted(weight_decay=law)))
    rules = RecipeConfig(source=str(file))
    optimizer = recipe.optimizer_for(1000, 1e-3, rules, params=1e9, tokens=2e10)
    assert 1 / (1e-3 * optimizer.weight_decay * 1000) == pytest.approx(0.2236, rel=1e-3)


def test_a_law_that_was_not_tuned_is_the_recipes_own(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(fitted_recipe.text(fitted(batch=None)))
    rules = RecipeConfig(source=str(file))
    assert recipe.batch_size(1e6, rules) == recipe.batch_size(1e6, RecipeConfig())


def test_without_a_source_nothing_is_as_it_was_not():
    assert recipe.learning_rate(8, RecipeConfig(), 1e5, 1e6) == pytest.approx(6e-3)
    assert fitted_recipe.check(experiment("")) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "muon"}, "was tuned with optimizer adamw, and this experiment has muon"),
        ({"parametrization": "standard"}, "was tuned with parametrization mup"),
        ({"sequence_length": 128}, "was tuned with sequence_length 64"),
        ({"base_width": 32}, "was tuned with base_width 64, and this experiment has 32"),
    ],
)
def test_another_optimizer_or_shape_is_refused_in_a_line(source, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        grid.plan(experiment(source, **changes))
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_refused(tmp_path):
    file = tmp_path / "recipe.json"
    other = fitted(made_for=MadeFor(**{**vars(MADE_FOR), "vocab_size": 32000}))
    file.write_text(fitted_recipe.text(other))
    with pytest.raises(UserError, match="was tuned with vocab_size 32000"):
        grid.plan(experiment(file))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data | {"params": [1e3, 1e9]}, "was changed after it was written"),
        (lambda data: data | {"version": 7}, "is of version 7"),
        (lambda data: [data], "is no recipe"),
        (lambda data: {"version": 1}, "is no recipe"),
    ],
)
def test_a_damaged_file_is_refused(source, damage, words):
    source.write_text(json.dumps(damage(json.loads(source.read_text()))))
    with pytest.raises(UserError, match=words):
        grid.plan(experiment(source))


def test_half_a_file_and_none_are_one_line(source, tmp_path):
    source.write_text(source.read_text()[:200])
    with pytest.raises(UserError, match=r"recipe\.json"):
        grid.plan(experiment(source))
    with pytest.raises(UserError, match="no such file"):
        grid.plan(experiment(tmp_path / "none.json"))


@pytest.mark.parametrize(
    "law",
    [
        {"coefficient": -1.0, "exponents": {}, "curvature": 0.1},
        {"coefficient": 1.0, "exponents": {"width": 1.0}, "curvature": 0.1},
        {"coefficient": 1.0, "exponents": {"tokens": 40.0}, "curvature": 0.1},
    ],
)
def test_numbers_that_no_law_has_are_refused(law):
    with pytest.raises(UserError):
        SettingRule(**law)


def test_runs_outside_its_range_are_told(source, caplog):
    grid.plan(experiment(source))
    assert not caplog.records
    source.write_text(fitted_recipe.text(fitted(params=(5e3, 1e4))))
    grid.plan(experiment(source))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"recipe.source = {source}: 2 of 3 cells lie outside the runs")
    assert "(params 5k to 10k, tokens 50k to 5M), up to 3.3 times" in line


OPEN = {"params": None, "batch": (0.4, 0.6), "coefficient": None, "curvature": (0.1, 0.2)}


@pytest.mark.parametrize(
    ("changes", "law", "said"),
    [
        ({}, {"interval": OPEN}, ["its runs do not determine learning_rate (params, coefficient)"]),
        ({}, {"interval": {"batch": (0.4, 0.6)}}, []),
        ({"base_lr": 0.5, "batch_exponent": 0.1}, {}, [
            "its laws stand in the place of recipe.base_lr, recipe.batch_exponent, which change",
        ]),
        ({"decay_timescale": 3.0, "lr_multiplier": 2.0, "max_batch_tokens": 4096.0}, {}, []),
    ],
)  # fmt: skip
def test_what_it_leaves_open_and_what_it_replaces_is_told(source, caplog, changes, law, said):
    rate = SettingRule(coefficient=0.01, exponents={"params": -0.1, "batch": 0.5},
                       curvature=0.04, **law)  # fmt: skip
    source.write_text(fitted_recipe.text(fitted(learning_rate=rate)))
    grid.plan(experiment(source, **changes))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(said)
    for line, words in zip(told, said, strict=True):
        assert line.startswith(f"recipe.source = {source}: {words}")


def test_a_field_that_varies_and_changes_nothing_is_told(source, caplog):
    varied = dataclasses.replace(experiment(source), vary={"recipe.base_batch_tokens": (1e3, 2e3)})
    grid.plan(varied)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "in the place of recipe.base_batch_tokens, which changes nothing" in line
