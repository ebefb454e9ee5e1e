"""Accuracies in an evaluation: which law, which intervals, how the largest runs fared."""

import dataclasses
import json
import re

import numpy as np
import pytest

import chinchilla_jax as cj
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.notebook import Result
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.sections.downstream import downstream
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.odd import LAYOUTS
from tests.scaling.report.marks import assert_points_are_listed

SIZES, RATIOS = np.meshgrid(np.geomspace(1e8, 4e9, 7), [10.0, 20.0, 60.0, 200.0])
FLOPS = (6 * SIZES**2 * RATIOS).ravel()
PARAMS, TOKENS = SIZES.ravel(), (SIZES * RATIOS).ravel()
LOSS = Surface(1.7, 400.0, 400.0, 0.34, 0.28)
TASK = Surface(0.5, 30.0, 60.0, 0.25, 0.24)
DIRECT = Surface(0.1, 200.0, 300.0, 0.28, 0.26)


def sigmoid(params, tokens):
    return 0.25 + 0.72 / (1 + np.exp(9 * (TASK.loss(params, tokens) - 0.75)))


def power(params, tokens):
    return 0.5 + 0.5 * np.exp(-DIRECT.loss(params, tokens))


def table(seed=0, noise=0.004):
    rng = np.random.default_rng(seed)
    size = len(PARAMS)
    return {
        "params": PARAMS, "tokens": TOKENS,
        "loss": LOSS.loss(PARAMS, TOKENS) * np.exp(rng.normal(0, 0.001, size)),
        "hellaswag_acc": sigmoid(PARAMS, TOKENS) + rng.normal(0, noise, size),
        "hellaswag_bpb": TASK.loss(PARAMS, TOKENS) * np.exp(rng.normal(0, 0.002, size)),
        "piqa_acc": power(PARAMS, TOKENS) + rng.normal(0, noise, size),
    }  # fmt: skip


@pytest.fixture(scope="module")
def evaluated():
    return analyse(read_runs(table()), Settings(bootstrap=200, budgets=(1e23, 1e24)))


def test_the_law_that_made_a_task_forecasts_it(evaluated):
    fits, _ = evaluated
    hellaswag, piqa = fits.tasks
    assert (hellaswag.name, hellaswag.loss, hellaswag.chance) == (
        "hellaswag",
        "hellaswag_bpb",
        0.25,
    )
    assert piqa.loss is None and piqa.chance == 0.5
    assert hellaswag.best == "two_step"
    for task, truth in ((hellaswag, sigmoid), (piqa, power)):
        assert [at.flops for at in task.forecast] == [1e23, 1e24]
        for at, run in zip(task.forecast, fits.forecast, strict=True):
            assert (at.params, at.tokens) == (run.params, run.tokens)
            low, high = at.interval
            assert low < truth(at.params, at.tokens) < high
            assert high - low < 0.15


def found(columns, **settings):
    settings = Settings(**{"bootstrap": 100} | settings)
    return downstream(read_runs(columns), (), settings, np.random.default_rng(0))


def test_the_largest_runs_are_checked_by_the_smaller_ones(evaluated):
    fits, _ = evaluated
    for task in fits.tasks:
        late = np.sort(FLOPS[FLOPS.max() / 10**0.5 < FLOPS])[-8:]
        np.testing.assert_allclose([row.flops for row in task.checked], late)
        assert all(row.fitted_up_to <= FLOPS.max() / 10**0.5 for row in task.checked)
        for row in task.checked:
            assert row.inside == (row.interval[0] <= row.observed <= row.interval[1])


def test_intervals_hold_on_runs_that_were_held_out():
    """Over repetitions of the same experiment, where eight runs are up to two decades beyond."""
    checked = [
        row
        for seed in range(1, 5)
        for task in found(table(seed), holdout_above=3e20)
        for row in task.checked
    ]
    assert len(checked) == 4 * 2 * 8
    assert np.mean([row.inside for row in checked]) >= 0.9
    assert np.median([row.interval[1] - row.interval[0] for row in checked]) < 0.12


def test_a_cut_of_ones_own():
    for task in found(table(), holdout_above=1e20):
        assert task.checked and all(row.flops > 1e20 for row in task.checked)
        assert all(row.fitted_up_to <= 1e20 for row in task.checked)


