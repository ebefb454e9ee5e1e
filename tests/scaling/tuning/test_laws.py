"""Laws of hyper-parameters on tables whose laws are known."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import read, write
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.tuning.laws import _hull, fit_tuning

from .known import TRUE, best_batch, best_rate, tuning_table

BOTH = ("learning_rate", "batch")


def by_setting(found):
    return {law.setting: law for law in found.laws}


def test_without_noise_every_law_is_found_to_the_digits():
    """Whole steps alone stand between: tokens differ by up to 1 % inside a cell."""
    found = fit_tuning(BOTH, read_runs(tuning_table()), 0, 0)
    laws = by_setting(found)
    assert laws["batch"].unit == "tokens" and len(found.cells) == 12
    for name in ("params", "tokens", "batch"):
        assert laws["learning_rate"].exponents[name] == pytest.approx(TRUE[name], abs=0.01)
    assert laws["batch"].exponents == {"tokens": pytest.approx(TRUE["batch_by_tokens"], abs=0.02)}
    assert laws["learning_rate"].curvature == pytest.approx(TRUE["rate_curvature"], rel=0.01)
    assert laws["batch"].curvature == pytest.approx(TRUE["batch_curvature"], rel=0.02)
    cost = {lost.factor: lost.share for lost in laws["learning_rate"].lost}
    assert cost[2.0] == pytest.approx(np.expm1(TRUE["rate_curvature"] * np.log(2) ** 2), rel=0.01)
    for cell in found.cells:
        batch = best_batch(cell.tokens)
        assert cell.best["batch"] == pytest.approx(batch, rel=0.05)
        best = best_rate(cell.params, cell.tokens, batch)
        assert cell.best["learning_rate"] == pytest.approx(best, rel=0.05)
        assert cell.law["learning_rate"] == pytest.approx(best, rel=0.05)


def test_a_tuned_batch_turns_the_sign_of_the_rate_in_tokens():
    found = fit_tuning(BOTH, read_runs(tuning_table()), 0, 0)
    at_fixed = by_setting(found)["learning_rate"].exponents["tokens"]
    through = TRUE["tokens"] + TRUE["batch"] * TRUE["batch_by_tokens"]
    assert at_fixed < -0.1 and found.policy == "tuned"
    assert found.at_tuned_batch["tokens"] == pytest.approx(through, abs=0.015) and through > 0.1
    one = tuning_table(batches=(1.0,))
    alone = fit_tuning(("learning_rate",), read_runs(one), 0, 0)
    assert alone.policy == "followed" and alone.followed == pytest.approx(0.6, abs=0.1)
    assert alone.at_tuned_batch == {} and any("sign" in text for text in alone.warnings)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    names = ("params", "tokens", "batch")
    inside = np.zeros(len(names))
    for seed in range(60):
        found = fit_tuning(BOTH, read_runs(tuning_table(0.01, seed)), 200, seed)
        law = by_setting(found)["learning_rate"]
        for i, name in enumerate(names):
            low, high = law.interval[name]
            inside[i] += low <= TRUE[name] <= high
    assert np.all(inside >= 0.88 * 60), inside


def test_with_noise_intervals_hold_the_truth_and_published_laws_lose_more():
    fits, _ = analyse(
        read_runs(tuning_table(0.01, 1)), Settings(bootstrap=100), tuned=("batch", "learning_rate")
    )
    found = fits.tuning
    law = by_setting(found)["learning_rate"]
    for name in ("params", "tokens", "batch"):
        low, high = law.interval[name]
        assert low < TRUE[name] < high and high - low < 0.4
    assert found.noise == pytest.approx(0.01, rel=0.3)
    assert {held.largest for held in found.held_out} == {"tokens", "params"}
    assert all(held.error["learning_rate"] < 0.5 for held in found.held_out)
    lost = {one.law: one.lost for one in found.published}
    assert lost["bjorck"] is None and lost["steplaw"] > 0.05  # of models 10,000 times as large
    assert [one.lost for one in found.published if one.lost] == sorted(filter(None, lost.values()))


def test_the_record_survives_its_file(tmp_path):
    fits, _ = analyse(read_runs(tuning_table(0.01)), Settings(bootstrap=40), tuned=("batch",))
    write(tmp_path / "fits.json", fits)
    assert read(tmp_path / "fits.json").tuning == fits.tuning
    write(tmp_path / "fits.json", replace(fits, tuning=None))
    assert '"tuning"' not in (tmp_path / "fits.json").read_text()  # nobody else's file changes


def test_weight_decay_by_its_timescale():
    """tau = B / (lr wd D) = 1.084 (D/N)^-.527 (Bergsma et al. 2025)."""
    rows = []
    for row in tuning_table(rates=(0.5, 1.0, 2.0), batches=(0.3, 1.0)):
        steps = row["tokens"] / (64 * row["batch"])
        best = 1.084 * (row["tokens"] / row["params"]) ** -0.527
        for times in (0.4, 1.0, 2.5):
            tau = times * best * 1.3
            loss = row["loss"] * np.exp(0.01 * np.log(tau / best) ** 2)
            decay = 1 / (row["lr"] * steps * tau)
            rows.append({**row, "weight_decay": decay, "loss": loss})
    found = fit_tuning(("weight_decay",), read_runs(rows), 0, 0)
    law = by_setting(found)["weight_decay"]
    assert law.exponents["tokens_per_param"] == pytest.approx(-0.527, abs=0.01)
    assert law.coefficient == pytest.approx(1.084, rel=0.05)
    assert law.curvature == pytest.approx(0.01, rel=0.02)
    assert set(by_setting(found)) == {"learning_rate", "batch", "weight_decay"}  # all that vary


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{k: v for k, v in row.items() if k not in ("lr", "batch")} for row in tuning_table()],
         "a column of learning rates or of batches"),
        (tuning_table(rates=(1.0,), batches=(1.0,)), "learning_rate varies in none"),
        ([{**row, "batch": 8 * (row["lr"] / 6e-3) ** 2} for row in tuning_table(batches=(1.0,))],
         "learning_rate follows the other settings"),
        ([row for row in tuning_table() if row["tokens"] < 1e5], "varies in 1 of the cells"),
        ([row for row in tuning_table(rates=(0.5, 1.0), batches=(1.0,)) if row["tokens"] < 3e5],
         "do not determine learning_rate"),
    ],
)  # fmt: skip
def test_what_the_runs_cannot_tell_is_refused_in_a_line(rows, words):
    with pytest.raises(UserError, match=words) as caught:
        fit_tuning(("learning_rate",), read_runs(rows), 0, 0)
    assert "\n" not in str(caught.value)


def test_best_values_beyond_what_was_tried_are_told():
    found = fit_tuning(("learning_rate",), read_runs(tuning_table(rates=(1.6, 2.4, 3.6))), 0, 0)
    assert any("lies beyond the values" in text for text in found.warnings)
    assert by_setting(found)["learning_rate"].outside == 12


def test_sizes_and_lengths_that_grow_together_are_told():
    rows = [row for row in tuning_table() if row["params"] == 6e3]
    found = fit_tuning(BOTH, read_runs(rows), 0, 0)
    assert "params" not in by_setting(found)["learning_rate"].exponents
    assert any("do not tell what params do" in text for text in found.warnings)


def test_a_size_that_follows_another_law_has_its_own_best_and_shows_when_it_is_held_out():
    """Its best rate is that at its own best batch."""
    found = fit_tuning(BOTH, read_runs(tuning_table(odd=3.0)), 0, 0)
    for cell in found.cells[-3:]:
        batch = 3 * best_batch(cell.tokens)
        assert cell.best["batch"] == pytest.approx(batch, rel=0.25) != cell.law["batch"]
        rate = best_rate(cell.params, cell.tokens, cell.best["batch"])
        assert cell.best["learning_rate"] == pytest.approx(rate, rel=0.1)
    held = {one.largest: one for one in found.held_out}["params"]
    assert held.cells == 3 and held.error["batch"] == pytest.approx(np.log(3), rel=0.1)
    cost = TRUE["batch_curvature"] * np.log(3) ** 2
    assert held.lost == pytest.approx(np.expm1(cost), rel=0.25)


def test_intervals_reach_to_the_outer_ends_of_both_bootstraps():
    near, far = np.linspace(1, 2, 200)[:, None], np.linspace(0, 1.5, 200)[:, None]
    (low, high) = _hull((near, far), lambda phi: {"x": phi[:, 0]})["x"]
    assert low < 0.1 and high > 1.9
    assert _hull((near, far * np.nan), lambda phi: {"x": phi[:, 0]})["x"] is None


def test_in_mup_published_rates_are_compared_with_that_of_hidden_matrices():
    """Of width 256 over base width 64 they get a quarter: Step Law's, far above, is farther off."""
    lost = {}
    for width in (64, 256):
        more = {"optimizer_parametrization": "mup", "optimizer_base_width": 64, "width": width}
        found = fit_tuning(BOTH, read_runs([row | more for row in tuning_table()]), 0, 0)
        lost[width] = {one.law: one.lost for one in found.published}
    assert lost[256]["steplaw"] > 1.2 * lost[64]["steplaw"]
    assert lost[256]["bergsma"] == pytest.approx(lost[64]["bergsma"])  # a batch alone
