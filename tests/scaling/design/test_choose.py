"""Designs: what a run tells, and which are worth their FLOPs."""

import itertools

import numpy as np
import pytest

from chinchilla_jax.scaling.design.choose import after, greedy
from chinchilla_jax.scaling.design.ensemble import (
    TARGETS,
    Ensemble,
    Knowledge,
    Shift,
    Trials,
    knowledge,
    targets_of,
)
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import SIX_ND
from tests.scaling.known import TRUE

RNG = np.random.default_rng(0)
FLOPS = np.array([1e18, 1e18, 1e19, 1e19, 1e20])
PARAMS = np.array([5e7, 2e8, 2e8, 8e8, 1e9])
TOKENS = SIX_ND.tokens(FLOPS, PARAMS)
NOISE = np.full(5, 0.01)
TARGET = 1e21


def ensemble(draws=4000):
    """Surfaces around TRUE whose parameters are normal and independent."""
    z = 0.02 * RNG.standard_normal((5, draws))
    columns = [np.asarray(x) * np.exp(each) for x, each in zip(TRUE.columns(), z, strict=False)]
    return Surface(*columns)


DRAWS = ensemble()
RIGHT = Shift(0.0, 0.0, 1e20)


def known(noise=NOISE, misfit=0.0, shift=RIGHT, draws=DRAWS):
    trials = Trials(PARAMS, TOKENS, noise, np.full(5, misfit))
    return knowledge(Ensemble(draws, TRUE, shift, SIX_ND, TARGET), trials)


def best(found, flops, most, budget):
    """Of the greedy ones that which tells most."""
    made = [greedy(found, flops, most, budget, power) for power in (1.0, 0.5, 0.25)]
    return min(made, key=lambda design: np.log(design.after.variance_T).sum())


def linear():
    """The same by the law of propagation: covariance of (ln N*, ln L*, ln losses)."""
    theta = np.array([float(x) for x in TRUE.columns()[:5]])

    def values(factor):
        surface = Surface(*(np.array([x]) for x in theta * np.exp(factor)))
        losses = np.log(np.ravel(surface.loss(PARAMS, TOKENS)))
        return np.concatenate([targets_of(surface, SIX_ND, TARGET)[0], losses])

    step = 1e-5 * np.eye(5)
    slopes = np.array([(values(x) - values(-x)) / 2e-5 for x in step])
    return 0.02**2 * slopes.T @ slopes


def test_the_covariance_is_that_of_the_draws():
    expected = linear()
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((known().covariance - expected) / scale).max() < 0.06


def test_what_a_run_leaves_is_what_an_exact_regression_leaves():
    """Conditioning on all of a design at once, by the formula of normal variables."""
    found = known(misfit=0.003)
    which = [3, 0, 3]
    then = found
    for candidate in which:
        then = then.after(candidate)
    count = len(TARGETS)
    rows = [count + c for c in which]
    told = found.covariance[np.ix_(rows, rows)] + np.diag(NOISE[which] ** 2)
    cross = found.covariance[:count, rows]
    expected = found.covariance[:count, :count] - cross @ np.linalg.solve(told, cross.T)
    assert np.allclose(then.covariance[:count, :count], expected, rtol=1e-9)
    assert (then.variance_T < found.variance_T).all()


def test_the_gain_is_what_the_next_run_takes_from_the_variances():
    found = known()
    for candidate, gain in enumerate(found.gain_C()):
        ratio = found.after(candidate).variance_T / found.variance_T
        assert gain == pytest.approx(-np.log(ratio).sum(), rel=1e-9)


def test_seeds_average_noise_and_not_misfit():
    noisy, wrong = known(np.full(5, 0.01)), known(np.full(5, 1e-6), misfit=0.05)
    ratios = []
    for found in (noisy, wrong):
        once = found.after(2)
        ratios.append(float(once.after(2).variance_T[1] / once.variance_T[1]))
    assert ratios[0] < 0.99 and ratios[1] == pytest.approx(1.0, abs=1e-6)
    right = known(np.full(5, 1e-6))
    assert wrong.after(2).variance_T[1] > 5 * right.after(2).variance_T[1]


