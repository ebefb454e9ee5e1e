"""The estimator of minima is chosen by what it predicts of sizes that it has not seen."""

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fitting import estimators, valley
from chinchilla_jax.scaling.fitting.bias import expected_bias
from chinchilla_jax.scaling.fitting.chance import Chance
from chinchilla_jax.scaling.fitting.curves import polynomial_left_out
from chinchilla_jax.scaling.fitting.estimators import (
    ESTIMATORS,
    METHODS,
    Estimator,
    Trial,
    choose,
    curves,
)
from chinchilla_jax.scaling.fitting.isoflop import power_laws, profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.fitting.valley import fit_valleys
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import grid

BUDGETS = 10.0 ** np.arange(17, 22)
LOPSIDED = Surface(1.69, 406.4, 410.7, 0.45, 0.20)


def table(noise=0.0, seed=0, sizes=11, width=8.0, drift=1.0, surface=LOPSIDED, seeds=1):
    """params, tokens, loss [budget, run] of grids that drift across the optima."""
    params, _, _ = grid(BUDGETS, sizes, width, surface)
    params = params.reshape(5, -1) * np.exp(np.linspace(-drift, drift, 5))[:, None]
    params = np.repeat(params, seeds, axis=1)
    tokens = BUDGETS[:, None] / (6 * params)
    shock = noise * np.random.default_rng(seed).standard_normal(params.shape)
    return params, tokens, surface.loss(params, tokens) * np.exp(shock)


def profiles_of(params, tokens, loss):
    group = np.arange(5).repeat(params.shape[1])
    return profiles(group, BUDGETS, params.ravel(), tokens.ravel(), loss.ravel())


def exponent(estimator, found):
    minima = curves(estimator.method, estimator.selected(found)).minima()
    y = np.array([[lowest.log_params_B[0] for lowest in minima]])
    return power_laws(np.log(BUDGETS), y, y, np.ones((1, 5))).a[0]


def test_where_a_valley_begins_does_not_change_it(monkeypatch):
    """Of many runs a few tell where to begin; the exponents are those of all."""
    found = profiles_of(*table(noise=0.003, sizes=60))
    whole = fit_valleys(found).theta
    monkeypatch.setattr(valley, "_MOST_GRID", 9)
    assert len(found[0].loss_S) == 60 and fit_valleys(found).theta == pytest.approx(whole, abs=1e-4)


def test_draws_of_many_runs_are_those_of_all(monkeypatch):
    """Some of a budget's runs tell how its coefficients move with the exponents."""
    fitted = fit_valleys(profiles_of(*table(noise=0.003, sizes=600)))
    drawn = []
    for most in (10_000, 100):
        monkeypatch.setattr(valley, "_MOST_GRID", most)
        chance = Chance.of(np.random.default_rng(0), 300)
        each = fitted.drawn(np.full(5, 0.003), np.ones(300), chance)
        drawn.append(np.array([lowest.log_params_B for lowest in each]))
    scatter = drawn[0].std(axis=1)
    assert np.all(np.sqrt(np.mean((drawn[1] - drawn[0]) ** 2, axis=1)) < 0.1 * scatter)
    np.testing.assert_allclose(drawn[1].std(axis=1), scatter, rtol=0.05)


def test_valleys_have_no_bias_where_parabolas_do():
    found = profiles_of(*table())
    bias = {
        m: expected_bias(m, found, np.ones(5), LOPSIDED, SIX_ND, np.array([1e24])) for m in METHODS
    }
    assert abs(bias["valley"].a) < 1e-6 and abs(bias["valley"].at[0].params) < 1e-5
    assert abs(bias["parabola"].a) > 0.004 and abs(bias["akima"].a) > 0.004
    assert np.exp(fit_valleys(found).theta) == pytest.approx([0.45, 0.20], rel=1e-5)


def test_valleys_scatter_no_more_than_parabolas():
    a = {m: [] for m in ("valley", "parabola", "akima")}
    for seed in range(25):
        found = profiles_of(*table(0.002, seed))
        for method in a:
            a[method].append(exponent(Estimator(method), found))
    scatter = {method: np.std(values) for method, values in a.items()}
    assert scatter["valley"] < 1.2 * scatter["parabola"] < 0.5 * scatter["akima"]


