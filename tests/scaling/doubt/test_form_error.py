"""Intervals of forecasts hold what hold-out and the other form show of a form's error."""

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt.form_error import FormError, held_out_error
from chinchilla_jax.scaling.doubt.holdout import Forecaster, HeldOut
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
    form = fits.holdout.best.form
    held = getattr(fits.sources, "minima" if form == "loss_law" else "surface").held_out
    assert held.folds == 4 and held.forecasts == 10
    at_distance = np.log(10) / held.distance * np.sqrt(held.folds / (held.folds + 1))
    for name in ("loss", "params"):
        low, high = row.interval[name]
        assert low < getattr(row, name) < high
        assert np.log(high / low) / 2 > 1.9 * at_distance * getattr(held, name)
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
        alone += np.log(high / low) < 2 * 1.8 * held.loss * np.log(3) / held.distance / np.sqrt(1.5)
    assert inside >= 5 and alone == 0


def test_the_error_grows_with_distance_and_is_none_inside_the_runs():
    held = HeldOutError(0.01, 0.1, nearest=1.0, distance=2.0, forecasts=3)
    error = FormError(held, (), largest=1e20)
    flops = 1e20 * np.exp([-3.0, 0.0, 0.5, 1.0, 2.0, 4.0])
    best = Optimum(flops, flops**0.5, flops**0.5, np.ones(6))
    loss, params = error.at(flops, best)
    np.testing.assert_allclose(loss, [0, 0, 0.0025, 0.005, 0.01, 0.02])
    np.testing.assert_allclose(params, 10 * loss)


def test_what_others_say_otherwise_counts_as_one_more_fold():
    best = Optimum(np.array([1e21]), np.array([1e9]), np.array([2e10]), np.array([2.0]))
    others = [
        lambda _, apart=apart: Optimum(best.flops, best.params, best.tokens,
                                       best.loss * np.exp(apart))
        for apart in (-0.03, 0.01, np.nan)
    ]  # fmt: skip
    square = (0.03**2 + 0.01**2) / 2  # one that has no forecast says nothing
    for folds in (1, 4):
        held = HeldOutError(0.01, 0.1, nearest=1.0, distance=1.0, forecasts=9, folds=folds)
        loss, params = FormError(held, others, 1e20).at(best.flops, best)
        far = np.log(10)
        expected = np.sqrt((folds * (0.01 * far) ** 2 + square) / (folds + 1))
        np.testing.assert_allclose(loss, expected)
        np.testing.assert_allclose(params, 0.1 * far * np.sqrt(folds / (folds + 1)))
    inside = Optimum(np.array([1e20]), best.params, best.tokens, best.loss)
    loss, params = FormError(held, others, 1e20).at(inside.flops, inside)
    np.testing.assert_allclose(loss, np.sqrt(square))  # there no fold says anything


def test_the_least_of_several_errors_is_not_believed():
    """By chance one forecast of several has none; a fold counts by its error for its distance."""
    names = [Forecaster("surface", name) for name in "abc"]

    def fold(name, cut, errors):
        far = cut * np.exp(np.arange(1.0, 1.0 + len(errors)))
        return HeldOut(name, cut, 9, far, np.exp(errors), np.ones(len(errors)),
                       np.asarray(errors), np.empty(0))  # fmt: skip

    found = [fold(name, cut, size * np.arange(1.0, 1.0 + count))
             for name, size in zip(names, (0.0, 0.01, 0.05), strict=True)
             for cut, count in ((1e18, 3), (1e19, 2))]  # fmt: skip
    for name, expected in zip(names, (0.01, 0.01, 0.05), strict=True):
        held = held_out_error(found, name, names)
        assert held.loss / held.distance == pytest.approx(expected)
        assert held.params / held.distance == pytest.approx(expected)
        assert (held.folds, held.forecasts) == (2, 5) and held.nearest == pytest.approx(1.0)
    assert held_out_error(found, names[0]).loss == 0.0
    assert held_out_error(found, Forecaster("surface", "d"), names) is None


def test_widened_draws_keep_the_budget_and_are_always_the_same():
    error = FormError(HeldOutError(0.01, 0.1, 1.0, 1.0, 3), (), largest=1e20)
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