def test_a_design_is_near_the_best_of_all_that_can_be_paid():
    found, most = known(), np.full(5, 3)
    budget = 2.5e20
    design = best(found, FLOPS, most, budget)
    assert design.count_C @ FLOPS <= budget * (1 + 1e-9) and (design.count_C <= most).all()

    def left(counts):
        then = after(found, np.array(counts))
        return float(np.log(then.variance_T / found.variance_T).sum())

    every = [
        left(counts)
        for counts in itertools.product(*(range(n + 1) for n in most))
        if np.dot(counts, FLOPS) <= budget
    ]
    assert left(design.count_C) < 0.95 * min(every)  # both are below 0


def test_cheap_runs_that_tell_little_do_not_eat_up_the_budget_of_a_dear_one():
    """Per FLOP the first candidate tells more, three times over, and then nothing is left."""
    covariance = np.array(
        [[1.0, 0, 0.4, 0.65], [0, 1.0, 0.4, 0.65], [0.4, 0.4, 1, 0.52], [0.65, 0.65, 0.52, 1]]
    )
    found = Knowledge(covariance, np.full(2, 0.1))
    design = best(found, np.array([1.0, 10.0]), np.array([3, 3]), 10.0)
    assert design.count_C.tolist() == [0, 1]


def test_no_run_is_made_that_costs_too_much_or_tells_nothing():
    assert len(best(known(), FLOPS, np.full(5, 3), 5e17)) == 0
    assert len(best(known(), FLOPS, np.zeros(5, int), 1e21)) == 0
    assert len(best(known(np.full(5, 50.0)), FLOPS, np.full(5, 3), 1e21)) == 0


def test_draws_that_ran_away_decide_nothing():
    columns = [np.array(x) for x in DRAWS.columns()[:5]]
    columns[1][:40] *= 1e4
    columns[3][40:60] = np.nan
    wild = known(draws=Surface(*columns))
    assert isinstance(wild, Knowledge)
    assert np.allclose(wild.variance_T, known().variance_T, rtol=0.25)
    assert known(draws=Surface(*(x[:30] for x in columns))) is None


def test_the_error_of_the_form_is_told_by_runs_beyond_the_budgets_alone():
    """Sizes at 1e20 of which one is the best: it tells of the loss, those beside it of the size."""
    shift = Shift(params=0.3, loss=0.05, largest=1e19)
    plain, wide = known(), known(shift=shift)
    assert wide.variance_T == pytest.approx(plain.variance_T + np.array([0.3, 0.05]) ** 2)
    inside = wide.after(0).variance_T - wide.variance_T
    assert inside == pytest.approx(plain.after(0).variance_T - plain.variance_T, rel=0.2)
    best = TRUE.optimum(1e20)[0]
    params, flops = best * np.array([0.25, 1.0, 4.0]), 1e20
    trials = Trials(params, SIX_ND.tokens(flops, params), np.full(3, 0.01), np.zeros(3))

    def of(shift):
        return knowledge(Ensemble(DRAWS, TRUE, shift, SIX_ND, TARGET), trials)

    alone = of(Shift(3.0, 0.0, 1e19))
    left = np.array([alone.after(c).variance_T[0] for c in range(3)]) / alone.variance_T[0]
    assert left[1] > 0.99 and max(left[0], left[2]) < 0.6
    # Losses below what was thought of a large size say that N* is larger, of a small one smaller.
    assert alone.covariance[0, 2] > 0 > alone.covariance[0, 4]
    loss = of(Shift(0.0, 1.0, 1e19))
    assert loss.after(1).variance_T[1] / loss.variance_T[1] < 0.01
