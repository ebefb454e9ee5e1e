"""Hold-out: what is fitted, what is predicted, who wins."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt import holdout
from chinchilla_jax.scaling.doubt.holdout import (
    ALL,
    COUPLED,
    FORECASTERS,
    Forecaster,
    Score,
    best,
    scores,
)
from chinchilla_jax.scaling.doubt.rolling import fit_forms
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.runs import Runs
from tests.scaling.known import TRUE, grid

FLOPS = 10.0 ** np.array([17, 17.5, 18, 18.5, 19, 19.5])


def _runs(loss_of, sizes=8, width=8.0):
    params, tokens, budget = grid(FLOPS, sizes, width)
    flops, group = np.unique(budget, return_inverse=True)
    loss = loss_of(params, tokens)
    return Runs(
        source="made", row_R=np.arange(len(loss)), index_R=np.arange(len(loss)),
        run_id_R=tuple(map(str, range(len(loss)))),
        params=params, tokens=tokens, flops=budget, loss=loss, group_R=group, budget_G=flops,
        budgets_from="column", params_convention="as_given", flops_convention="as_given",
        columns={},
    )  # fmt: skip


def _held(runs):
    _, arrays = analyse(runs, Settings(bootstrap=0))
    return holdout.hold_out(runs, arrays.fit, SIX_ND, arrays.profiles, arrays.head)


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
    law, near, band, everything = FORECASTERS[:4]
    ranking = [_score(everything, 0.010), _score(band, 0.012), _score(law, 0.030)]
    assert best(ranking, 0.0, FORECASTERS)[0] == everything
    assert best(ranking, 0.006, FORECASTERS)[0] == band
    assert best(ranking, 0.1, FORECASTERS)[0] == law
    assert best([], 0.1, FORECASTERS)[0] == Forecaster("surface", ALL)
    partial = [_score(everything, 0.02), _score(near, 0.001, forecasts=1)]
    assert best(partial, 1.0, FORECASTERS)[0] == everything


def test_only_what_is_there_can_be_chosen():
    law, near, _, everything = FORECASTERS[:4]
    ranking = [_score(near, 0.010), _score(everything, 0.011), _score(law, 0.012)]
    assert best(ranking, 0.0, (law, everything))[0] == everything
    assert best(ranking, 0.0, (law,))[0] == law
    assert best([_score(law, np.inf)], 0.0, FORECASTERS)[0] == everything
    assert best([], 0.0, (law,))[0] == law


def test_other_forms_of_surface_are_held_out_on_all_runs():
    """Losses of a coupled surface: its form says of minima and runs what Chinchilla's misses."""
    coupled = Surface(1.220, 3355.0, 18186.0, 0.408, 0.431, 0.452)
    runs = _runs(coupled.loss, sizes=9, width=12.0)
    fits, arrays = analyse(runs, Settings(bootstrap=0))
    forms = fit_forms(arrays.fit, runs)
    held = holdout.hold_out(runs, arrays.fit, SIX_ND, arrays.profiles, arrays.head, forms)
    cells = {s.forecaster.selection: s.cells_rms for s in scores(held)}
    assert set(COUPLED) < set(cells)
    assert cells["all, coupled by gamma"] < 0.2 * cells[ALL]
    kept = {(row.form, row.selection) for row in fits.forecast[0].every}
    assert {("surface", name) for name in COUPLED} < kept


def test_a_forecaster_that_missed_a_fold_ranks_last():
    held = _held(_runs(TRUE.loss))
    short = [r for r in held if r.forecaster != FORECASTERS[0] or r.fitted_up_to > 2e18]
    assert scores(short)[-1].forecaster == FORECASTERS[0]


@pytest.mark.parametrize("sizes,width", [(8, 8.0), (7, 1.5)])
def test_text_and_number_come_from_the_form_that_was_chosen(sizes, width):
    """In the narrow table every run is within 8 %: that selection is no other than all runs."""
    runs = _runs(lambda n, d: TRUE.loss(n, d) * (1 + 0.002 * np.sin(7 * np.log(n))), sizes, width)
    fits, _ = analyse(runs, Settings(bootstrap=0, budgets=(1e21,)))
    best = fits.holdout.best
    (forecast,) = fits.forecast
    assert (forecast.form, forecast.selection) == (best.form, best.selection)
    assert len({(row.form, row.selection) for row in forecast.every}) == len(forecast.every)
    if width < 2:
        assert ("surface", "within 8 % of the budget's best") not in {
            (row.form, row.selection) for row in forecast.every
        }


