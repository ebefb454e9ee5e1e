"""Approach 2: interpolation, minima, power laws, bias."""

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from chinchilla_jax.scaling.fitting.bias import expected_bias
from chinchilla_jax.scaling.fitting.curves import Polynomial, akima, akima_left_out, akima_minima
from chinchilla_jax.scaling.fitting.estimators import METHODS, Estimator, curves
from chinchilla_jax.scaling.fitting.isoflop import power_laws, profiles
from chinchilla_jax.scaling.fitting.minima import fit_loss_law, fit_minima
from chinchilla_jax.scaling.fitting.noise import noise_model
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cells import group_flops
from chinchilla_jax.scaling.table.cost import SIX_ND
from tests.scaling.known import TRUE, grid, published

FIVE = 10.0 ** np.arange(17, 22)


def _profiles(params, tokens, budget, loss):
    flops, group = np.unique(budget, return_inverse=True)
    return profiles(group, flops, params, tokens, loss)


@pytest.mark.parametrize(
    ("surface", "expected", "akima_bound"),
    [
        (TRUE, (-0.33, -1.30, -2.90, -5.10), 0.42),
        (Surface(1.69, 406.4, 410.7, 0.465, 0.155), (-1.67, -6.50, -13.91, -23.12), 1.26),
        (Surface(1.69, 406.4, 410.7, 0.31, 0.31), (0.0, 0.0, 0.0, 0.0), 0.0),
    ],
)
def test_bias_of_approach_2(surface, expected, akima_bound):
    """Per cent of D* at 1e24 from five budgets and 15 sizes, for widths of 2, 4, 8, 16 each way."""
    for width, percent in zip((2, 4, 8, 16), expected, strict=True):
        params, tokens, budget = grid(FIVE, 15, width, surface)
        found = _profiles(params, tokens, budget, surface.loss(params, tokens))
        errors = {}
        for method in METHODS:
            bias = expected_bias(method, found, np.ones(5), surface, SIX_ND, np.array([1e24]))
            errors[method] = 100 * bias.at[0].tokens
            assert bias.a == pytest.approx(0.0, abs=1e-5)  # grids centred alike
        assert errors["parabola"] == pytest.approx(percent, abs=0.05)
        assert abs(errors["akima"]) <= akima_bound + 1e-4


def test_drifting_centres_bias_the_exponent():
    params, tokens, budget = grid(FIVE, 15, 8.0)
    drift = np.exp(np.linspace(-1, 1, 5)).repeat(15)
    params, tokens = params * drift, tokens / drift
    found = _profiles(params, tokens, budget, TRUE.loss(params, tokens))
    bias = {
        m: expected_bias(m, found, np.ones(5), TRUE, SIX_ND, np.array([1e24])).a for m in METHODS
    }
    assert abs(bias["parabola"]) > 0.002
    assert abs(bias["akima"]) < abs(bias["parabola"]) / 2


def test_akima_is_the_modified_akima_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = np.sort(rng.uniform(0, 5, rng.integers(4, 12)))
        y = rng.standard_normal(len(x))
        at = np.linspace(x[0], x[-1], 301)
        theirs = Akima1DInterpolator(x, y, method="makima")(at)
        np.testing.assert_allclose(akima(x, y, at), theirs, atol=1e-10)


def test_akima_minimum_is_the_lowest_point_of_the_interpolant():
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(16, 22, 9))
    loss = np.exp(0.02 * (x - 19) ** 2 + 0.01 * rng.standard_normal((50, 9)))
    found = akima_minima(x, loss)
    fine = np.linspace(x[0], x[-1], 20001)
    for b in np.flatnonzero(found.good_B):
        value = akima(x, np.log(loss[b]), fine)
        assert np.log(found.loss_B[b]) == pytest.approx(value.min(), abs=1e-7)
        assert found.log_params_B[b] == pytest.approx(fine[value.argmin()], abs=2e-3)
    for b in np.flatnonzero(~found.good_B):
        assert akima(x, np.log(loss[b]), fine).argmin() in (0, len(fine) - 1)
    assert found.good_B.sum() > 0


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 30])
def test_akima_without_a_point_is_the_interpolant_of_the_others(size):
    """At the ends, where there are fewer neighbours, and in the middle."""
    x, y = np.sort(np.random.default_rng(2).normal(size=(2, size)))
    inner = np.arange(1, size - 1)
    others = [akima(np.delete(x, i), np.delete(y, i), x[i]) for i in inner]
    np.testing.assert_allclose(akima_left_out(x, y, inner), others, rtol=1e-13)


