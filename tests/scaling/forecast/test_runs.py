"""A new run at any size and length: its loss, and the interval in which it falls."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import Sources
from chinchilla_jax.scaling.forecast.runs import run_forecast
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

BUDGETS = np.geomspace(1e18, 1e20, 5)
NOISE = 0.004


def _table(seed=0, budgets=BUDGETS):
    params, tokens, flops = grid(budgets, 7, 6.0)
    scatter = NOISE * np.random.default_rng(seed).standard_normal(len(params))
    return read_runs({"params": params, "tokens": tokens, "flops": flops,
                      "loss": TRUE.loss(params, tokens) * np.exp(scatter)})  # fmt: skip


@pytest.fixture(scope="module")
def fits():
    found, _ = analyse(_table(), Settings(bootstrap=200, budgets=(1e21,)))
    return found


@pytest.mark.parametrize("ratio", [5.0, 20.0, 200.0])
@pytest.mark.parametrize("flops", [1e19, 1e20, 3e20])
def test_a_run_is_forecast_where_it_falls(fits, ratio, flops):
    params = np.sqrt(flops / 6 / ratio)
    row = run_forecast(fits, params, ratio * params)
    low, high = row.interval
    truth = TRUE.loss(params, ratio * params)
    assert low < truth < high and low < row.loss < high
    assert np.log(high / low) > 2 * 1.9 * NOISE * 0.7  # one run scatters
    assert np.log(high / low) < 20 * NOISE
    assert row.flops == pytest.approx(flops, rel=1e-6)
    assert row.decades == pytest.approx(np.log10(flops / 1e20), abs=1e-6)


def test_what_is_asked_must_be_a_run(fits):
    for params, tokens in ((0.0, 1e9), (1e9, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(UserError, match="positive"):
            run_forecast(fits, params, tokens)


def test_without_a_surface_there_is_no_forecast(fits):
    none = replace(fits, sources=Sources(None, fits.sources.minima))
    with pytest.raises(UserError, match="no surface"):
        run_forecast(none, 1e9, 2e10)
