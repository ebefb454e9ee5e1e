"""Intervals of forecasts hold what hold-out and the other form show of a form's error."""

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt.form_error import FormError
from chinchilla_jax.scaling.fits import HeldOutError
from chinchilla_jax.scaling.fitting.optimum import Optimum
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

BUDGETS = np.geomspace(1e18, 1e18 * 3**6, 7)


def _table(budgets, noise=0.002, bend=0.0, seed=0):
    """A grid of TRUE whose losses bend by `bend` a squared decade from the first budget on."""
    params, tokens, flops = grid(budgets, 7, 4.0)
    drift = bend * np.log10(flops / 1e18) ** 2
    scatter = noise * np.random.default_rng(seed).standard_normal(len(params))
    return read_runs({"params": params, "tokens": tokens, "flops": flops,
                      "loss": TRUE.loss(params, tokens) * np.exp(scatter - drift)})  # fmt: skip


def _row(runs, flops, draws=200):
    fits, _ = analyse(runs, Settings(bootstrap=draws, budgets=(flops,)))
    return fits, fits.forecast[0]


def test_an_interval_is_no_narrower_than_what_hold_out_shows():
    fits, row = _row(_table(BUDGETS, bend=0.01), 10 * BUDGETS[-1])
    best = fits.holdout.best
    score = next(s for s in fits.holdout.summary
                 if (s.form, s.selection) == (best.form, best.selection))  # fmt: skip
    for name, rms in (("loss", score.minima_rms), ("params", 0.0)):
        low, high = row.interval[name]
        assert low < getattr(row, name) < high
        assert np.log(high / low) / 2 > 1.9 * rms
    assert any("held-out forecasts" in text and "% of the loss" in text for text in fits.warnings)


@pytest.mark.parametrize("bend", [0.0, 0.005, 0.01])
def test_a_budget_that_was_held_out_lies_inside(bend):
    """Losses that no law here follows: chance alone holds few of them."""
    inside = alone = 0
    for seed in range(6):
        runs = _table(BUDGETS[:5], bend=bend, seed=seed)
        fits, row = _row(runs, BUDGETS[5], draws=120)
        params, tokens = TRUE.optimum(BUDGETS[5])
        truth = TRUE.loss(params, tokens) * np.exp(-bend * np.log10(BUDGETS[5] / 1e18) ** 2)
        low, high = row.interval["loss"]
        inside += low <= truth <= high
        source = fits.draws.minima if row.form == "loss_law" else fits.draws.surface
        held = getattr(fits.sources, "minima" if row.form == "loss_law" else "surface").held_out
        assert held.forecasts == 3 and source is not None
        alone += np.log(high / low) < 2 * 1.8 * held.loss
    assert inside >= 5 and alone == 0


def test_the_error_grows_with_distance_and_is_none_inside_the_runs():
    held = HeldOutError(0.01, 0.1, nearest=1.0, distance=2.0, forecasts=3)
    error = FormError(held, None, largest=1e20)
    flops = 1e20 * np.exp([-3.0, 0.0, 0.5, 1.0, 2.0, 4.0])
    best = Optimum(flops, flops**0.5, flops**0.5, np.ones(6))
    loss, params = error.at(flops, best)
    np.testing.assert_allclose(loss, [0, 0, 0.005, 0.01, 0.01, 0.02])
    np.testing.assert_allclose(params, 10 * loss)


def test_the_other_form_counts_where_it_lies_further_away():
    held = HeldOutError(0.01, 0.1, nearest=1.0, distance=1.0, forecasts=3)
    best = Optimum(np.array([1e21]), np.array([1e9]), np.array([2e10]), np.array([2.0]))
    for apart, expected in ((0.004, np.log(10) * 0.01), (0.3, 0.3)):
        other = Optimum(best.flops, 1.0 * best.params, best.tokens, best.loss * np.exp(-apart))
        loss, params = FormError(held, lambda _, o=other: o, 1e20).at(best.flops, best)
        np.testing.assert_allclose(loss, expected)
        np.testing.assert_allclose(params, np.log(10) * 0.1)


def test_widened_draws_keep_the_budget_and_are_always_the_same():
    error = FormError(HeldOutError(0.01, 0.1, 1.0, 1.0, 3), None, largest=1e20)
    point = Optimum(np.array([1e21]), np.array([1e9]), np.array([1e21 / 6e9]), np.array([2.0]))
    wide = error.widened(lambda _: point, lambda _: point, 500, 1.0)
    first, again = wide(point.flops), wide(point.flops)
    np.testing.assert_array_equal(first.params, again.params)
    np.testing.assert_allclose(6 * first.params * first.tokens, 1e21)
    assert np.std(np.log(first.params)) == pytest.approx(0.1 * np.log(10), rel=0.02)
    assert np.std(np.log(first.loss)) == pytest.approx(0.01 * np.log(10), rel=0.02)
    assert abs(np.corrcoef(first.params, first.loss)[0, 1]) < 0.15


def test_an_interval_that_nothing_checks_is_not_called_95_percent():
    fits, row = _row(_table(BUDGETS[:2]), 1e20)
    assert row.form == "surface" and fits.sources.minima is None
    assert fits.sources.surface.held_out is None
    assert any("chance alone, too narrow to be called 95 %" in text for text in fits.warnings)