def test_replicated_sizes_count_by_the_mean_of_their_ln_loss():
    x = np.array([3.0, 1.0, 2.0, 3.0, 4.0, 2.0, 2.0])
    loss = np.exp(np.random.default_rng(3).normal(size=(40, 7)))
    means = [np.exp(np.log(loss[:, x == size]).mean(axis=1)) for size in (1, 2, 3, 4)]
    found = akima_minima(x, loss)
    other = akima_minima(np.arange(1.0, 5.0), np.stack(means, axis=1))
    assert found.good_B.tolist() == other.good_B.tolist() and found.good_B.any()
    np.testing.assert_allclose(found.log_params_B, other.log_params_B, rtol=1e-12)


@pytest.mark.parametrize("degree", [2, 3])
def test_a_polynomial_is_least_squares(degree):
    rng = np.random.default_rng(2)
    x = np.sort(rng.uniform(16, 22, 8))
    for _ in range(4):
        loss = 2 + 0.05 * (x - 19.2) ** 2 + 0.01 * rng.standard_normal(8)
        found = Polynomial.of(degree, x, loss)
        theirs = np.polynomial.Polynomial.fit(x, loss, degree)
        np.testing.assert_allclose(found.curve(x), theirs(x), rtol=1e-10)
        lowest = found.minima()
        at = lowest.log_params_B[0]
        assert theirs.deriv()(at) == pytest.approx(0.0, abs=1e-9)
        assert lowest.loss_B[0] == pytest.approx(theirs(at), rel=1e-9)
        assert lowest.curvature_B[0] == pytest.approx(theirs.deriv(2)(at), rel=1e-6) and at > 16


def test_a_vertex_below_zero_is_no_minimum():
    """No loss is negative, so a parabola that dips there is no profile."""
    x = np.array([0.0, 1.0, 2.0])
    for loss, fault in (([1.0, 0.01, 0.5], "below zero"), ([1.0, 0.04, 0.5], "")):  # -.011, .018
        assert Polynomial.of(2, x, np.array(loss)).minima().fault_B[0] == fault


@pytest.mark.parametrize(
    ("shift", "fault"), [(3.0, "below the smallest size"), (-3.0, "above the largest size")]
)
@pytest.mark.parametrize("method", METHODS)
def test_minima_outside_the_sizes_are_refused(method, shift, fault):
    params, tokens, budget = grid([1e19], 7, 3.0, shift=shift)
    (profile,) = _profiles(params, tokens, budget, TRUE.loss(params, tokens))
    found = curves(method, [profile]).minima()[0].fault_B[0]
    assert found == fault or (method == "cubic" and found == "not convex")


def test_profiles_that_bend_down_or_are_flat_are_refused():
    x = np.linspace(16, 20, 6)
    for loss in (3 - 0.1 * (x - 18) ** 2, np.full(6, 3.0)):
        found = _profiles(np.exp(x), 1e20 / np.exp(x), np.full(6, 1e20), loss)
        for method in ("valley", "parabola", "cubic"):
            assert curves(method, found).minima()[0].fault_B[0] == "not convex"


def test_power_laws_are_weighted_straight_lines():
    rng = np.random.default_rng(3)
    log_flops = np.log(FIVE)
    log_params = 0.5 * log_flops - 3 + 0.1 * rng.standard_normal((2, 5))
    weights = np.array([[1.0, 2, 3, 4, 5], [1.0, 0, 3, 4, 5]])
    laws = power_laws(log_flops, log_params, log_flops - log_params, weights)
    for b in range(2):
        keep = weights[b] > 0
        slope, level = np.polyfit(
            log_flops[keep], log_params[b][keep], 1, w=np.sqrt(weights[b][keep])
        )
        assert (laws.a[b], laws.log_params_1[b]) == pytest.approx((slope, level))
        assert laws.b[b] == pytest.approx(1 - slope)


