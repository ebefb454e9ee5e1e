"""A minimum that lies below every run of its budget is that of runs too far away."""

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.outlying import dip, without_outlying
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, fig4, grid

BUDGETS = (1e18, 3e18, 1e19, 3e19)


def _table(outlying: bool):
    """Seven sizes a budget; of the third two more that are far too large, as those of figure 4."""
    params, tokens, _ = grid(BUDGETS, 7, 4.0)
    scatter = 0.001 * np.random.default_rng(0).standard_normal(len(params))
    loss = TRUE.loss(params, tokens) * np.exp(scatter)
    if outlying:
        far = TRUE.optimum(1e19)[0] * np.array([12.0, 28.0])
        params, tokens = np.r_[params, far], np.r_[tokens, 1e19 / (6 * far)]
        loss = np.r_[loss, 4.7, 5.1]
    return {"params": params, "tokens": tokens, "loss": loss}


def test_far_runs_do_not_pull_the_minimum_below_every_run():
    plain, _ = analyse(read_runs(_table(False)), Settings(bootstrap=0))
    fits, arrays = analyse(read_runs(_table(True)), Settings(bootstrap=0))
    for with_far, without in zip(fits.isoflop.budgets, plain.isoflop.budgets, strict=True):
        assert with_far.loss == pytest.approx(without.loss, rel=4e-3)
        assert with_far.params == pytest.approx(without.params, rel=0.2)
    assert fits.isoflop.budgets[2].runs == 9 and len(arrays.profiles[2].loss_S) == 9
    (said,) = [w for w in fits.warnings if "below the lowest" in w]
    assert "1e19 FLOPs the parabola through all 9 runs" in said
    assert "highest losses" in said
    assert not any("below the lowest" in w for w in plain.warnings)


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.006])
@pytest.mark.parametrize("width", [3.0, 6.0, 10.0])
def test_well_behaved_profiles_stay_whole(noise, width):
    params, tokens, flops = grid([1e18, 3e18, 1e19, 3e19, 1e20], 11, width, shift=0.4)
    scatter = noise * np.random.default_rng(1).standard_normal(len(params))
    group = np.searchsorted(np.unique(flops), flops)
    loss = TRUE.loss(params, tokens) * np.exp(scatter)
    found = profiles(group, np.unique(flops), params, tokens, loss)
    assert all(a is b for a, b in zip(found, without_outlying(found), strict=True))


def test_a_minimum_that_nothing_lifts_is_refused():
    """Six sizes of which the inner four lie on a line above what the outer two say."""
    params, tokens, _ = grid(BUDGETS, 6, 3.0)
    x = np.tile(np.linspace(-1, 1, 6), 4)
    loss = 3.0 + 0.3 * x**2
    loss[6:12] = [5.0, 3.1, 3.05, 3.0, 3.05, 3.1]
    profile = profiles(np.repeat(0, 6), np.array([1e18]), params[6:12], tokens[6:12], loss[6:12])[0]
    assert dip(profile) >= 0
    runs = read_runs({"params": params, "tokens": tokens, "loss": loss})
    fits, _ = analyse(runs, Settings(bootstrap=0))
    assert [b.status for b in fits.isoflop.budgets][::2] == ["ok", "ok"]


def test_the_second_budget_of_chinchilla_is_no_lower_than_its_runs():
    t = fig4(245)
    runs = read_runs({name: t[name] for name in ("params", "tokens", "flops", "loss")})
    fits, arrays = analyse(runs, Settings(bootstrap=0))
    second = fits.isoflop.budgets[1]
    assert second.loss > second.lowest.loss * 0.985
    assert dip(arrays.profiles[1]) > 0.02
    whole = [a is b for a, b in zip(arrays.profiles, arrays.near, strict=True)]
    assert whole.count(False) == 1
