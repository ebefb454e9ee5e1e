"""Designs side by side: those of the literature, and what a report of their runs would state."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.design import candidates, expected
from chinchilla_jax.scaling.design.choose import after, designs
from chinchilla_jax.scaling.design.known import known_of
from chinchilla_jax.scaling.design.linear import linear
from chinchilla_jax.scaling.design.optimal import D, V, optimal
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.design.test_next_runs import table

QUICK = Settings(bootstrap=200)
BUDGET = 6e20


@pytest.fixture(scope="module")
def known():
    return known_of(read_runs(table()), QUICK, 1e22)


@pytest.fixture(scope="module")
def pool(known):
    whole = candidates.of_table(known.each.runs, SIX_ND, 1e21, (1e18, 1e19, 1e20, 3e20))
    return candidates.near(whole, known.surface)


def test_the_first_run_of_an_optimal_design_is_the_best_of_all(known, pool):
    """By the information of the runs with each candidate, inverted anew."""
    runs, cost = known.each.runs, known.each.flops_model
    slopes = linear(known.surface, runs.params, runs.tokens)
    here = slopes.losses(runs.params, runs.tokens) / known.noise(runs.flops)[:, None]
    each = slopes.losses(pool.params_C, pool.tokens_C) / known.noise(pool.flops_C)[:, None]
    before = here.T @ here + np.eye(5) / 4
    best = float(np.ravel(known.surface.optimum(known.target, cost)[0])[0])
    near = best * np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    wanted = slopes.losses(near, cost.tokens(known.target, near))

    def variance(information):
        return float(np.trace(wanted @ np.linalg.inv(information) @ wanted.T))

    informed = [before + np.outer(x, x) for x in each]
    gain = {
        V: [variance(before) - variance(one) for one in informed],
        D: [np.linalg.slogdet(one)[1] - np.linalg.slogdet(before)[1] for one in informed],
    }
    for by, power in ((V, 0.4), (D, 1.0)):
        first = int(np.argmax(np.array(gain[by]) / pool.flops_C**power))
        count_C = optimal(by, known, pool, pool.flops_C[first])
        assert count_C[first] and count_C @ pool.flops_C <= pool.flops_C[first] * (1 + 1e-9)
        assert optimal(by, known, pool, BUDGET)[first]


def test_all_designs_keep_to_the_budget_and_v_optimal_runs_come_first(known, pool):
    found = designs(known, known.of(pool), pool, BUDGET)
    assert len({design.count_C.tobytes() for design in found}) == len(found) == 3
    assert found[0].count_C.tolist() == optimal(V, known, pool, BUDGET).tolist()
    for design in found:
        assert 0 < design.count_C @ pool.flops_C <= BUDGET * (1 + 1e-9)
        assert (design.count_C <= pool.most_C).all()
        expect = after(known.of(pool), design.count_C).variance_T
        assert design.after.variance_T == pytest.approx(expect, rel=1e-6)
    # Each of the others leaves less than V-optimal runs of what it goes by: all, or chance.
    for one, form in ((found[1], True), (found[2], False)):
        left = [after(known.of(pool, form), d.count_C).variance_T for d in (found[0], one)]
        assert np.log(left[1] / left[0]).sum() < 0


def test_losses_that_are_made_up_are_those_of_the_surface_and_the_same_in_any_design(known, pool):
    one, two = np.zeros(len(pool), int), np.zeros(len(pool), int)
    one[3], two[[1, 3]] = 1, 2
    small, large = (expected._made_up(known, pool, count, 0) for count in (one, two))
    there = len(known.each.runs)
    assert len(small["loss"]) == there + 1 and len(large["loss"]) == there + 4
    assert (large["loss"][:there] == known.each.runs.loss).all()
    assert small["loss"][-1] == large["loss"][-2] != large["loss"][-1]  # seeds differ
    assert small["loss"][-1] != expected._made_up(known, pool, one, 1)["loss"][-1]
    z = [
        np.log(made["loss"][-1] / known.surface.loss(pool.params_C[3], pool.tokens_C[3]))
        / known.noise(pool.flops_C)[3]
        for made in (expected._made_up(known, pool, one, number) for number in range(200))
    ]
    assert abs(np.mean(z)) < 0.25 and 0.85 < np.std(z) < 1.15


def test_the_form_is_better_known_by_budgets_further_out(known, pool, monkeypatch):
    monkeypatch.setattr(expected, "_TIMES", 2)
    nothing = np.zeros(len(pool), int)
    whole = np.where(pool.budget_C == 3e20, 1, 0)
    now = expected.form_variance(known, pool, nothing, QUICK)
    assert now == pytest.approx(np.square(known.form_error()), rel=1e-6)  # draws are not in it
    assert (expected.form_variance(known, pool, whole, QUICK) < 0.5 * now).all()

    at = candidates.of_table(known.each.runs, SIX_ND, 1e22, (1e22,))  # the target itself
    best = np.argmin(known.surface.loss(at.params_C, at.tokens_C))
    one = (np.arange(len(at)) == best).astype(int)
    assert expected.form_variance(known, at, one, QUICK)[1] < 0.2 * now[1]

    def refused(*_):
        raise UserError("no surface")

    monkeypatch.setattr(expected, "fitted", refused)
    assert (expected.form_variance(known, pool, whole, QUICK) == expected._MOST**2).all()


def test_v_optimal_runs_are_made_unless_others_are_expected_to_be_clearly_better(
    known, pool, monkeypatch, caplog
):
    found = designs(known, known.of(pool), pool, BUDGET)
    chance, nothing = known.of(pool, form=False), np.zeros(len(pool), int)

    def chosen(less):
        """Where both widths of the last design are so much less in ln, chance and form together."""
        told = {d.count_C.tobytes(): after(chance, d.count_C).variance_T for d in found}
        total = dict.fromkeys(told, np.full(2, 1.0))
        total[found[-1].count_C.tobytes()] = np.full(2, np.exp(-less))
        monkeypatch.setattr(
            expected,
            "form_variance",
            lambda known, pool, count, settings: total[count.tobytes()] - told[count.tobytes()],
        )
        return expected.narrowest(known, pool, found, nothing, QUICK)

    assert chosen(0.0) is chosen(0.19) is chosen(-1.0) is found[0]
    assert chosen(0.21) is found[-1]
    assert expected.narrowest(known, pool, found[:1], nothing, QUICK) is found[0]
    with caplog.at_level("INFO", logger=expected.__name__):
        expected.narrowest(known, pool, found, nothing, QUICK)
        assert not caplog.messages  # what is quick is not told
        expected.narrowest(known, pool, found, nothing, QUICK, began=-1e9)
    assert [message[-16:] for message in caplog.messages] == [
        f" {i} of 3 are done" for i in range(3)
    ]


def test_branches_keep_their_trunks(known, pool):
    runs = known.each.runs
    parents = np.array(["", *[runs.run_id_R[0]] * (len(runs) - 1)])
    labels = {**runs.labels, "parent_run": parents}
    of_trunks = dataclasses.replace(
        known, each=dataclasses.replace(known.each, runs=dataclasses.replace(runs, labels=labels))
    )
    count = np.zeros(len(pool), int)
    count[0] = 2
    made = read_runs(expected._made_up(of_trunks, pool, count, 0))
    assert len(np.unique(made.trunk_R())) == 3  # the trunk, and each new run by itself