def test_the_forecast_uses_the_best():
    runs = _runs(TRUE.loss)
    fits, _ = analyse(runs, Settings(bootstrap=0, budgets=(1e21,)))
    chosen = fits.holdout.best
    (forecast,) = fits.forecast
    assert (forecast.form, forecast.selection) == (chosen.form, chosen.selection)
    errors = {(s.form, s.selection): s.minima_rms for s in fits.holdout.summary}
    assert errors[chosen.form, chosen.selection] <= min(errors.values()) + 5e-3


def _checked(runs, above=3.2e18, **settings):
    fits, _ = analyse(runs, Settings(**{"bootstrap": 0, "holdout_above": above, **settings}))
    return fits


def test_a_forecast_is_checked_against_the_minima_beyond():
    fits = _checked(_runs(TRUE.loss))
    rows = fits.forecast_check
    assert {round(np.log10(row.flops), 3) for row in rows} == {19.0, 19.5}
    measured = {row.flops: row for row in fits.isoflop.budgets}
    for row in rows:
        assert row.fitted_up_to == pytest.approx(10**18.5)
        minimum = measured[row.flops]
        assert (row.observed, row.observed_params) == (minimum.loss, minimum.params)
        assert row.observed_tokens == minimum.tokens
        assert row.error == pytest.approx(np.log(row.predicted / row.observed))
        assert row.params_error == pytest.approx(np.log(row.predicted_params / row.observed_params))
        assert row.interval is None and set(row.inside_interval.values()) == {None}
    surface = next(r for r in rows if (r.form, r.selection) == ("surface", ALL))
    best = TRUE.optimum(surface.flops)
    assert surface.predicted == pytest.approx(float(TRUE.loss(*best)), rel=1e-6)
    assert surface.predicted_params == pytest.approx(float(best[0]), rel=1e-5)
    assert len([row for row in rows if row.chosen]) == 2  # one form, two budgets


def test_nothing_beyond_the_cut_is_used():
    """Neither in a forecast nor in its interval nor in the choice of its form."""
    runs = _runs(lambda n, d: TRUE.loss(n, d) * (1 + 0.003 * np.sin(9 * np.log(n))))
    late = runs.flops > 3.5e18
    other = replace(runs, loss=np.where(late, 1.3 * runs.loss, runs.loss))
    before, after = (_checked(x, bootstrap=60).forecast_check for x in (runs, other))
    assert len(before) == len(after) >= 6
    for row, same in zip(before, after, strict=True):
        assert row.error > -0.06 and same.error < -0.2
        assert row.inside_interval["loss"] is not None and same.inside_interval["loss"] is False
        for name in ("form", "selection", "chosen", "predicted", "predicted_params", "interval"):
            assert getattr(row, name) == getattr(same, name), name


def test_inside_and_outside_are_told_of_loss_params_and_tokens():
    """95 % intervals hold the minima of runs that follow the law; a kink in it they do not."""
    rng = np.random.default_rng(3)

    def loss(n, d):
        return TRUE.loss(n, d) * np.exp(0.002 * rng.standard_normal(len(n)))

    straight = _checked(_runs(loss), bootstrap=200).forecast_check
    kinked = _checked(_runs(lambda n, d: loss(n, d) * np.where(6 * n * d > 3.5e18, 1.05, 1.0)),
                      bootstrap=200).forecast_check  # fmt: skip
    for rows, expected in ((straight, True), (kinked, False)):
        chosen = [row for row in rows if row.chosen]
        assert {row.inside_interval["loss"] for row in chosen} == {expected}
        for row in rows:
            for name, value in (
                ("loss", row.observed), ("params", row.observed_params),
                ("tokens", row.observed_tokens),
            ):  # fmt: skip
                low, high = row.interval[name]
                assert row.inside_interval[name] == (low <= value <= high)


@pytest.mark.parametrize("above", [1e10, 1e30])
def test_a_check_that_compares_nothing_is_told(above):
    fits = _checked(_runs(TRUE.loss), above=above)
    assert fits.forecast_check == ()
    assert any("no forecast can be checked" in w for w in fits.warnings)