def test_without_draws_there_is_no_interval():
    for task in found(table(), bootstrap=0):
        assert task.best and all(row.inside is None for row in task.checked)


def test_a_law_that_misses_says_how_much():
    """A task that the largest runs suddenly learn: the interval is as wide as the surprise."""
    late = FLOPS.max() / 10**0.5 < FLOPS
    columns = table() | {"copa_acc": np.where(late, 0.9, 0.5 + 0.02 * np.log10(FLOPS / 1e17))}
    task = next(task for task in found(columns) if task.name == "copa")
    assert min(form.held_out_rms for form in task.forms) > 0.1
    assert not any(row.inside for row in task.checked)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.where(np.arange(28) < 7, 0.5, np.nan), "7 runs have it, 8 or more are needed"),
        (np.where(np.arange(28) < 20, 0.5, np.nan), "the same in all runs"),
    ],
)
def test_too_little_is_said(values, says):
    values = [None if np.isnan(x) else x for x in values]
    if says.startswith("7"):
        values[:7] = np.linspace(0.4, 0.6, 7).tolist()
    task = next((t for t in found(table() | {"boolq_acc": values}) if t.name == "boolq"), None)
    assert task is None or (task.status == "refused" and says in task.reason)
    assert task is not None or says.startswith("the same")


def test_what_has_no_law_is_said_once(tmp_path):
    few = {f"t{x}_acc": [0.5, 0.6, 0.7] + [None] * 25 for x in "abcde"}
    fits, arrays = analyse(read_runs(table() | few), Settings(bootstrap=0))
    sentence = (
        "Tasks without a law of accuracy: ta, tb, tc and 2 more: 3 runs have it, 8 or more are "
        "needed."
    )
    assert sentence in report.terminal(fits, "x")
    assert sentence in report.html(fits, arrays, {})


def test_a_matrix_that_is_all_but_singular_breaks_nothing():
    """Accuracy that falls as the loss does: no sigmoid goes through (0, 1)."""
    params, tokens = LAYOUTS["some minima inside"]()
    size, data = (0.5 * (x / x.min()) ** -0.3 for x in (params, tokens))
    loss = 2 + size + data
    columns = {"params": params, "tokens": tokens, "loss": loss, "hellaswag_bpb": loss / 3,
               "hellaswag_acc": np.clip(0.9 - 0.2 * (3 - loss), 0, 1)}  # fmt: skip
    assert all(task.status == "ok" for task in found(columns, bootstrap=60))


def test_all_of_it_is_written_and_shown(evaluated, tmp_path):
    fits, arrays = evaluated
    assert from_json(Fits, to_json(fits), "fits").tasks == fits.tasks
    page = report.write(tmp_path, fits, arrays)
    text = page.read_text()
    assert "Accuracy on tasks" in text and 'id="accuracy"' in text
    assert (tmp_path / "accuracy.png").exists()
    assert_points_are_listed(tmp_path, "accuracy")
    shown = report.terminal(fits, page)
    assert "two steps" in shown and "held-out rms" in shown
    assert re.search(r"\d of \d measured accuracies lie inside their 95 % interval", shown)
    old = json.loads((tmp_path / "fits.json").read_text())
    del old["tasks"]  # as files of before have none
    assert from_json(Fits, old, "fits").tasks == ()


def test_a_table_without_accuracies_says_nothing_of_them(tmp_path):
    columns = {k: v for k, v in table().items() if k in ("params", "tokens", "loss")}
    fits, arrays = analyse(read_runs(columns), Settings(bootstrap=0))
    assert fits.tasks == ()
    assert "ccuracy" not in report.html(fits, arrays, {})
    assert "ccuracy" not in report.terminal(fits, "x")


def test_the_library_predicts_any_run(evaluated):
    result = cj.fit(table(), bootstrap=0)
    assert result.accuracy("piqa", 7e9, 1e12) == pytest.approx(power(7e9, 1e12), abs=0.01)
    assert result.draw("accuracy").axes
    with pytest.raises(UserError, match="piqq: no such task; did you mean piqa"):
        result.accuracy("piqq", 7e9, 1e12)
    few = dataclasses.replace(result.fits.tasks[0], forms=(), reason="too few")
    other = Result(dataclasses.replace(result.fits, tasks=(few,)), result.arrays)
    with pytest.raises(UserError, match="hellaswag: too few"):
        other.accuracy("hellaswag", 7e9, 1e12)