def test_the_prior_holds_exponents_that_nothing_tells_and_leaves_those_that_runs_tell():
    narrow = fit_valleys(profiles_of(*table(0.01, width=1.3, drift=0.0, sizes=5)))
    assert np.exp(narrow.theta) == pytest.approx([0.35, 0.35], rel=0.5)
    three = fit_valleys(profiles_of(*table(sizes=3, drift=0.2)))  # three sizes fit any valley
    assert np.exp(three.theta) == pytest.approx([0.35, 0.35])
    wide = fit_valleys(profiles_of(*table(0.0003)))
    assert np.exp(wide.theta) == pytest.approx([0.45, 0.20], rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_left_out_is_what_a_fit_without_the_size_says(method, seeds):
    params, tokens, loss = table(0.004, seeds=seeds)
    found = profiles_of(params, tokens, loss)
    size = np.unique(found[2].log_params_S)
    near = [np.empty(0), np.empty(0), size[3:8], np.empty(0), np.empty(0)]
    errors = curves(method, found).left_out(near)
    for error, x in zip(errors, size[3:8], strict=True):
        without = [p.only(p.log_params_S != x) if g == 2 else p for g, p in enumerate(found)]
        predicted = curves(method, without).curve(2, np.array([x]))[0]
        observed = np.log(found[2].loss_S[found[2].log_params_S == x]).mean()
        assert error == pytest.approx(np.log(predicted) - observed, rel=0.02, abs=3e-5)


def test_a_curve_that_needs_every_size_predicts_none():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    loss = np.array([3.0, 2.5, 2.4, 2.9])
    assert np.isnan(polynomial_left_out(3, x, loss)).all()
    assert np.isfinite(polynomial_left_out(2, x, loss)).all()


def test_the_choice_is_as_good_as_the_best_single_estimator():
    """A design of tests/benchmarks/minima.py in which a parabola is off."""
    missed = []
    for seed in range(8):
        found = profiles_of(*table(0.002, seed, width=8.0, drift=0.7))
        row = {e: exponent(e, found) - LOPSIDED.exponents()[0] for e in ESTIMATORS}
        missed.append([row[choose(found).estimator], *row.values()])
    chosen, *each = np.sqrt(np.mean(np.square(missed), axis=0))
    assert chosen < 1.1 * np.nanmin(each), (chosen, each)


def test_runs_far_away_that_no_curve_follows_are_left_aside():
    """A cliff 12 % above the lowest loss, as of runs that are unstable."""
    params, tokens, loss = table(0.001, sizes=15, width=30.0, drift=0.5)
    lowest = loss.min(axis=1, keepdims=True)
    cliff = np.where(loss > 1.12 * lowest, loss * 1.25, loss)
    found = profiles_of(params, tokens, cliff)
    choice = choose(found)
    assert choice.estimator.within is not None
    true = LOPSIDED.exponents()[0]
    assert abs(exponent(choice.estimator, found) - true) < 0.01
    assert abs(exponent(Estimator("parabola"), found) - true) > 0.012
    votes = {trial.estimator: trial.votes for trial in choice.trials}
    assert sum(votes.values()) == pytest.approx(1.0) and votes[choice.estimator] > 0.5


def test_three_sizes_leave_nothing_out():
    choice = choose(profiles_of(*table(sizes=3, drift=0.2)))
    assert choice.estimator == Estimator("parabola") and "too few sizes" in choice.reason
    four = choose(profiles_of(*table(0.001, sizes=4, width=3.0, drift=0.2)))
    assert four.left_out >= 3 and four.estimator.method in ("valley", "parabola")


def test_sizes_that_nearly_coincide_break_nothing():
    """Digitised points: three sizes of the last budget are one, to a hundred-thousandth."""
    params, tokens, loss = table(0.002)
    params[4] = params[4, 5] * (1 + 1e-5 * np.arange(11))
    tokens[4] = BUDGETS[4] / (6 * params[4])
    choice = choose(profiles_of(params, tokens, loss))
    assert choice.estimator in ESTIMATORS and choice.trials[0].error is not None


def test_the_report_says_what_was_chosen_and_what_the_others_say():
    params, tokens, loss = table(0.003, drift=0.5)
    runs = read_runs({"params": params.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()})
    fits, arrays = analyse(runs, Settings(bootstrap=200))
    iso = fits.isoflop
    assert (iso.minima, iso.sizes) == (
        arrays.choice.estimator.method,
        arrays.choice.estimator.sizes,
    )
    tried = {(t.method, t.sizes): t for t in iso.tried}
    head = tried[iso.minima, iso.sizes]
    assert head.a == iso.a == iso.chosen.a and head.left_out_rms > 0
    assert tried["parabola", "all sizes"].a == iso.parabola.a != iso.a
    assert sum(t.votes for t in iso.tried) == pytest.approx(1.0)
    forced, _ = analyse(runs, Settings(bootstrap=200, minima="parabola"))
    assert forced.isoflop.a == iso.parabola.a and forced.isoflop.chosen_because == "asked for"
    low, high = forced.isoflop.interval["a"]
    assert low < forced.isoflop.a < high


def test_a_few_wild_errors_are_no_excuse():
    """They make the difference of two mean errors uncertain, and no smaller."""
    mean = np.array([1.0, 30.0, 1.3, 1.6])
    slack = np.tile([0.0, 100.0, 0.5, 0.5], (4, 1))
    assert list(estimators._close(mean, slack)) == [True, False, True, False]


def test_draws_are_shared_by_the_votes():
    """Hardly any noise: each draw stands where its own estimator's minima are."""
    found = profiles_of(*table())
    noise = Noise(1e-7, 0, "curve residuals", np.full(5, 1e-7))
    voters = [
        Trial(one, None, votes, one.curves(found))
        for one, votes in ((Estimator("valley"), 0.75), (Estimator("parabola"), 0.25))
    ]
    fit = fit_minima(Estimator("valley"), found, noise, 400, np.random.default_rng(0), (), voters)
    a = [exponent(voter.estimator, found) for voter in voters]
    assert abs(a[0] - a[1]) > 0.003
    near = np.abs(fit.draws.laws.a[:, None] - a) < 1e-4
    assert near[:, 0].sum() == 300 and near[:, 1].sum() == 100
