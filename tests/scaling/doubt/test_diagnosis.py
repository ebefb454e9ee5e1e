"""What cannot be known is said in words, with the runs that would tell it."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import count
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.refusal import remedy
from chinchilla_jax.scaling.fitting.surface import LocalOptimum, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cells import group_flops
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.runs import Runs
from tests.scaling.known import TRUE, grid, loose

FOUR = [1e17, 1e18, 1e19, 1e20]


def _runs(params, tokens, loss, **columns):
    flops = 6 * params * tokens
    group, budget = group_flops(flops)
    return Runs(
        source="made", row_R=np.arange(len(loss)), index_R=np.arange(len(loss)),
        run_id_R=tuple(map(str, range(len(loss)))),
        params=params, tokens=tokens, flops=flops, loss=loss, group_R=group, budget_G=budget,
        budgets_from="grouped", params_convention="as_given", flops_convention="as_given",
        columns=columns,
    )  # fmt: skip


def _analyse(params, tokens, loss=None, **settings):
    loss = TRUE.loss(params, tokens) if loss is None else loss
    return analyse(_runs(params, tokens, loss), Settings(**{"bootstrap": 0, **settings}))[0]


def _refused(section, *words):
    assert section.status == "refused"
    assert section.a is None
    for word in words:
        assert word in section.reason


def test_tokens_that_follow_params_cannot_tell_alpha_from_beta():
    params = np.geomspace(1e7, 1e10, 30)
    scatter = np.exp(0.02 * np.random.default_rng(0).standard_normal(30))
    for tokens in (20 * params, 20 * params * scatter):
        fits = _analyse(params, tokens)
        _refused(fits.parametric, "tokens per parameter", "alpha and beta", "At ", "times")
        assert fits.forecast[0].params is None


def test_one_budget_is_one_line():
    params, tokens, _ = grid([1e19], 9, 6.0)
    _refused(_analyse(params, tokens).parametric, "one budget", "second and third budget")


@pytest.mark.parametrize("budgets", [[1e19], [1e18, 1e19]])
def test_fewer_than_three_budgets_have_no_exponent(budgets):
    params, tokens, _ = grid(budgets, 7, 4.0)
    fits = _analyse(params, tokens)
    _refused(fits.isoflop, f"{len(budgets)} of {len(budgets)} budgets", "three are needed")
    assert fits.isoflop.budgets[0].params is not None  # the minima themselves are shown
    assert fits.holdout.status == "refused"


def test_fewer_than_three_sizes():
    params, tokens, _ = grid(np.geomspace(1e17, 1e20, 9), 1, 1.0)
    params = np.repeat(params[:2], 9)
    tokens = np.tile(np.geomspace(1e9, 1e11, 9), 2)
    _refused(_analyse(params, tokens).parametric, "2 different model sizes")


def test_too_few_runs_for_the_parameters():
    params, tokens, _ = grid([1e18, 1e19], 3, 4.0)
    _refused(_analyse(params, tokens).parametric, "6 different runs for 5 parameters")
    assert _analyse(params, tokens, tied=True).parametric.status == "ok"


def test_replicates_are_not_different_runs():
    params, tokens, _ = (np.tile(x, 5) for x in grid([1e18, 1e19], 3, 4.0))
    loss = TRUE.loss(params, tokens) + 0.001 * np.random.default_rng(0).standard_normal(len(params))
    _refused(_analyse(params, tokens, loss).parametric, "6 different runs")


@pytest.mark.parametrize(("shift", "side"), [(3.0, "smallest"), (-3.0, "largest")])
def test_grids_beside_the_optimum_name_the_sizes_that_are_missing(shift, side):
    params, tokens, _ = grid(FOUR, 7, 3.0, shift=shift)
    section = _analyse(params, tokens).isoflop
    _refused(section, "0 of 4 budgets", "Train at 1e17 FLOPs with")
    for g, budget in enumerate(section.budgets):
        assert budget.status == "refused"
        assert side in budget.reason
        assert budget.params is None
        assert budget.lowest.loss == pytest.approx(TRUE.loss(params, tokens)[7 * g :][:7].min())
    wanted = 0.5 * params[:7].min() if side == "smallest" else 2.0 * params[:7].max()
    assert f"FLOPs with {numbers.count(wanted)} and" in section.reason


def test_e_at_zero_is_said():
    params, tokens, _ = grid(FOUR, 7, 4.0)
    fits = _analyse(params, tokens, TRUE.loss(params, tokens) - TRUE.E)
    assert fits.parametric.at_bound == ("E",)
    assert fits.parametric.a == pytest.approx(TRUE.exponents()[0], abs=1e-6)
    (refusal,) = fits.refusals
    assert "irreducible" in refusal.what and "zero" in refusal.reason
    assert "1e21 FLOPs" in refusal.remedy


def test_a_term_that_vanishes_leaves_no_frontier():
    params, tokens, _ = grid(FOUR, 7, 4.0)
    fits = _analyse(params, tokens, 1 + 400 * params**-0.34)
    assert "B" in fits.parametric.at_bound
    assert fits.parametric.a is None
    assert any("What tokens do" in r.what for r in fits.refusals)
    variants = (*fits.influence.leave_one_budget_out, *fits.influence.drop_top)
    assert variants and all("B" in row.at_bound for row in variants)
    for row in (*variants, *fits.influence.delta):
        assert (row.a, row.params, row.tokens_per_param) == (None, None, None)


def test_a_variant_on_a_bound_has_no_exponent():
    """Where the headline would give none, though this headline gives one."""
    fits = _analyse(*loose(9))
    assert fits.parametric.a is not None
    variants = (
        *fits.influence.leave_one_budget_out, *fits.influence.drop_top, *fits.influence.delta
    )  # fmt: skip
    refused = [row.a is None for row in variants]
    assert any(refused) and not all(refused)
    for row in variants:
        assert (row.a is None) == bool(set(row.at_bound) - {"E"})
        assert (row.params is None) == (row.a is None)


def test_an_open_interval_is_refused_in_words():
    fits = _analyse(*loose(6), bootstrap=200)
    assert fits.parametric.a is not None
    assert fits.parametric.interval["a"] is None and fits.parametric.interval["E"] is not None
    assert fits.parametric.standard_error["a"] is None
    forecast = fits.forecast[0]
    assert forecast.interval["params"] is None and forecast.interval["loss"] is None
    (a,) = [w for w in fits.warnings if w.startswith("parametric: an end of the 95 % interval")]
    assert "of a, b is open" in a
    assert any(w.startswith("forecast at 1e20 FLOPs: an end of the") for w in fits.warnings)


def test_another_optimum_is_told_only_with_exponents_that_stand():
    params, tokens, _ = grid(FOUR, 7, 4.0)
    loss = TRUE.loss(params, tokens) * (1 + 0.01 * np.sin(np.arange(len(params))))
    runs, fit = _runs(params, tokens, loss), fit_surface(params, tokens, loss)
    other = replace(fit.surface, alpha=0.6)
    told = []
    for identified in (True, False):
        near = LocalOptimum(fit.value * 1.001, 0.1, other, identified)
        told.append(diagnosis.surface_doubts(replace(fit, runner_up=(near,)), runs, SIX_ND, None))
    assert any("another optimum" in said for said in told[0]) and told[1] == []


def test_extrapolation_is_counted_in_decades():
    params, tokens, _ = grid([1e17, 1e18, 1e19], 7, 4.0)
    fits = _analyse(params, tokens, budgets=(1e20, 1e24))
    near, far = fits.forecast
    assert (near.decades, far.decades) == pytest.approx((1.0, 5.0))
    told = [w for w in fits.warnings if "decades beyond" in w]
    assert len(told) == 1
    assert "5.0 decades" in told[0] and "span 2.0" in told[0]


def test_expected_bias_and_drift_are_told():
    asymmetric = type(TRUE)(1.69, 406.4, 410.7, 0.465, 0.155)
    params, tokens, budget = grid(FOUR, 15, 16.0, asymmetric)
    drift = np.exp(np.linspace(-1.5, 1.5, 4)).repeat(15)
    params = params * drift
    tokens = budget / (6 * params)
    fits = _analyse(params, tokens, asymmetric.loss(params, tokens))
    bias = fits.isoflop.expected_bias.parabola
    # Noise-free, so the bias that is expected is the error that was made.
    error = fits.isoflop.parabola.a - asymmetric.exponents()[0]
    assert bias.a == pytest.approx(error, abs=1e-6)
    assert abs(bias.a) > 0.01
    assert any("would miss the exponent" in w for w in fits.warnings)
    assert any("wander" in w for w in fits.warnings)


def test_advice_asks_for_no_run_that_the_table_has():
    """Runs of other budgets, by the table's own count, are runs of the table too."""
    params, tokens, flops = grid([1e18, 3e18, 1e19], 6, 3.0, shift=1.5)  # all beyond the minimum
    group = np.repeat([0, 1, 2], 6)
    found = profiles(group, np.unique(flops), params, tokens, TRUE.loss(params, tokens))
    none = np.zeros(3, bool)
    plain = remedy(found, none)
    assert "1e18 FLOPs with " in plain
    size = float(params[:6].min())
    tried = [(1.03e18, size / 2), (0.98e18, 1.1 * size / 4), (3e18, 1e6)]
    other = remedy(found, none, tried)
    first, second = (text.split(" params")[0].split(" with ")[1] for text in (plain, other))
    assert first == f"{count(size / 2)} and {count(size / 4)}"
    assert second == f"{count(size / 8)} and {count(size / 16)}"
    fine = np.ones(3, bool)
    assert remedy(found, fine) == "add budgets, say 3e19 and 1e20 FLOPs"
    assert remedy(found, fine, [(2.9e19, 1e9)]) == "add budgets, say 1e20 and 3e20 FLOPs"
