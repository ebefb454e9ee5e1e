"""Answers of fitted and published laws, against brute force and against each other."""

import numpy as np
import pytest

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import read, write
from chinchilla_jax.scaling.forecast.frontier import from_fits, from_published
from chinchilla_jax.scaling.forecast.questions import at_flops, for_inference, misses, reaching
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report import answers
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import loose
from tests.scaling.sweeps import true_loss, write_sweep


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    found, _ = analyse(read_runs(folder), Settings(bootstrap=300, budgets=(1e13, 1e14)))
    write(folder / "fits.json", found)
    return read(folder / "fits.json")  # as a later session does


def _published(name):
    return from_published(law_named(name))


def test_a_saved_report_answers_as_evaluate_did(fits):
    for row in fits.forecast:
        for form in ("surface", "loss_law"):
            answer = at_flops(from_fits(fits, form), row.flops)
            same = next(r for r in row.every if r.form == form)
            for name in ("params", "tokens", "loss"):
                assert getattr(answer, name) == pytest.approx(getattr(same, name), rel=1e-9)
                assert answer.interval[name] == pytest.approx(same.interval[name], rel=1e-9)
        chosen = at_flops(from_fits(fits), row.flops)
        assert chosen.params == pytest.approx(row.params, rel=1e-9)


def test_forecast_of_the_synthetic_sweep_holds_the_truth(fits):
    """At the FLOPs of the sweep's own count the truth lies inside the intervals."""
    answer = at_flops(from_fits(fits, "surface"), 1e13)
    cost = fits.table.flops_model
    params = np.geomspace(1e4, 1e7, 4000)
    loss = true_loss(params, 1e13 / (cost.kappa * params**cost.exponent))
    low, high = answer.interval["params"]
    assert low * 0.9 < params[loss.argmin()] < high * 1.1
    assert answer.interval["loss"][0] * 0.99 < loss.min() < answer.interval["loss"][1] * 1.01


@pytest.mark.parametrize("name", ["hoffmann", "kaplan", "gadre_c4", "muennighoff"])
def test_the_reverse_questions_undo_the_forward_one(name):
    frontier = _published(name)
    forward = at_flops(frontier, 3e21)
    for quantity in ("loss", "params", "tokens"):
        back = reaching(frontier, quantity, getattr(forward, quantity))
        assert back.flops == pytest.approx(3e21, rel=1e-5)
        assert back.params == pytest.approx(forward.params, rel=1e-5)


def test_reverse_questions_carry_the_uncertainty_to_flops(fits):
    frontier = from_fits(fits, "surface")
    forward = at_flops(frontier, 1e13)
    back = reaching(frontier, "loss", forward.loss)
    assert back.interval["flops"][0] < 1e13 < back.interval["flops"][1]
    assert "loss" not in back.interval  # it was given


def test_open_ends_are_refused_as_evaluate_refuses_them():
    params, tokens, loss = loose(6)
    rows = [
        {"params": n, "tokens": d, "loss": y} for n, d, y in zip(params, tokens, loss, strict=True)
    ]
    fits, _ = analyse(read_runs(rows), Settings(bootstrap=200))
    (row,) = fits.forecast
    frontier = from_fits(fits)
    answer = at_flops(frontier, row.flops)
    assert answer.params == pytest.approx(row.params, rel=1e-9)
    assert row.interval["params"] is None and answer.interval["params"] is None
    back = reaching(frontier, "params", row.params)
    assert back.interval["flops"] is None and "params" not in back.interval
    questions = {"flops": (row.flops,), "loss": (), "params": (), "tokens": ()}
    text = answers.text(frontier, questions, None, RecipeConfig(), 32000)
    assert "(interval open)" in text
    assert "interval of params, tokens, tokens_per_param, loss is open and none is given" in text


def test_draws_that_no_budget_brings_to_a_loss_leave_the_interval_open(fits):
    """A loss that the law reaches and a fifth of its draws never do."""
    draws = fits.draws.surface.rows
    floor = float(np.quantile(draws[:, 0], 0.8))
    back = reaching(from_fits(fits, "surface"), "loss", floor + 1e-9)
    assert back.interval["flops"] is None


@pytest.mark.parametrize("name", ["hoffmann", "kaplan"])
def test_misses_against_brute_force(name):
    law, flops = law_named(name), 1e22
    best = law.optimum(flops)
    for miss in misses(_published(name), flops):
        params = float(best.params) * miss.factor
        loss = float(law.loss(params, flops / (6 * params)))
        assert miss.loss == pytest.approx(loss, rel=1e-9)
        assert miss.excess == pytest.approx(loss - float(best.loss), rel=1e-6)
        enough = flops * (1 - miss.wasted)  # an optimal run of that many FLOPs is as good
        assert float(law.optimum(enough).loss) == pytest.approx(loss, rel=1e-9)
        assert 0 < miss.wasted < 0.5


