"""Forms of surface compared on runs that they have not seen, and averaged."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.scaling.doubt.rolling import (
    ALL,
    AVERAGED,
    NEAR,
    Beyond,
    fit_forms,
    mixture_draws,
    near_best,
)
from chinchilla_jax.scaling.doubt.rolling import rolling as compared
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

COUPLED = Surface(1.220, 3355.0, 18186.0, 0.408, 0.431, 0.452)
BUDGETS = np.geomspace(1e18, 1e20, 5)


def _runs(surface, noise=0.003, seed=0, sizes=9, budgets=BUDGETS, bend=0.0):
    params, tokens, flops = grid(budgets, sizes, 12.0, surface)
    scatter = noise * np.random.default_rng(seed).standard_normal(len(params))
    far = np.abs(np.log(tokens / params / 20)) - 1.0
    loss = surface.loss(params, tokens) * np.exp(scatter + bend * np.clip(far, 0, None))
    return read_runs({"params": params, "tokens": tokens, "flops": flops, "loss": loss})


def _mixture(runs):
    fit = fit_surface(runs.params, runs.tokens, runs.loss)
    fits = fit_forms(fit, runs)
    return compared(runs, fits), fits


def _share(mixture, *forms):
    return sum(m.weight for m in mixture.members if m.form in forms)


@pytest.mark.parametrize("runs", [1, 2, 9, 200])
def test_near_is_within_8_percent_of_the_best_of_about_the_same_flops(runs):
    rng = np.random.default_rng(runs)
    flops, loss = np.exp(rng.uniform(40, 43, runs)), rng.uniform(2, 2.5, runs)
    brute = [
        loss[i] <= 1.08 * loss[np.abs(np.log(flops / flops[i])) < 0.25].min() for i in range(runs)
    ]
    np.testing.assert_array_equal(near_best(flops, loss), brute)


def test_the_form_that_made_the_runs_weighs_most_and_the_average_forecasts():
    far = 30 * BUDGETS[-1]
    for surface, forms in ((TRUE, ("surface", "gamma")), (COUPLED, ("gamma", "gamma_0.5", "even"))):
        mixture, fits = _mixture(_runs(surface))
        assert _share(mixture, *forms) > 0.6
        assert sum(m.weight for m in mixture.members) == pytest.approx(1.0)
        params, tokens = surface.optimum(far)
        truth = surface.loss(params, tokens)
        assert mixture.loss(params, tokens) == pytest.approx(truth, rel=0.02)
    chinchilla = fits["surface"].surface.loss(params, tokens)
    assert abs(mixture.loss(params, tokens) / truth - 1) < 0.6 * abs(chinchilla / truth - 1)


def test_errors_are_those_of_fits_to_the_runs_below_a_cut():
    runs = _runs(COUPLED, noise=0.01)
    mixture, _ = _mixture(runs)
    squares = {form: [] for form in ("surface", "gamma_0.5", "gamma")}
    for cut in (0.4, 0.6, 0.8):
        early = runs.flops <= np.quantile(runs.flops, cut) * (1 + 1e-9)
        late = ~early
        columns = (runs.params[early], runs.tokens[early], runs.loss[early])
        for form in squares:
            fit = fit_surface(*columns, np.sqrt(runs.flops[early]), form=form)
            missed = np.log(
                fit.surface.loss(runs.params[late], runs.tokens[late]) / runs.loss[late]
            )
            squares[form].append(np.mean(missed**2))
    for member in mixture.members:
        if member.selection == ALL and member.form in squares:
            rms = np.sqrt(np.mean(squares[member.form]))
            assert member.rms == pytest.approx(rms, rel=0.1), member.form


def test_a_selection_is_judged_on_all_runs_beyond():
    """Where runs far from the best bend away, fits to those near it do not tell of them."""
    mixture, _ = _mixture(_runs(TRUE, bend=0.08))
    assert sum(m.weight for m in mixture.members if m.selection == NEAR) < 0.1
    kept = next(m for m in mixture.members if m.selection == NEAR).weight_R > 0
    assert 10 < kept.sum() < len(kept)


def test_few_runs_are_averaged_without_a_check():
    runs = _runs(TRUE, sizes=5, budgets=BUDGETS[:2])
    mixture, _ = _mixture(runs)
    assert mixture.beyond is None
    weights = {m.form: m.weight for m in mixture.members if m.weight}
    assert weights == dict.fromkeys(AVERAGED[:-1], pytest.approx(1 / 5))  # without a free gamma


def test_what_lies_beyond_is_only_predicted():
    """The dearest runs change how forms are judged, not what is fitted below the cuts."""
    runs = _runs(TRUE, noise=0.003)
    mixture, _ = _mixture(runs)
    assert mixture.beyond.folds == 3
    assert (mixture.beyond.distance_H > -1e-9).all()
    assert 0.003 < np.sqrt(np.mean(mixture.beyond.error_H**2)) < 0.012
    shifted = replace(runs, loss=np.where(runs.flops > 9e19, 1.1 * runs.loss, runs.loss))
    other, _ = _mixture(shifted)
    assert np.sqrt(np.mean(other.beyond.error_H**2)) > 0.05


def test_seeds_are_one_cell():
    """Cuts and weights are those of one run a cell, however many seeds the cheap cells have."""
    runs = _runs(COUPLED, noise=0.01, sizes=7)
    fits = fit_forms(fit_surface(runs.params, runs.tokens, runs.loss), runs)
    cheap = runs.flops < 1.5 * BUDGETS[0]
    often = np.repeat(np.arange(len(runs)), np.where(cheap, 6, 1))
    columns = {name: getattr(runs, name)[often] for name in ("params", "tokens", "loss")}
    many = read_runs({**columns, "seed": np.arange(len(often))})
    fit = fit_surface(many.params, many.tokens, many.loss, np.where(cheap, 1 / 6, 1.0)[often])
    one, other = compared(runs, fits), compared(many, fit_forms(fit, many))
    assert other.beyond.folds == one.beyond.folds == 3
    for member, same in zip(one.members, other.members, strict=True):
        assert same.weight == pytest.approx(member.weight, abs=0.1)
        assert same.rms == pytest.approx(member.rms, rel=0.3)
    np.testing.assert_allclose(other.beyond.distance_H, one.beyond.distance_H)
    assert other.noise == pytest.approx(one.noise, rel=0.05)
    twice = Beyond(np.array([0.01, 0.01, 0.02]), np.full(3, 2.0), np.array([0.5, 0.5, 1.0]), 1)
    assert twice.rms == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2))
    assert twice.distance == pytest.approx(2.0)


def test_members_are_drawn_as_often_as_they_weigh():
    mixture, fits = _mixture(_runs(COUPLED))
    drawn = mixture_draws(mixture, fits, 200, np.random.default_rng(0))
    assert abs(len(drawn) - 200) <= len(mixture.members)
    chinchilla = np.mean(drawn[:, 5] == 1.0)
    assert chinchilla == pytest.approx(_share(mixture, "surface"), abs=0.03)
    params, tokens = COUPLED.optimum(1e21)
    spread = np.log(Surface(*drawn.T).loss(params, tokens)).std()
    assert 2e-4 < spread < 0.02


def test_draws_are_of_the_fit_that_was_weighted():
    """A form that is wrong forecasts otherwise where cheap runs weigh less."""
    mixture, fits = _mixture(_runs(COUPLED, noise=0.001))
    member = replace(mixture.members[0], weight=1.0)
    assert (member.form, member.selection) == ("surface", ALL)
    drawn = mixture_draws(replace(mixture, members=(member,)), fits, 30, np.random.default_rng(0))
    params, tokens = COUPLED.optimum(1e22)
    logs = np.log(Surface(*drawn.T).loss(params, tokens))
    weighted, plain = (
        np.log(fit.loss(params, tokens)) for fit in (member.surface, fits["surface"].surface)
    )
    assert abs(logs.mean() - weighted) < 0.3 * abs(plain - weighted)


def test_many_runs_are_thinned_and_give_the_same_answer():
    few, many = (_runs(COUPLED, sizes=sizes, noise=0.002) for sizes in (60, 220))
    assert len(many) == 1100
    small, large = (
        compared(runs, {"surface": fit_surface(runs.params, runs.tokens, runs.loss)})
        for runs in (few, many)
    )
    params, tokens = COUPLED.optimum(1e21)
    assert large.loss(params, tokens) == pytest.approx(small.loss(params, tokens), rel=3e-3)
