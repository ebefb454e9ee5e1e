"""Noise that branches of one trunk share: in resamples, in draws of minima, and told from runs."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.chance import Chance, resampled, resampled_of
from chinchilla_jax.scaling.fitting.estimators import METHODS, Estimator, curves
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise, noise_model
from chinchilla_jax.scaling.table.cells import cell_index
from tests.scaling.known import TRUE

BUDGETS = 10.0 ** np.linspace(17, 20, 7)


def table(seeds=1, near=12.0):
    """Sizes that every budget has near its minimum; trunk of each size and seed, noise-free."""
    sizes = 10.0 ** np.arange(5.5, 10, 0.25)
    rows = [
        (c, n, c / (6 * n), s + seeds * k)
        for c in BUDGETS
        for k, n in enumerate(sizes)
        if 1 / near < n / np.exp(np.interp(np.log(c), np.log(BUDGETS), centres())) < near
        for s in range(seeds)
    ]
    budget, n, d, trunk = np.array(rows).T
    return budget, n, d, np.unique(trunk, return_inverse=True)[1]


def centres():
    n = 10.0 ** np.linspace(5, 10, 400)
    return [np.log(n[np.argmin(TRUE.loss(n, c / (6 * n)))]) for c in BUDGETS]


def test_many_runs_are_resampled_as_few_are():
    """As many as there are, each once on average with a variance of 1, in every draw others."""
    drawn = resampled(None, 2000, 50, np.random.default_rng(0))
    assert drawn.shape == (50, 2000) and np.all(drawn.sum(axis=1) == 2000)
    assert drawn.var() == pytest.approx(1.0, abs=0.02) and drawn.max() >= 5
    assert np.abs(np.corrcoef(drawn)[np.triu_indices(50, 1)]).max() < 0.12


def noisy(rng, trunk, shared, size=0.01):
    of_trunk, own = rng.standard_normal(trunk.max() + 1)[trunk], rng.standard_normal(len(trunk))
    return np.exp(size * (np.sqrt(shared) * of_trunk + np.sqrt(1 - shared) * own))


def found_of(budget, n, d, loss):
    _, group = np.unique(budget, return_inverse=True)
    return profiles(group, np.unique(budget), n, d, loss)


def test_a_resample_draws_trunks_with_all_their_branches():
    rng = np.random.default_rng(0)
    trunk = np.array([7, 2, 7, 5, 2, 7])
    counts = resampled(trunk, 6, 500, rng)
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 1] == counts[:, 4]).all()
    per_trunk = counts[:, [0, 1, 3]]
    assert (per_trunk.sum(axis=1) == 3).all() and per_trunk.std(axis=0).min() > 0.5
    alone = resampled(None, 6, 4, np.random.default_rng(1))
    assert (alone == np.random.default_rng(1).multinomial(6, np.full(6, 1 / 6), size=4)).all()


def test_of_some_runs_the_others_are_in_no_draw():
    trunk, used = np.array([7, 2, 7, 5, 2, 7]), np.array([1, 0, 1, 1, 1, 0], bool)
    for each in (None, trunk):
        counts = resampled_of(used, each, 50, np.random.default_rng(1))
        alone = resampled(None if each is None else each[used], 4, 50, np.random.default_rng(1))
        assert (counts[:, used] == alone).all() and not counts[:, ~used].any()


@pytest.mark.parametrize("method", METHODS)
def test_noise_given_by_runs_moves_minima_as_noise_along_a_curves_own_directions(method):
    budget, n, d, _ = table()
    found = found_of(budget, n, d, TRUE.loss(n, d))
    fitted, draws = curves(method, found), 3000
    size, scale = np.full(len(found), 1e-4), np.ones(draws)
    rng = np.random.default_rng(0)
    by_run = Chance(rng, draws, rng.standard_normal((draws, len(n))))
    for quantity in ("log_params_B", "loss_B"):
        each = [
            [getattr(lowest, quantity).std() for lowest in fitted.drawn(size, scale, chance)]
            for chance in (Chance.of(rng, draws), by_run)
        ]
        assert each[0] == pytest.approx(each[1], rel=0.08)


@pytest.mark.parametrize("method", METHODS)
def test_noise_of_given_runs_moves_a_minimum_to_where_their_losses_have_it(method):
    budget, n, d, _ = table()
    truth, random = TRUE.loss(n, d), np.random.default_rng(0)
    noise = random.standard_normal((12, len(n)))
    fitted = curves(method, found_of(budget, n, d, truth))
    size = np.full(len(np.unique(budget)), 1e-4)
    drawn = fitted.drawn(size, np.ones(12), Chance(random, 12, noise))
    again = [
        [m.log_params_B[0] for m in curves(method, found_of(budget, n, d, losses)).minima()]
        for losses in truth * np.exp(1e-4 * noise)
    ]
    moved = np.array([lowest.log_params_B for lowest in drawn]).T
    middle = [m.log_params_B[0] for m in fitted.minima()]
    agreement = np.corrcoef((moved - middle).ravel(), (np.array(again) - middle).ravel())[0, 1]
    assert agreement > 0.97


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95])
def test_what_branches_share_is_told_from_seeds_of_trunks(shared):
    budget, n, d, trunk = table(seeds=3)
    told = []
    for seed in range(20):
        loss = TRUE.loss(n, d) * noisy(np.random.default_rng(seed), trunk, shared)
        noise = noise_model(
            found_of(budget, n, d, loss), cell_index(n, d), loss, budget, trunk
        )  # fmt: skip
        assert noise.source == "seeds"
        told.append((noise.shared, noise.log_loss, noise.freedom))
    share, size, freedom = np.mean(told, axis=0)
    assert share == pytest.approx(shared, abs=0.1)
    assert size == pytest.approx(0.01, rel=0.15)
    plain = noise_model(found_of(budget, n, d, loss), cell_index(n, d), loss, budget)
    assert plain.freedom == pytest.approx(freedom, rel=0.1) if shared == 0 else (
        freedom < 0.7 * plain.freedom
    )  # fmt: skip
    assert plain.trunk_R is None and plain.shared == 0


def test_an_exponent_is_as_uncertain_as_trunks_make_it():
    """The draws' scatter is that of tables; of independent runs it would be too small."""
    budget, n, d, trunk = table()
    errors, widths, alone = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        loss = TRUE.loss(n, d) * noisy(rng, trunk, 0.9)
        found = found_of(budget, n, d, loss)
        size = np.full(len(found), 0.01)
        for kept, noise in (
            (widths, Noise(0.01, 0, "seeds", size, trunk_R=trunk, shared=0.9)),
            (alone, Noise(0.01, 0, "seeds", size)),
        ):
            fit = fit_minima(Estimator("parabola"), found, noise, 60, rng)
            kept.append(np.std(fit.draws.laws.a))
        errors.append(fit.laws.a[0])
    scatter = np.std(errors)
    assert np.mean(widths) == pytest.approx(scatter, rel=0.25)
    assert np.mean(alone) < 0.85 * np.mean(widths)