def test_llama_3_exponent():
    """Published D* = .29 C^.53; a parabola and a straight line give .2994 C^.5368 (facts)."""
    t = published("llama3_isoflop.csv")
    group, budget = group_flops(t["flops"])
    found = profiles(group, budget, t["params"], t["tokens"], t["loss"])
    noise = noise_model(found, np.arange(len(group)), t["loss"], t["flops"])
    fits = {m: fit_minima(Estimator(m), found, noise, 0, np.random.default_rng(0)) for m in METHODS}
    law = fits["parabola"].laws
    assert (law.b[0], np.exp(law.log_tokens_1[0])) == pytest.approx((0.5368, 0.2994), abs=5e-5)
    for fit in fits.values():
        assert fit.laws.b[0] == pytest.approx(0.53, abs=0.01)


def test_made_up_profiles_have_the_exponent_they_were_made_with():
    """Parabolas around D* = .29 C^.53, of sizes that are not centred."""
    budget = np.repeat(np.geomspace(6e18, 1e22, 9), 8)
    best = budget / (6 * 0.29 * budget**0.53)
    params = best * np.tile(np.geomspace(0.4, 3.0, 8), 9)
    tokens = budget / (6 * params)
    loss = 1.7 + 400 * budget**-0.15 + 0.03 * np.log(params / best) ** 2
    found = _profiles(params, tokens, budget, loss)
    noise = noise_model(found, np.arange(len(loss)), loss, budget)
    fits = {m: fit_minima(Estimator(m), found, noise, 0, np.random.default_rng(0)) for m in METHODS}
    law = fits["parabola"].laws
    assert (law.b[0], np.exp(law.log_tokens_1[0])) == pytest.approx((0.53, 0.29), rel=1e-6)
    assert fits["akima"].laws.b[0] == pytest.approx(0.53, abs=0.01)


def test_budgets_are_found_where_no_column_states_them():
    rng = np.random.default_rng(4)
    flops = np.repeat([1e18, 1e19, 1e20], 8) * rng.uniform(0.97, 1.03, 24)
    group, budget = group_flops(np.append(flops, 3e19))
    assert list(group) == [0] * 8 + [1] * 8 + [2] * 8 + [-1]
    np.testing.assert_allclose(budget, [1e18, 1e19, 1e20], rtol=0.03)


def _digitised(seed):
    """A budget of sizes read off a figure: FLOPs within 9 %, one model read twice, one 2 % off."""
    rng = np.random.default_rng(seed)
    params = 1e8 * np.exp(np.linspace(0, 3, 10) + 0.05 * rng.standard_normal(10))
    params = np.append(params, [params[7] * 1.02, params[2] * (1 + 1e-6)])
    flops = 1e19 * np.exp(rng.uniform(-0.045, 0.045, len(params)))
    flops[[2, 7, -2, -1]] = 1e19 * np.exp([-0.045, -0.045, 0.045, 0.045])
    loss = TRUE.loss(params, flops / (6 * params))
    return params, flops / (6 * params), np.full(len(params), 1e19), loss


@pytest.mark.parametrize("seed", range(5))
def test_a_small_change_of_params_is_a_small_change_of_tokens(seed):
    """Single runs of a budget spend up to 9 % more than the next: that is no step of D*."""
    params, tokens, budget, loss = _digitised(seed)
    (profile,) = _profiles(params, tokens, budget, loss)
    assert profile.sizes == 11
    at = np.linspace(profile.log_params_S[0], profile.log_params_S[-1], 5001)
    found = np.log(profile.tokens_at(at))
    assert (np.abs(np.diff(found) / np.diff(at) + 1) < 0.5).all()
    np.testing.assert_allclose(found + at, np.log(1e19 / 6), atol=0.06)
    single = np.array([profile.tokens_at(x) for x in at[:3]])
    np.testing.assert_allclose(np.log(single), found[:3])


