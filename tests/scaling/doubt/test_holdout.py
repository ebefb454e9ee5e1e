"""Hold-out: what is fitted, what is predicted, who wins."""

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt import holdout
from chinchilla_jax.scaling.doubt.holdout import ALL, FORECASTERS, Forecaster, Score, best, scores
from chinchilla_jax.scaling.fitting.surface import SIX_ND, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.runs import Runs
from tests.scaling.known import TRUE, grid

FLOPS = 10.0 ** np.array([17, 17.5, 18, 18.5, 19, 19.5])


def _runs(loss_of, sizes=8, width=8.0):
    params, tokens, budget = grid(FLOPS, sizes, width)
    flops, group = np.unique(budget, return_inverse=True)
    loss = loss_of(params, tokens)
    return Runs(
        source="made", row_R=np.arange(len(loss)), run_id_R=tuple(map(str, range(len(loss)))),
        params=params, tokens=tokens, flops=budget, loss=loss, group_R=group, budget_G=flops,
        budgets_from="column", params_convention="as_given", flops_convention="as_given",
        columns={},
    )  # fmt: skip


def _held(runs, above=None):
    _, arrays = analyse(runs, Settings(bootstrap=0))
    head = arrays.minima["parabola"]
    return holdout.hold_out(
        runs, arrays.fit, SIX_ND, list(arrays.profiles), np.log(head.params_G), head.loss_G,
        head.good_G, above,
    )  # fmt: skip


def test_folds_hold_out_all_that_lies_beyond():
    held = _held(_runs(TRUE.loss))
    cuts = sorted({r.fitted_up_to for r in held})
    np.testing.assert_allclose(cuts, FLOPS[2:5])
    for r in held:
        np.testing.assert_allclose(r.flops_H, FLOPS[r.fitted_up_to * 1.01 < FLOPS])
        if r.forecaster.form == "surface" and r.forecaster.selection == ALL:
            assert r.runs == 8 * np.sum(r.fitted_up_to * 1.01 >= FLOPS)
            # The surface is exact here; the parabolas' minima it is compared with are biased.
            assert np.abs(r.cell_error_R).max() < 1e-6
            assert np.abs(r.minimum_error_H).max() < 3e-3
            assert len(r.cell_error_R) == 8 * len(r.flops_H)


def test_nothing_beyond_the_cut_is_used():
    runs = _runs(TRUE.loss)
    late = runs.flops > 1.1e18
    other = _runs(lambda n, d: TRUE.loss(n, d) * np.where(6 * n * d > 1.1e18, 1.3, 1.0))
    assert np.all(other.loss[~late] == runs.loss[~late])
    before, after = (
        next(r for r in _held(x, above=1e18) if r.forecaster.selection == ALL)
        for x in (runs, other)
    )
    np.testing.assert_allclose(before.predicted_H, after.predicted_H, rtol=1e-9)
    assert np.all(after.minimum_error_H < -0.2)


def test_the_surface_is_that_of_the_runs_below_the_cut():
    runs = _runs(lambda n, d: TRUE.loss(n, d) * (1 + 0.05 * np.sin(np.log(n) * 3)))
    early = runs.flops < 2e18
    fit = fit_surface(runs.params[early], runs.tokens[early], runs.loss[early])
    mine = [r for r in _held(runs) if r.forecaster.selection == ALL and len(r.flops_H) == 3]
    expected = fit.surface.loss(*fit.surface.optimum(mine[0].flops_H))
    np.testing.assert_allclose(mine[0].predicted_H, expected, rtol=1e-6)


def test_selection_wins_where_far_cells_bend_the_surface():
    """Losses far from 20 tokens per parameter lie above any such surface (facts, section 8)."""

    def loss(n, d):
        far = np.abs(np.log(d / n / 20)) - np.log(8)
        return TRUE.loss(n, d) * (1 + 0.1 * np.clip(far, 0, None))

    held = _held(_runs(loss, sizes=12, width=16.0))
    ranking = {score.forecaster.selection: score.minima_rms for score in scores(held)}
    assert ranking["tokens per parameter 2-300"] < ranking[ALL]


def _score(forecaster, rms, forecasts=4):
    return Score(forecaster, forecasts, rms, 0.0, None)


def test_ties_within_the_noise_go_to_the_more_local_forecast():
    law, near, band, everything = FORECASTERS
    ranking = [_score(everything, 0.010), _score(band, 0.012), _score(law, 0.030)]
    assert best(ranking, 0.0)[0] == everything
    assert best(ranking, 0.006)[0] == band
    assert best(ranking, 0.1)[0] == law
    assert best([], 0.1)[0] == Forecaster("surface", ALL)
    partial = [_score(everything, 0.02), _score(near, 0.001, forecasts=1)]
    assert best(partial, 1.0)[0] == everything


def test_a_forecaster_that_missed_a_fold_ranks_last():
    held = _held(_runs(TRUE.loss))
    short = [r for r in held if r.forecaster != FORECASTERS[0] or r.fitted_up_to > 2e18]
    assert scores(short)[-1].forecaster == FORECASTERS[0]


def test_the_forecast_uses_the_best():
    runs = _runs(TRUE.loss)
    fits, _ = analyse(runs, Settings(bootstrap=0, budgets=(1e21,)))
    chosen = fits.holdout.best
    (forecast,) = fits.forecast
    assert (forecast.form, forecast.selection) == (chosen.form, chosen.selection)
    errors = {(s.form, s.selection): s.minima_rms for s in fits.holdout.summary}
    assert errors[chosen.form, chosen.selection] <= min(errors.values()) + 5e-3


def test_holdout_above_is_one_fold():
    fits, _ = analyse(_runs(TRUE.loss), Settings(bootstrap=0, holdout_above=3.2e18))
    cuts = [row.fitted_up_to for row in fits.forecast_check]
    np.testing.assert_allclose(cuts, 10**18.5)
    assert {round(np.log10(row.flops), 3) for row in fits.forecast_check} == {19.0, 19.5}
    for row in fits.forecast_check:
        assert row.error == pytest.approx(np.log(row.predicted / row.observed))
