"""Residuals that follow size and tokens are told, chance is not."""

import numpy as np
import pytest
from scipy import stats

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt.lack_of_fit import LEVEL, _beyond, lack_of_fit, sentence
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

COUPLED = Surface(1.220, 3355.0, 18186.0, 0.408, 0.431, 0.452)
BUDGETS = np.geomspace(1e18, 1e21, 6)


def _runs(surface, noise, seed=0, sizes=9):
    params, tokens, flops = grid(BUDGETS, sizes, 20.0, surface)
    scatter = noise * np.random.default_rng(seed).standard_normal(len(params))
    loss = surface.loss(params, tokens) * np.exp(scatter)
    return read_runs({"params": params, "tokens": tokens, "flops": flops, "loss": loss})


def _found(runs):
    return lack_of_fit(fit_surface(runs.params, runs.tokens, runs.loss), runs)


def test_a_form_that_misses_is_told_where_it_does():
    runs = _runs(COUPLED, 0.001)
    found = _found(runs)
    assert found.p < 1e-6 and found.missed > 0.003 and found.noise < 0.003
    assert {region.missed > 0 for region in found.regions} == {True, False}
    fits, _ = analyse(runs, Settings(bootstrap=0))
    assert fits.lack_of_fit.p == pytest.approx(found.p)
    told = [text for text in fits.warnings if "lack of fit" in text]
    assert len(told) == 1 and "models trained" in told[0] and "% high for " in told[0]


def test_regions_are_means_of_the_residuals_there():
    runs = _runs(COUPLED, 0.001)
    residual = fit_surface(runs.params, runs.tokens, runs.loss).residual_R
    third = [np.quantile(x, [1 / 3, 2 / 3]) for x in (runs.params, runs.tokens / runs.params)]
    for region in _found(runs).regions:
        i = ("small", "middling", "large").index(region.size)
        j = ("short", "as usual", "long").index(region.length)
        here = np.searchsorted(third[0], runs.params) == i
        here &= np.searchsorted(third[1], runs.tokens / runs.params) == j
        assert region.runs == here.sum()
        assert region.missed == pytest.approx(residual[here].mean(), abs=1e-3)


def test_chance_is_seldom_taken_for_a_misfit():
    found = [_found(_runs(TRUE, 0.01, seed)) for seed in range(40)]
    assert sum(each.p < 0.05 for each in found) <= 8
    assert all(sentence(each) is None for each in found if each.p > LEVEL)


def test_one_run_that_is_far_off_is_no_trend():
    runs = _runs(TRUE, 0.003)
    loss = runs.loss.copy()
    loss[0] *= 1.3
    table = {"params": runs.params, "tokens": runs.tokens, "flops": runs.flops, "loss": loss}
    assert sentence(_found(read_runs(table))) is None


def test_few_runs_say_nothing():
    assert _found(_runs(TRUE, 0.01, sizes=3)) is None
    assert sentence(None) is None


@pytest.mark.parametrize("f", [0.2, 1.0, 3.0, 8.0])
def test_p_is_that_of_the_f_distribution(f):
    for more, left in ((5, 40), (5, 230), (4, 12)):
        exact = stats.f.sf(f, more, left)
        assert _beyond(f, more, left) == pytest.approx(exact, rel=0.25, abs=2e-4)
