"""A new run at any size and length: its loss, and the interval in which it falls."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt.rolling import AVERAGED
from chinchilla_jax.scaling.fits import read, write
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.average import run_interval
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
    none = replace(fits, sources=replace(fits.sources, surface=None, runs=None))
    with pytest.raises(UserError, match="no surface"):
        run_forecast(none, 1e9, 2e10)


def test_the_interval_holds_what_hold_out_shows_and_grows_with_distance(fits):
    source, drawn = fits.sources.runs, fits.draws.runs
    widths = {}
    for loss in (0.0, 0.03):
        held = replace(source, held_out=replace(source.held_out, loss=loss))
        for beyond in (-1.0, 1.0, 6.0):
            low, high = run_interval(held, drawn, 1e9, 2e10, beyond)
            widths[loss, beyond] = np.log(high / low)
    assert widths[0.03, -1.0] == widths[0.0, -1.0] == widths[0.0, 6.0]  # inside, none of it
    assert widths[0.03, 1.0] > 2 * 3.0 * 0.03  # Student's, wider than the normal's 1.96
    assert widths[0.03, 6.0] > 2 * widths[0.03, 1.0]


def test_one_run_scatters_even_where_the_fit_is_exact(fits):
    quiet, loud = (replace(fits.sources.runs, noise=noise) for noise in (0.0, 0.01))
    narrow, wide = (run_interval(s, fits.draws.runs, 1e9, 2e10, -1.0) for s in (quiet, loud))
    assert np.log(wide[1] / wide[0]) > 2 * 1.9 * 0.01 > 2 * np.log(narrow[1] / narrow[0])


def test_the_forecast_is_the_mean_of_the_members(fits):
    members = fits.sources.runs.members
    assert [m.weight for m in members] == sorted((m.weight for m in members), reverse=True)
    logs = [
        m.weight * np.log(Surface(m.E, m.A, m.B, m.alpha, m.beta, m.gamma).loss(1e9, 3e10))
        for m in members
    ]
    assert run_forecast(fits, 1e9, 3e10).loss == pytest.approx(np.exp(np.sum(logs)), rel=1e-12)


def test_a_saved_report_forecasts_as_the_evaluation_did(fits, tmp_path):
    write(tmp_path / "fits.json", fits)
    assert run_forecast(read(tmp_path / "fits.json"), 1e9, 3e10) == run_forecast(fits, 1e9, 3e10)


def test_forms_are_certified_in_the_record(fits):
    assert [form.form for form in fits.forms] == list(AVERAGED)
    first = fits.forms[0]
    assert (first.E, first.alpha) == (fits.parametric.E, fits.parametric.alpha)
    assert all(form.gradient_norm < 1e-9 for form in fits.forms)
