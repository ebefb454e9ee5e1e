"""One Newton step of a resample ends where all steps do, to a part of the draws' scatter."""

import numpy as np
import pytest

from chinchilla_jax.scaling.doubt.uncertainty import surface_draws
from chinchilla_jax.scaling.fitting import one_step
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, fit_surface, refit
from tests.scaling.known import TRUE


def fitted(runs, form="surface", objective=None, tied=False, noise=0.005):
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7, 10, runs), 10 ** rng.uniform(9, 12, runs)
    loss = TRUE.loss(params, tokens) * np.exp(noise * rng.standard_normal(runs))
    weights = rng.uniform(0.5, 2.0, runs)
    return fit_surface(params, tokens, loss, weights, objective, tied, count=8, form=form)


def resamples(fit, draws=40):
    runs = len(fit.weights_R)
    counts = np.random.default_rng(1).multinomial(runs, np.full(runs, 1 / runs), draws)
    return counts * fit.weights_R


@pytest.mark.parametrize("form", ["surface", "gamma"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("loss", ["squared", "log_huber", "huber"])
def test_a_step_ends_near_the_optimum_of_a_draw(form, tied, loss):
    fit = fitted(6000, form, Objective(loss, 0.01), tied)
    weights = resamples(fit)
    exact, found = refit(fit, weights), one_step.stepper(fit)(weights)
    assert one_step.near(found, exact)
    for name in PARAMETERS:
        one, other = (np.asarray(getattr(each.surface, name)) for each in (found, exact))
        if other.std() > 1e-9:
            assert np.sqrt(np.mean((one - other) ** 2)) < 0.1 * other.std()
            assert np.corrcoef(one, other)[0, 1] > 0.99
    assert found.objective_B == pytest.approx(exact.objective_B, rel=1e-3)


def test_the_runs_as_they_are_do_not_move():
    fit = fitted(500)
    found = one_step.stepper(fit)(fit.weights_R[None])
    for name in PARAMETERS:
        assert getattr(found.surface, name)[0] == pytest.approx(getattr(fit.surface, name))
    assert found.objective_B[0] == pytest.approx(fit.value)


def test_few_runs_want_more_than_a_step():
    fit = fitted(25, noise=0.05)
    weights = resamples(fit)
    assert not one_step.near(one_step.stepper(fit)(weights), refit(fit, weights))


def test_draws_of_many_runs_are_steps_and_scatter_alike(monkeypatch):
    fit = fitted(5000, objective=Objective("squared"))
    asked = []
    stepper = one_step.stepper
    monkeypatch.setattr(one_step, "stepper", lambda fit: asked.append(fit) or stepper(fit))
    stepped = surface_draws(fit, 200, np.random.default_rng(2))
    assert len(asked) == 1
    monkeypatch.setattr(one_step, "near", lambda found, exact: False)
    exact = surface_draws(fit, 200, np.random.default_rng(2))
    for name in ("E", "A", "B", "alpha", "beta"):
        one, other = (np.asarray(getattr(each.surface, name)) for each in (stepped, exact))
        assert one.std() == pytest.approx(other.std(), rel=0.02)
        assert not np.array_equal(one, other)
    assert np.array_equal(stepped.noise, exact.noise)
