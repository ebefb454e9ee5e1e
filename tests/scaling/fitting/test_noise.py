"""How noise is told from seeds and residuals, and what it does to minima."""

import warnings

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.chance import Chance
from chinchilla_jax.scaling.fitting.estimators import Estimator, curves
from chinchilla_jax.scaling.fitting.isoflop import Profile, profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise, noise_model, run_weights, with_surface
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface
from tests.scaling.known import TRUE, grid

SIZES = np.array([0.0, 1.0, 2.0])
BUDGETS = 10.0 ** np.arange(17, 22)


def profile(*loss):
    rows = np.arange(len(loss))
    return Profile(1e18, rows, SIZES[: len(loss)], -SIZES[: len(loss)], np.array(loss))


def errors(*found):
    seeds = Noise(0.01, 5, "seeds", np.full(len(found), 0.01))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_minima(Estimator("parabola"), found, seeds, 0, np.random.default_rng(0))
    return fit.errors


def test_a_vertex_scatters_as_its_losses_do():
    curved = profile(3.0, 2.5, 3.2)
    draws = curved.loss_S * np.exp(0.01 * np.random.default_rng(0).standard_normal((100_000, 3)))
    c2, c1, c0 = np.polyfit(SIZES, draws.T, 2)
    only = errors(curved)
    assert only.log_params_G[0] == pytest.approx((-0.5 * c1 / c2).std(), rel=0.03)
    assert only.log_loss_G[0] == pytest.approx(np.log(c0 - 0.25 * c1**2 / c2).std(), rel=0.03)


@pytest.mark.parametrize("method", ["valley", "parabola", "cubic"])
def test_errors_are_the_scatter_of_draws_and_of_tables(method):
    """Minima of one set of draws, and of tables with noise of their own, scatter alike."""
    params, tokens, _ = grid(BUDGETS, 9, 6.0)
    rng, size = np.random.default_rng(1), np.array([0.001, 0.002, 0.001, 0.0005, 0.001])
    each = np.repeat(size, 9)

    def table():
        loss = TRUE.loss(params, tokens) * np.exp(each * rng.standard_normal(len(params)))
        return profiles(np.repeat(np.arange(5), 9), BUDGETS, params, tokens, loss)

    fitted = curves(method, table())
    first_order = np.array(fitted.errors(size))[:, 0]
    drawn = [
        lowest.log_params_B.std()
        for lowest in fitted.drawn(size, np.ones(4000), Chance.of(rng, 4000))
    ]
    again = np.std([[m.log_params_B[0] for m in curves(method, table()).minima()]
                    for _ in range(300)], axis=0)  # fmt: skip
    np.testing.assert_allclose(drawn, first_order, rtol=0.15)
    np.testing.assert_allclose(again, first_order, rtol=0.25)


@pytest.mark.parametrize("flat", [(6.0, 5.0, 4.0), (2.0, 2.0, 2.0), (3.0, 2.0, 1.0)])
def test_a_profile_that_does_not_bend_has_no_sure_vertex(flat):
    both, curved = errors(profile(*flat), profile(3.0, 2.5, 3.2)), errors(profile(3.0, 2.5, 3.2))
    assert not both.log_params_G[0] < 1.0
    assert both.log_params_G[1] == curved.log_params_G[0]
    assert both.log_loss_G[1] == curved.log_loss_G[0]


def test_two_sizes_have_none():
    assert np.isnan(errors(profile(3.0, 2.0)).log_params_G[0])


def seeded(trend, seeds=4, size=0.004, rng=None):
    """Runs whose noise follows FLOPs, `seeds` of each."""
    rng = rng or np.random.default_rng(0)
    params, tokens, budget = (np.repeat(x, seeds) for x in grid(BUDGETS, 6, 5.0))
    sigma = size * (budget / 1e19) ** trend
    loss = TRUE.loss(params, tokens) * np.exp(sigma * rng.standard_normal(len(params)))
    found = profiles(np.repeat(np.arange(5), 6 * seeds), BUDGETS, params, tokens, loss)
    return found, np.repeat(np.arange(30), seeds), loss, budget


