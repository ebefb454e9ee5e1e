"""Approach 3: published optima, exact recovery, the frontier."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.fitting.newton import LOSSES, Objective, solved
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface, refit
from chinchilla_jax.scaling.table.cost import FlopsModel
from tests.scaling.known import TRUE, fig4, grid, noisy


def test_certified_optimum_of_the_replication():
    """240 rows of figure 4, sum of log-Huber 1e-3 (facts, computed there independently)."""
    t = fig4(240)
    fit = fit_surface(t["params"], t["tokens"], t["loss"])
    assert fit.value <= 0.0010182740178007
    assert fit.gradient_norm < 1e-10
    assert fit.starts_agreeing == 1.0
    s = fit.surface
    assert pytest.approx(1.81721810, abs=5e-8) == s.E
    assert pytest.approx(477.82587, abs=5e-5) == s.A
    assert pytest.approx(2143.41736, abs=5e-4) == s.B
    assert s.alpha == pytest.approx(0.347310499, abs=5e-9)
    assert s.beta == pytest.approx(0.367172433, abs=5e-9)
    assert s.exponents()[0] == pytest.approx(0.51389, abs=5e-5)
    params, tokens = s.optimum(5.76e23)
    assert params == pytest.approx(73.2e9, rel=1e-3)
    assert tokens / params == pytest.approx(17.9, abs=0.05)


def test_certified_optimum_of_a_made_up_table():
    """An independent search, from the truth and from our optimum, finds nothing lower."""
    params, tokens, loss = noisy()
    fit = fit_surface(params, tokens, loss)
    assert fit.gradient_norm < 1e-10
    assert fit.starts_agreeing > 0.8

    def objective(x):
        predicted = Surface(x[0], np.exp(x[1]), np.exp(x[2]), x[3], x[4]).loss(params, tokens)
        r = np.abs(np.log(predicted / loss))
        return np.sum(np.where(r < 1e-3, r * r / 2, 1e-3 * (r - 5e-4)))

    def search(surface):
        begin = [surface.E, np.log(surface.A), np.log(surface.B), surface.alpha, surface.beta]
        options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-15}
        return minimize(objective, begin, method="Nelder-Mead", options=options)

    ours, truth = search(fit.surface), search(TRUE)
    assert fit.value == pytest.approx(ours.fun, rel=1e-9)
    assert fit.value <= truth.fun * (1 + 1e-9)
    assert fit.value == pytest.approx(truth.fun, rel=1e-3)


def test_all_rows_of_figure_4():
    t = fig4(245)
    fit = fit_surface(t["params"], t["tokens"], t["loss"])
    assert fit.value == pytest.approx(1.826011e-3, rel=1e-6)
    assert fit.surface.exponents()[0] == pytest.approx(0.56464, abs=5e-6)
    assert pytest.approx(1.89134, abs=5e-6) == fit.surface.E


def test_least_absolute_is_the_published_headline():
    """Besiroglu et al.'s headline is a least-absolute-deviations fit to 5e-4."""
    t = fig4(240)
    fit = fit_surface(t["params"], t["tokens"], t["loss"], objective=Objective("least_absolute"))
    published = {"E": 1.81686, "A": 482.00572, "B": 2085.43420, "alpha": 0.34781, "beta": 0.36585}
    for name, value in published.items():
        assert getattr(fit.surface, name) == pytest.approx(value, rel=5e-4), name


def test_least_absolute_does_not_feel_a_few_runs_that_are_off():
    """Least squares does."""
    params, tokens, loss = noisy(noise=0.0, outliers=5)
    exact, pulled = (
        fit_surface(params, tokens, loss, objective=Objective(name)).surface
        for name in ("least_absolute", "squared")
    )
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(exact, name) == pytest.approx(getattr(TRUE, name), rel=1e-6), name
    assert abs(pulled.alpha / TRUE.alpha - 1) > 0.1


def test_bootstrap_standard_errors_are_the_published_ones():
    """Their resamples (NumPy's legacy generator, seed 42) under log-Huber 1e-3."""
    t = fig4(245)
    loss = t["loss"]
    kept = [i for i in range(245) if loss[i] < np.sort(loss)[-5]]
    legacy = np.random.RandomState(42)
    weights = np.stack(
        [np.bincount(legacy.choice(kept, 240), minlength=245) for _ in range(4000)]
    ).astype(float)
    used = np.zeros(245)
    used[kept] = 1.0
    draws = refit(fit_surface(t["params"], t["tokens"], loss, used), weights).surface
    published = {"A": 124.52232, "B": 1293.2841, "E": 0.02566, "alpha": 0.0154, "beta": 0.0206}
    for name, value in published.items():
        assert np.std(getattr(draws, name), ddof=1) == pytest.approx(value, rel=1e-3), name
    low, high = np.quantile(draws.B, [0.025, 0.975])
    assert (low, high) == pytest.approx((1042.4, 5810.3), rel=1e-4)


