"""The batched engine against independent computations."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, nnls

from chinchilla_jax.scaling.fitting import newton
from chinchilla_jax.scaling.fitting.newton import Objective, Rows
from chinchilla_jax.scaling.fitting.separable import Exponentials, polish
from chinchilla_jax.scaling.fitting.starts import exponent_grid, grid_solutions
from chinchilla_jax.scaling.fitting.surface import fit_surface
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, _ = grid([1e17, 1e18, 1e19, 1e20], 6, 6.0)
NOISE = np.exp(0.01 * np.random.default_rng(0).standard_normal(len(PARAMS)))
LOSS = TRUE.loss(PARAMS, TOKENS) * NOISE
ROWS = Rows.of(LOSS, PARAMS, TOKENS)


def _huber(theta, weights, delta, on_logs):
    """The objective as its definition reads."""
    terms = len(ROWS.z_KxR)
    predicted = theta[0] + sum(
        theta[1 + k] * np.exp(-theta[terms + 1 + k] * ROWS.z_KxR[k]) for k in range(terms)
    )
    r = np.log(predicted) - np.log(LOSS) if on_logs else predicted - LOSS
    return sum(
        w * (0.5 * x * x if abs(x) <= delta else delta * (abs(x) - 0.5 * delta))
        for w, x in zip(weights, r, strict=True)
    )


@pytest.mark.parametrize("on_logs", [True, False])
@pytest.mark.parametrize("delta", [3e-3, np.inf])
def test_derivatives_are_those_of_the_objective(on_logs, delta):
    theta = np.array([1.5, 0.5, 0.4, 0.3, 0.35])
    weights = np.random.default_rng(1).uniform(0.5, 2, len(LOSS))
    target = np.log(LOSS)[None] if on_logs else LOSS[None]
    model, edge = Exponentials(2), np.array([delta])

    def derivatives(x):
        state = newton.evaluate(model, ROWS.z_KxR, target, weights[None], x[None], edge, on_logs)
        return state, newton.derivatives(model, ROWS.z_KxR, weights[None], state, edge, on_logs)

    live, (gradient, hessian, _) = derivatives(theta)

    def gradient_at(x):
        return derivatives(x)[1][0][0]

    assert live.objective[0] == pytest.approx(_huber(theta, weights, delta, on_logs), rel=1e-12)
    numeric = approx_fprime(theta, lambda x: _huber(x, weights, delta, on_logs), 1e-7)
    np.testing.assert_allclose(gradient[0], numeric, rtol=1e-4, atol=1e-6)
    numeric = approx_fprime(theta, gradient_at, 1e-7)
    np.testing.assert_allclose(hessian[0], numeric, rtol=1e-4, atol=1e-5)


def test_grid_is_least_squares_with_nothing_negative():
    points = exponent_grid(2, False, 5)
    weights = np.random.default_rng(2).uniform(0.5, 2, (3, len(LOSS)))
    theta, squares = grid_solutions(ROWS, weights, True, points)
    for b in range(3):
        for g, (alpha, beta) in enumerate(points):
            columns = [np.ones_like(LOSS), np.exp(-alpha * ROWS.z_KxR[0])]
            columns.append(np.exp(-beta * ROWS.z_KxR[1]))
            root = np.sqrt(weights[b]) / LOSS
            free, residual = nnls(np.stack(columns, 1) * root[:, None], LOSS * root)
            assert squares[b, g] >= residual**2 * (1 - 1e-6) - 1e-12
            if np.all(free > 1e-2):
                assert squares[b, g] == pytest.approx(residual**2, rel=1e-5)
                np.testing.assert_allclose(theta[b, g, :3], free, rtol=1e-4)


def test_a_weight_of_two_is_a_run_stated_twice():
    weights = np.ones(len(LOSS))
    weights[3] = 2.0
    weighted = fit_surface(PARAMS, TOKENS, LOSS, weights)
    index = np.append(np.arange(len(LOSS)), 3)
    twice = fit_surface(PARAMS[index], TOKENS[index], LOSS[index])
    assert weighted.value == pytest.approx(twice.value, rel=1e-10)
    assert weighted.surface.alpha == pytest.approx(twice.surface.alpha, rel=1e-6)


def test_problems_of_a_batch_do_not_mix():
    """One at a time or together, with losses, weights and deltas of their own."""
    rng = np.random.default_rng(3)
    begin = np.tile([1.5, 0.5, 0.4, 0.3, 0.35], (5, 1))
    weights = rng.multinomial(len(LOSS), np.full(len(LOSS), 1 / len(LOSS)), 5).astype(float)
    losses = LOSS * np.exp(0.01 * rng.standard_normal((5, len(LOSS))))
    delta = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    together = polish(ROWS, weights, begin, Objective(), delta_B=delta, loss_BxR=losses)
    for b in range(5):
        one = slice(b, b + 1)
        alone = polish(
            ROWS, weights[one], begin[one], Objective(), delta_B=delta[one], loss_BxR=losses[one]
        )
        np.testing.assert_allclose(together.objective_B[b], alone.objective_B[0], rtol=1e-9)


def test_losses_that_no_surface_explains_end_at_a_bound_and_say_so():
    fit = fit_surface(PARAMS, TOKENS, np.exp(-LOSS))  # rises with params and tokens
    assert {"A", "B"} <= set(fit.at_bound)
    assert not fit.identified