@pytest.mark.parametrize("exponent", [1.0, 0.9])
@pytest.mark.parametrize("sizes", [1, 2, 3, 9])
def test_tokens_are_exact_where_flops_are(exponent, sizes):
    """FLOPs of k N^e D, replicates, and sizes that leave a gap."""
    params = np.repeat(1e8 * np.array([1, 1.3, 2, 2.1, 2.3, 9, 10, 12, 30])[:sizes], 2)
    tokens = 1e19 / (7 * params**exponent)
    (profile,) = _profiles(params, tokens, np.full(len(params), 1e19), np.ones(len(params)))
    at = np.linspace(profile.log_params_S[0], profile.log_params_S[-1], 50)
    exact = np.exp(np.log(1e19 / 7) - exponent * at)
    np.testing.assert_allclose(profile.tokens_at(at), exact, rtol=1e-9)
    ends = profile.tokens_at(np.array([-np.inf, np.inf]))
    np.testing.assert_allclose(ends, tokens[[0, -1]], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_read_twice_is_no_cliff(method):
    """An interpolant between sizes a millionth apart would climb the noise between them."""
    params, tokens, budget, loss = _digitised(0)
    loss[-1] *= 1.003
    found = _profiles(params, tokens, budget, loss)
    left_out = curves(method, found).left_out([np.unique(found[0].log_params_S)[1:-1]])
    assert np.abs(left_out).max() < 0.1


def test_sizes_within_one_percent_are_one():
    params = np.array([1.0, 1.004, 1.008, 1.02, 1.5, 1.5, 4.0])
    (profile,) = _profiles(params, 1 / params, np.ones(7), np.ones(7))
    expected = [np.sqrt(1.008)] * 3 + [1.02, 1.5, 1.5, 4.0]
    np.testing.assert_allclose(np.exp(profile.log_params_S), expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(profile.log_tokens_S), 1 / params)
    assert profile.sizes == 4
    dense = np.geomspace(1.0, 2.0, 1000)  # they would chain into one
    (profile,) = _profiles(dense, 1 / dense, np.ones(1000), np.ones(1000))
    assert profile.sizes == 67 and np.abs(profile.log_params_S - np.log(dense)).max() < 0.005


def test_loss_law_is_recovered_from_every_set_of_minima():
    exponents = np.array([0.05, 0.1, 0.2])
    loss = 1.7 + 500 * FIVE ** -exponents[:, None]
    law = fit_loss_law(FIVE, loss)
    np.testing.assert_allclose(law.exponent, exponents, rtol=1e-6)
    np.testing.assert_allclose(law.E, 1.7, rtol=1e-6)
    np.testing.assert_allclose(law.loss(1e24), 1.7 + 500 * 1e24**-exponents, rtol=1e-6)
    assert fit_loss_law(FIVE[:2], loss[:, :2]) is None


def test_seeds_give_the_noise_and_the_weights():
    params, tokens, budget = grid([1e18, 1e19, 1e20, 1e21], 7, 4.0)
    rng = np.random.default_rng(5)
    params, tokens, budget = (np.tile(x, 40) for x in (params, tokens, budget))
    size = np.where(budget < 5e18, 0.02, 0.005)
    loss = TRUE.loss(params, tokens) * np.exp(size * rng.standard_normal(len(params)))
    found = _profiles(params, tokens, budget, loss)
    cell = np.unique(params, return_inverse=True)[1]
    noise = noise_model(found, cell, loss, budget)
    assert noise.source == "seeds"
    np.testing.assert_allclose(noise.log_loss_G, [0.02, 0.005, 0.005, 0.005], rtol=0.15)
    fit = fit_minima(Estimator("parabola"), found, noise, 0, rng)
    assert fit.weighted_by == "noise"
    assert fit.weights_G[0] < fit.weights_G[1:].min() / 4