def test_a_draw_is_the_fit_of_the_runs_that_were_drawn():
    params, tokens, loss = noisy()
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(loss), (4, len(loss)))
    weights = np.stack([np.bincount(row, minlength=len(loss)) for row in drawn]).astype(float)
    draws = refit(fit_surface(params, tokens, loss), weights).surface
    for b, row in enumerate(drawn):
        alone = fit_surface(params[row], tokens[row], loss[row]).surface
        for name in ("E", "alpha", "beta"):
            assert getattr(draws, name)[b] == pytest.approx(getattr(alone, name), rel=1e-6), name


@pytest.mark.parametrize("loss", LOSSES)
def test_a_noise_free_surface_is_recovered(loss):
    params, tokens, _ = grid(10.0 ** np.arange(17, 22), 10, 8.0)
    fit = fit_surface(params, tokens, TRUE.loss(params, tokens), objective=Objective(loss))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(fit.surface, name) == pytest.approx(getattr(TRUE, name), rel=1e-9), name


def test_tied_exponents_are_one_and_optimal():
    params, tokens, _ = grid(10.0 ** np.arange(17, 22), 8, 6.0)
    loss = TRUE.loss(params, tokens)
    fit = fit_surface(params, tokens, loss, tied=True)
    assert fit.surface.alpha == fit.surface.beta
    assert fit.surface.exponents()[0] == 0.5

    def objective(x):
        surface = Surface(x[0], np.exp(x[1]), np.exp(x[2]), x[3], x[3])
        r = np.abs(np.log(surface.loss(params, tokens) / loss))
        return np.sum(np.where(r < 1e-3, r * r / 2, 1e-3 * (r - 5e-4)))

    s = fit.surface
    begin = np.array([s.E, np.log(s.A), np.log(s.B), s.alpha])
    found = minimize(objective, begin + 0.01, method="Nelder-Mead", options={"maxiter": 4000})
    assert objective(begin) == pytest.approx(fit.value, rel=1e-9)
    assert fit.value <= found.fun * (1 + 1e-9)
    assert found.fun == pytest.approx(fit.value, rel=1e-2)


@pytest.mark.parametrize("cost", [FlopsModel(), FlopsModel(20.0, 0.93)])
def test_the_optimum_minimises_the_loss_at_fixed_flops(cost):
    flops = 3e20
    params, tokens = TRUE.optimum(flops, cost)
    assert cost.flops(params, tokens) == pytest.approx(flops)
    found = minimize_scalar(
        lambda x: float(TRUE.loss(np.exp(x), cost.tokens(flops, np.exp(x)))),
        bounds=(np.log(1e6), np.log(1e13)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert np.log(params) == pytest.approx(found.x, abs=1e-5)
    a, b = TRUE.exponents(cost)
    more, longer = TRUE.optimum(10 * flops, cost)
    assert np.log10(more / params) == pytest.approx(a)
    assert np.log10(longer / tokens) == pytest.approx(b)


def test_flops_model_finds_six_and_powers():
    params, tokens, _ = grid([1e18, 1e20], 8, 10.0)
    model = FlopsModel.of(params, tokens, 6 * params * tokens)
    assert (model.kappa, model.exponent) == (6.0, 1.0)
    model = FlopsModel.of(params, tokens, 30 * params**0.9 * tokens)
    assert (model.kappa, model.exponent) == pytest.approx((30.0, 0.9))


def test_no_optimum_where_a_term_is_missing():
    params, _ = Surface(1.0, 400.0, 0.0, 0.3, 0.3).optimum(1e20)
    assert np.isnan(params)


def test_unknown_objectives_are_refused():
    with pytest.raises(UserError, match="log_huber"):
        Objective("hubris")
    with pytest.raises(UserError, match="delta"):
        Objective("huber", delta=0.0)


def test_a_singular_matrix_is_damped_and_the_others_are_solved_as_they_are():
    matrix = np.array([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 1.0], [0.0, 4.0]], np.zeros((2, 2))])
    right = np.array([[1.0, 1.0], [3.0, 8.0], [0.0, 0.0]])
    found = solved(matrix, right)
    np.testing.assert_allclose(found[0], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(found[1], np.linalg.solve(matrix[1], right[1]))
    np.testing.assert_array_equal(found[2], 0.0)