def test_inference_aware_optimum_against_brute_force():
    """Sardana et al.: the smallest sum of 6 N D + 2 N D_inference over runs of one loss."""
    law, loss, served_tokens = law_named("hoffmann").surface, 2.0, 3e12
    found = for_inference(_published("hoffmann"), loss, served_tokens)
    assert float(law.loss(found.params, found.tokens)) == pytest.approx(loss, rel=1e-9)
    params = np.geomspace(found.params / 5, found.params * 5, 20001)
    left = loss - law.E - law.A * params**-law.alpha
    tokens = np.where(left > 0, (law.B / np.maximum(left, 1e-300)) ** (1 / law.beta), np.inf)
    total = 6 * params * tokens + 2 * params * served_tokens
    assert found.training_flops + found.inference_flops <= total.min() * (1 + 1e-9)
    assert found.params == pytest.approx(params[total.argmin()], rel=1e-3)
    optimal = reaching(_published("hoffmann"), "loss", loss)
    assert found.params < optimal.params and found.tokens > optimal.tokens
    ordinary = optimal.flops + 2 * optimal.params * served_tokens
    assert found.saved == pytest.approx(1 - total.min() / ordinary, abs=1e-6)


def test_no_inference_leaves_the_compute_optimal_run():
    found = for_inference(_published("hoffmann"), 2.0, 1.0)
    optimal = reaching(_published("hoffmann"), "loss", 2.0)
    assert found.params == pytest.approx(optimal.params, rel=1e-3)
    assert found.saved == pytest.approx(0.0, abs=1e-6)


def test_sparse_runs_keep_their_price():
    frontier = from_published(law_named("frantar_t5"), {"sparsity": 0.5})
    best = at_flops(frontier, 1e20)
    for miss in misses(frontier, 1e20):
        spent = 6 * miss.params * miss.tokens * (1 - 0.625 * 0.5) / (1 - 0.5)
        assert spent == pytest.approx(1e20, rel=1e-6)
        assert miss.loss > best.loss


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: reaching(_published("hoffmann"), "loss", 1.5), "its floor is 1.693"),
        (lambda: reaching(_published("llama3"), "loss", 2.0), "gives sizes, not a loss"),
        (lambda: for_inference(_published("kaplan"), 2.0, 1e12), "E . A/N"),
        (lambda: for_inference(_published("hoffmann"), 1.6, 1e12), "below the floor"),
        (lambda: at_flops(_published("gemstones"), 1e21), "width"),
        (lambda: _text("hoffmann"), "nothing is asked"),
        (lambda: _text("hoffmann", params=(1e9, 2e9), tokens=(1e9,)), "2 values"),
        (lambda: _text("llama3", params=(1e9,), tokens=(1e10,)), "sizes only"),
        (lambda: _text("llama3", served=1e12, flops=(1e22,)), "inference_tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said(ask, message):
    with pytest.raises(UserError, match=message):
        ask()


def _text(name, served=None, **asked):
    questions = {"flops": (), "loss": (), "params": (), "tokens": (), **asked}
    return answers.text(_published(name), questions, served, RecipeConfig(), 32000)


def test_printed_answers():
    text = _text("replication_huber", flops=(5.76e23,))
    assert "73.2B" in text and "1.31T" in text and "18" in text
    assert "N*/2" in text and "2 N*" in text and "wasted" in text
    assert "2.3 decades" in text
    assert "1.974" in text
    given = _text("hoffmann", params=(70e9,), tokens=(1.4e12,))
    assert "5.88e23" in given  # section 4.1: the FLOPs of Chinchilla by 6 N D


def test_a_refused_fit_is_refused_in_the_words_of_the_evaluation():
    """One budget: no surface and no exponents."""
    params = np.geomspace(1e6, 1e8, 7)
    table = {
        "params": params,
        "tokens": 1e17 / 6 / params,
        "loss": 2 + 0.1 * np.log(params / 1e7) ** 2,
    }
    fits, _ = analyse(read_runs(table), Settings(bootstrap=0))
    for form, words in (
        ("", "one budget"),
        ("surface", "one budget"),
        ("loss_law", "1 of 1 budgets"),
    ):
        with pytest.raises(UserError, match=words):
            from_fits(fits, form)
    with pytest.raises(UserError, match="--form=line is none of surface, loss_law"):
        from_fits(fits, "line")


def test_the_nearest_shape_has_the_vocabulary_of_the_runs(fits):
    assert fits.table.vocab_size == 256
    assert from_fits(fits).vocab_size == 256


@pytest.mark.parametrize("flops", [1e300, 1e-300, 1.0])
def test_a_budget_without_an_optimum_has_no_shape_and_says_so(flops):
    text = _text("hoffmann", flops=(5.76e23, flops))
    assert text.count("heads") == 1 and "nan" not in text
    assert f"at {numbers.flops(flops)} FLOPs this law gives no optimum" in text
    alone = _text("hoffmann", flops=(flops,))
    assert "heads" not in alone and "no optimum" in alone
