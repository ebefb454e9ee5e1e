"""What noise does to the vertices of profiles."""

import dataclasses
import warnings

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting import noise
from chinchilla_jax.scaling.fitting.isoflop import Profile, parabola_minima
from chinchilla_jax.scaling.fitting.noise import Noise, minima_errors

SIZES = np.array([0.0, 1.0, 2.0])


def profile(*loss):
    rows = np.arange(len(loss))
    return Profile(1e18, rows, SIZES[: len(loss)], SIZES[: len(loss)], np.array(loss))


def errors(*found):
    seeds = Noise(0.01, 5, "seeds", np.full(len(found), 0.01))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return minima_errors(found, seeds)


def test_a_vertex_scatters_as_its_losses_do():
    curved = profile(3.0, 2.5, 3.2)
    draws = np.exp(0.01 * np.random.default_rng(0).standard_normal((100_000, 3)))
    found = parabola_minima(SIZES, curved.loss_S * draws)
    only = errors(curved)
    assert only.log_params_G[0] == pytest.approx(found.log_params_B.std(), rel=0.03)
    assert only.log_loss_G[0] == pytest.approx(np.log(found.loss_B).std(), rel=0.03)


@pytest.mark.parametrize("flat", [(6.0, 5.0, 4.0), (2.0, 2.0, 2.0), (3.0, 2.0, 1.0)])
def test_a_profile_that_does_not_bend_has_no_sure_vertex(flat):
    both, curved = errors(profile(*flat), profile(3.0, 2.5, 3.2)), errors(profile(3.0, 2.5, 3.2))
    assert not both.log_params_G[0] < 1.0
    assert both.log_params_G[1] == curved.log_params_G[0]
    assert both.log_loss_G[1] == curved.log_loss_G[0]


def test_a_vertex_at_infinity_scatters_by_no_number_and_without_a_word(monkeypatch):
    """Where the bend is 0 to the last digit, which depends on the machine's linear algebra."""

    def straight(log_params_S, loss_BxS):
        found = parabola_minima(log_params_S, loss_BxS)
        at, loss = found.log_params_B.copy(), found.loss_B.copy()
        at[0], loss[0] = np.inf, -np.inf
        return dataclasses.replace(found, log_params_B=at, loss_B=loss)

    monkeypatch.setattr(noise, "parabola_minima", straight)
    found = errors(profile(6.0, 5.0, 4.0))
    assert not np.isfinite(found.log_params_G[0]) and not np.isfinite(found.log_loss_G[0])


def test_two_sizes_have_none():
    assert np.isnan(errors(profile(3.0, 2.0)).log_params_G[0])
