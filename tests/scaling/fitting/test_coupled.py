"""The family E + (A/N^alpha + B/D^beta)^gamma: derivatives, recovery, members, certificates."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from chinchilla_jax.scaling.fitting import coupled, newton
from chinchilla_jax.scaling.fitting.coupled import BASES, Coupled, basis
from chinchilla_jax.scaling.fitting.forms import FORMS
from chinchilla_jax.scaling.fitting.newton import Objective, Rows
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface, fit_surface, refit
from chinchilla_jax.scaling.table.cost import FlopsModel
from tests.scaling.known import grid

BUSBRIDGE = Surface(1.220, 3355.0, 18186.0, 0.408, 0.431, 0.452)  # 2502.08606, equation 40
TRUTHS = {
    "surface": Surface(1.69, 406.4, 410.7, 0.34, 0.28),
    "kaplan": Surface(1.6, 3.0e6, 6.0e9, 0.8, 1.0, 0.3),
    "even": Surface(1.5, 2500.0, 30000.0, 0.45, 0.55, 0.55),
    "gamma_0.5": Surface(1.5, 2000.0, 20000.0, 0.38, 0.42, 0.5),  # of those of a given power one
    "gamma": BUSBRIDGE,
}
PARAMS, TOKENS, _ = grid(np.geomspace(1e18, 1e22, 6), 8, 8.0)


def _noisy(truth, noise=0.004, seed=0):
    scatter = np.random.default_rng(seed).standard_normal(len(PARAMS))
    return truth.loss(PARAMS, TOKENS) * np.exp(noise * scatter)


def test_the_published_law_gives_its_own_losses():
    """Golden values of the rounded table (computed apart from this code)."""
    for params, ratio, loss in ((546e6, 20, 2.5149), (1.82e9, 20, 2.2509), (546e6, 100, 2.3624)):
        assert BUSBRIDGE.loss(params, ratio * params) == pytest.approx(loss, abs=6e-5)


def test_nothing_reducible_is_no_terms_and_no_warning():
    rows = Rows.of(BUSBRIDGE.loss(PARAMS, TOKENS), PARAMS, TOKENS)
    theta = np.array([[2.0, 0.0, 0.3, *np.log([0.4, 0.5, 0.6])], [2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    with np.errstate(all="raise"):
        _, A, B, *_ = coupled.natural(theta, rows)
    assert A[0] == B[0] == 0.0 and min(A[1], B[1]) > 0


@pytest.mark.parametrize("on_logs", [True, False])
@pytest.mark.parametrize("delta", [3e-3, np.inf])
def test_derivatives_are_those_of_the_objective(on_logs, delta):
    loss = _noisy(BUSBRIDGE)
    rows, model, edge = Rows.of(loss, PARAMS, TOKENS), Coupled(), np.array([delta])
    target = np.log(loss)[None] if on_logs else loss[None]
    weights = np.random.default_rng(1).uniform(0.5, 2, (1, len(loss)))
    theta = np.array([1.3, 0.9, 0.4, np.log(0.4), np.log(0.5), np.log(0.6)])

    def state(x):
        return newton.evaluate(model, rows.z_KxR, target, weights, x[None], edge, on_logs)

    def derivatives(x):
        return newton.derivatives(model, rows.z_KxR, weights, state(x), edge, on_logs)

    gradient, hessian, _ = derivatives(theta)
    numeric = approx_fprime(theta, lambda x: state(x).objective[0], 1e-7)
    np.testing.assert_allclose(gradient[0], numeric, rtol=1e-4, atol=1e-6)
    numeric = approx_fprime(theta, lambda x: derivatives(x)[0][0], 1e-7)
    np.testing.assert_allclose(hessian[0], numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", TRUTHS)
def test_a_noise_free_surface_is_recovered_by_its_form(form):
    truth = TRUTHS[form]
    fit = fit_surface(PARAMS, TOKENS, truth.loss(PARAMS, TOKENS), form=form)
    for name in PARAMETERS:
        value = np.log(getattr(fit.surface, name))
        assert value == pytest.approx(np.log(getattr(truth, name)), abs=2e-5), name
    assert fit.identified and fit.at_bound == ()


@pytest.mark.parametrize("form", TRUTHS)
def test_an_optimum_is_certified_and_nothing_lower_is_found(form):
    loss = _noisy(BUSBRIDGE)
    fit = fit_surface(PARAMS, TOKENS, loss, form=form)
    assert fit.gradient_norm < 1e-9 and fit.starts_agreeing > 0.5
    free = [
        i for i in range(6) if np.any(basis({"surface": "chinchilla"}.get(form, form), False)[i])
    ]

    def objective(x):
        logs = np.append(np.zeros(5), np.log(float(form.partition("_")[2] or 1)))
        logs[free] = x if form != "even" else np.append(x, x[-1])
        values = dict(zip(PARAMETERS, np.exp(logs), strict=True))
        r = np.abs(np.log(Surface(**values).loss(PARAMS, TOKENS) / loss))
        return np.sum(np.where(r < 1e-3, r * r / 2, 1e-3 * (r - 5e-4)))

    begin = np.log([getattr(fit.surface, PARAMETERS[i]) for i in free])
    begin = begin[:-1] if form == "even" else begin
    assert objective(begin) == pytest.approx(fit.value, rel=1e-9)
    options = {"maxiter": 3000, "maxfev": 3000, "xatol": 1e-9, "fatol": 1e-15}
    found = minimize(objective, begin + 0.01, method="Nelder-Mead", options=options)
    assert fit.value <= found.fun * (1 + 1e-9)


def test_the_wider_form_fits_no_worse_than_its_members():
    loss = _noisy(BUSBRIDGE)
    values = {form: fit_surface(PARAMS, TOKENS, loss, form=form).value for form in FORMS}
    assert values["gamma"] <= min(values.values()) * (1 + 1e-9)
    assert values["gamma"] < 0.8 * values["surface"]


def test_with_gamma_one_it_is_the_other_engines_optimum():
    loss = _noisy(TRUTHS["surface"], noise=0.01)
    fit = fit_surface(PARAMS, TOKENS, loss)
    rows, objective = Rows.of(loss, PARAMS, TOKENS), Objective()
    begin = coupled.starts("chinchilla", rows, np.ones((1, len(loss))), objective, False, 8)[0]
    found = coupled.polish("chinchilla", rows, np.ones((1, len(loss))), begin, objective)
    best = found.objective_B.argmin()
    assert found.objective_B[best] == pytest.approx(fit.value, rel=1e-10)
    natural = coupled.natural(found.theta_BxP[best : best + 1], rows)
    np.testing.assert_allclose(np.log(np.ravel(natural)), np.log(fit.surface.columns()), atol=1e-5)


@pytest.mark.parametrize("cost", [FlopsModel(), FlopsModel(20.0, 0.93)])
def test_the_bracket_decides_the_optimum(cost):
    params, tokens = BUSBRIDGE.optimum(1e21, cost)
    best = BUSBRIDGE.loss(params, tokens)
    for factor in (0.98, 1.02):
        moved = params * factor
        assert BUSBRIDGE.loss(moved, cost.tokens(1e21, moved)) > best
    a, b = BUSBRIDGE.exponents(cost)
    more, longer = BUSBRIDGE.optimum(1e22, cost)
    assert np.log10(more / params) == pytest.approx(a)
    assert np.log10(longer / tokens) == pytest.approx(b)


@pytest.mark.parametrize("form", [form for form in TRUTHS if form != "surface"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_draw_is_the_fit_of_the_runs_that_were_drawn(form, tied):
    loss = _noisy(BUSBRIDGE, noise=0.01)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(loss), (3, len(loss)))
    weights = np.stack([np.bincount(row, minlength=len(loss)) for row in drawn]).astype(float)
    whole = fit_surface(PARAMS, TOKENS, loss, tied=tied, form=form)
    if tied:
        assert whole.surface.alpha == pytest.approx(whole.surface.beta, rel=1e-12)
    draws = refit(whole, weights)
    for b, row in enumerate(drawn):
        alone = fit_surface(PARAMS[row], TOKENS[row], loss[row], tied=tied, form=form)
        assert draws.objective_B[b] == pytest.approx(alone.value, rel=1e-6)
        predicted = draws.surface[b].loss(1e11, 1e13)
        assert predicted == pytest.approx(alone.surface.loss(1e11, 1e13), rel=1e-5)


def test_fixed_and_tied_parameters_stay_so():
    loss = _noisy(BUSBRIDGE)
    surfaces = {form: fit_surface(PARAMS, TOKENS, loss, form=form).surface for form in FORMS}
    assert surfaces["surface"].gamma == 1.0 and surfaces["kaplan"].beta == 1.0
    assert surfaces["even"].gamma == pytest.approx(surfaces["even"].beta, rel=1e-12)
    for gamma in (0.7, 0.5, 0.35):
        assert surfaces[f"gamma_{gamma}"].gamma == pytest.approx(gamma, rel=1e-12)
    assert {name: free.shape[1] for name, free in BASES.items() if free.shape[1] != 5} == {
        "gamma": 6
    }


def test_a_term_that_runs_do_not_need_is_at_its_bound():
    """Losses that know nothing of tokens: no frontier can be stated."""
    loss = 1.5 + 400 * PARAMS**-0.34
    fit = fit_surface(PARAMS, TOKENS, loss * np.exp(1e-4 * np.sin(TOKENS)), form="gamma")
    assert not fit.identified and {"B", "beta"} & set(fit.at_bound)


def test_an_exponent_at_its_edge_is_not_beyond_it():
    rows = Rows.of(np.ones(3), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    edges = np.log(
        [
            [*coupled.EXPONENTS[::-1], coupled.GAMMAS[1]],
            [*[coupled.EXPONENTS[0]] * 2, coupled.GAMMAS[0]],
        ]
    )
    theta = np.column_stack([np.ones((2, 2)), np.zeros(2), edges])
    *_, alpha, beta, gamma = coupled.natural(theta, rows)
    for found in (alpha, beta):
        assert coupled.EXPONENTS[0] <= found.min() and found.max() <= coupled.EXPONENTS[1]
    assert coupled.GAMMAS[0] <= gamma.min() and gamma.max() <= coupled.GAMMAS[1]