@pytest.mark.parametrize("trend", [-0.3, 0.0, 0.2])
def test_noise_follows_flops(trend):
    found, cell, loss, budget = seeded(trend)
    noise = noise_model(found, cell, loss, budget)
    assert noise.source == "seeds" and noise.freedom == 90
    assert noise.trend == pytest.approx(trend, abs=0.06)
    np.testing.assert_allclose(noise.at(BUDGETS), 0.004 * (BUDGETS / 1e19) ** trend, rtol=0.3)
    np.testing.assert_allclose(noise.log_loss_G, 0.004 * (BUDGETS / 1e19) ** trend, rtol=0.35)
    assert noise.at(1e25) == noise.at(1e21) and noise.at(1e10) == noise.at(1e17)


def test_few_seeds_hardly_bend_the_noise():
    """With a replicate in one cell of each budget a trend of -.3 is seen in part."""
    found, cell, loss, budget = seeded(-0.3, seeds=1, rng=np.random.default_rng(3))
    keep = np.r_[np.arange(30), [0, 6, 12, 18, 24]]
    shock = np.random.default_rng(4).standard_normal(5)
    twice = loss[keep] * np.exp(np.r_[np.zeros(30), 0.004 * (BUDGETS / 1e19) ** -0.3 * shock])
    noise = noise_model(found, cell[keep], twice, budget[keep])
    assert noise.source == "seeds" and -0.35 < noise.trend < 0.1


def test_two_budgets_with_replicates_have_no_trend():
    found, cell, loss, budget = seeded(-0.3)
    few = budget <= 1e18
    noise = noise_model(found[:2], cell[few], loss[few], budget[few])
    assert noise.trend == 0.0 and noise.source == "seeds"


@pytest.mark.parametrize("louder", [1.0, 3.0])
def test_seeds_of_one_quiet_budget_do_not_speak_for_curves_that_scatter_more(louder):
    """Three seeds at 1e17 alone: the noise of the others by their curves, where it is more."""
    params, tokens, budget = grid(BUDGETS, 6, 3.0)
    seeds = np.r_[np.arange(6), np.arange(6), np.arange(30)]
    rng, found_G = np.random.default_rng(5), []
    for _ in range(40):
        size = np.where(budget[seeds] == 1e17, 0.003, louder * 0.003)
        loss = TRUE.loss(params, tokens)[seeds] * np.exp(size * rng.standard_normal(42))
        group = np.repeat(np.arange(5), 6)[seeds]
        found = profiles(group, BUDGETS, params[seeds], tokens[seeds], loss)
        noise = noise_model(found, seeds, loss, budget[seeds])
        assert noise.log_loss_G[1:].min() >= noise.log_loss * (1 - 1e-12)  # no less than seeds say
        found_G.append(noise.log_loss_G)
    quiet, *others = np.median(found_G, axis=0)
    assert quiet == pytest.approx(0.003, rel=0.1)
    assert min(others) == max(others) and 0.7 * louder < others[0] / 0.003 < 1.1 * louder


def test_runs_outside_every_budget_weigh_by_the_trend():
    found, cell, loss, budget = seeded(-0.3)
    noise = noise_model(found, cell, loss, budget)
    late = np.append(budget, 1e19)
    weights = run_weights(noise, found, late, False, None)
    assert weights[-1] / weights[0] == pytest.approx(noise.log_loss_G[0] / noise.at(1e19))
    assert weights.mean() == pytest.approx(1.0)


def test_without_seeds_the_noise_is_the_larger_of_two_residuals():
    params, tokens, budget = grid(BUDGETS, 8, 6.0)
    rng = np.random.default_rng(0)
    lean = Surface(1.69, 406.4, 410.7, 0.45, 0.20)
    for surface, wave in ((TRUE, 0.0), (lean, 0.02)):
        wavy = np.exp(wave * np.sin(np.log(budget)) + 0.001 * rng.standard_normal(len(params)))
        loss = surface.loss(params, tokens) * wavy
        found = profiles(np.repeat(np.arange(5), 8), BUDGETS, params, tokens, loss)
        noise = noise_model(found, np.arange(40), loss, budget)
        fit = fit_surface(params, tokens, loss)
        honest = with_surface(noise, found, fit.residual_R, 5)
        if wave:  # a parabola follows each budget's own level
            assert honest.source == "surface residuals"
            assert honest.log_loss == pytest.approx(fit.noise, rel=0.3)
            assert honest.log_loss > 5 * noise.log_loss
        else:
            assert honest is noise or honest.log_loss == pytest.approx(noise.log_loss, rel=0.4)
    seeds = noise_model(*seeded(0.0))
    assert with_surface(seeds, found, fit.residual_R, 5) is seeds
