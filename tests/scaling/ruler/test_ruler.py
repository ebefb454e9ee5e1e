"""Multipliers of published laws come back, exactly without noise, inside the intervals with it."""

import math

import numpy as np
import pytest

from chinchilla_jax.scaling.ruler import multiplier
from chinchilla_jax.scaling.ruler.league import league
from chinchilla_jax.scaling.ruler.panel import panel
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.ruler.laws import (
    CASES,
    PRETRAINED,
    Case,
    busbridge,
    clark,
    frantar,
    hernandez,
    kumar,
    ludziejewski,
    muennighoff,
    panel_of,
    student,
)


def ranked(rows, draws=0, **settings):
    return league(panel(read_runs(rows)), Settings(bootstrap=draws, **settings))[0]


def found(rows, measure, draws=0, **settings):
    """The one technique of a table, and its multiplier."""
    (one,) = ranked(rows, draws, **settings).standings
    return one, next(m for m in one.multipliers if m.measure == measure)


def dense_grid(law, sizes, tokens):
    return [
        {"technique": "dense", "params": n, "tokens": d, "flops": 6 * n * d, "loss": law(n, d)}
        for n in sizes
        for d in tokens
    ]


def with_cell(law, technique, n, d, sizes=(0.1, 0.3, 1, 3, 10), tokens=(0.1, 0.3, 1, 3, 10)):
    """A dense grid about (n, d) and one cell of a technique in its middle."""
    rows = dense_grid(law, [n * x for x in sizes], [d * x for x in tokens])
    one = {"technique": "t", "params": n, "tokens": d, "flops": 6 * n * d}
    return [*rows, {**one, "loss": technique(n, d)}]


@pytest.mark.parametrize(
    ("experts", "tokens", "golden"),
    [(2, 2e10, 1.162), (4, 2e10, 1.409), (8, 2e10, 1.762), (16, 2e10, 2.247), (32, 2e10, 2.881),
     (2, 1e11, 1.186), (32, 1e11, 3.243)],
)  # fmt: skip
def test_experts_are_worth_what_their_law_says(experts, tokens, golden):
    rows = with_cell(ludziejewski, lambda n, d: ludziejewski(n, d, experts), 1e9, tokens)
    _, m = found(rows, "params")
    assert m.value == pytest.approx(golden, abs=1.1e-3)


def test_weights_of_four_bits_and_sparse_ones():
    _, m = found(with_cell(kumar, lambda n, d: kumar(n, d, 4), 1e8, 5e9), "params")
    assert m.value == pytest.approx(0.696, abs=5e-4)
    for level, golden in ((0.5, 1.586), (0.75, 2.157), (0.875, 2.63)):
        rows = with_cell(frantar, lambda n, d, s=level: frantar(n, d, s), 1e8, 5e9)
        assert found(rows, "params")[1].value == pytest.approx(golden, abs=5e-3)


@pytest.mark.parametrize(
    ("epochs", "golden"),
    [(1, 1.0), (2, 0.9841), (4, 0.9314), (8, 0.8280), (16, 0.6614), (40, 0.3792)],
)
def test_repetition_acts_on_tokens(epochs, golden):
    rows = with_cell(muennighoff, lambda n, d: muennighoff(n, d, epochs), 1e8, 5e9)
    assert found(rows, "tokens")[1].value == pytest.approx(golden, abs=1e-4)


@pytest.mark.parametrize(
    ("params", "tokens", "golden"), [(4e7, 1e9, 1.6131), (1e9, 1e9, 3.0833), (1e9, 1e10, 1.3153)]
)
def test_a_start_acts_on_tokens(params, tokens, golden):
    """(D_F + D_T) / D_F of the run itself: over many it varies too much for one multiplier."""
    rows = with_cell(hernandez, lambda n, d: hernandez(n, d, True), params, tokens)
    assert found(rows, "tokens")[1].value == pytest.approx(golden, abs=1e-3)


@pytest.mark.parametrize(("per_param", "golden"), [(20, 3.97), (80, 1.52), (320, 1.14)])
def test_a_teacher_is_worth_less_the_longer_its_student_trains(per_param, golden):
    """The supervised law has an outer power, as the ruler has."""
    teacher, n = busbridge(7.75e9, 20 * 7.75e9), 546e6
    tokens = per_param * n
    near = (0.25, 0.5, 1, 2, 4, 8)
    rows = with_cell(busbridge, lambda n, d: student(n, d, teacher), n, tokens, near, near)
    assert found(rows, "params")[1].value == pytest.approx(golden, rel=0.01)


@pytest.mark.parametrize(("params", "golden"), [(2.5e7, 2.228), (1.3e8, 1.967), (1.3e9, 1.653)])
def test_routed_models_are_worth_their_effective_parameters(params, golden):
    """Eight experts of S-BASE, by Clark et al.'s equation 9; tokens are the same on both sides."""
    assert CASES["clark"].multiplier(params, 1e11) == pytest.approx(golden, rel=1e-3)
    rows = with_cell(clark, lambda n, d: clark(n, d, 8), params, 1e11)
    assert found(rows, "params")[1].value == pytest.approx(golden, rel=0.02)


def test_the_compute_multiplier_is_that_of_size_where_both_sides_are_scaled():
    """m N and C = 6 N D on the frontier: L*(C m) for L*(C), Tian's efficiency leverage."""
    case = CASES["kumar"]
    rows = panel_of(case, noise=0.0, seeds=1)
    _, m = found(rows, "training")
    best = next(r for r in rows if r["technique"] == case.name)
    n, d = best["params"], best["tokens"]
    alpha = 0.4965
    gamma = alpha / 2
    reducible = kumar(n, d) - 2.7648, case.loss(n, d) - 2.7648
    assert found([r for r in rows if r["technique"] == "dense" or r is best], "training")[
        1
    ].value == pytest.approx((reducible[0] / reducible[1]) ** (1 / gamma), rel=1e-3)
    dear = [r | {"flops": 1.5 * r["flops"]} if r["technique"] != "dense" else r for r in rows]
    assert found(dear, "training")[1].value == pytest.approx(m.value / 1.5, rel=1e-6)
    assert found(dear, "params")[1].value == pytest.approx(found(rows, "params")[1].value)


def test_a_technique_that_does_nothing_is_worth_one():
    rows = panel_of(CASES["kumar"], seed=3)
    twins = [{**row, "technique": "nothing"} for row in rows if row["technique"] == "dense"]
    one, *_ = ranked([r for r in rows if r["technique"] == "dense"] + twins, 200).standings
    assert one.paired == one.runs == len(twins) and one.correlation == pytest.approx(1.0)
    assert one.change == pytest.approx(0.0, abs=1e-12)
    for m in one.multipliers:
        assert m.low - 1e-9 <= 1.0 <= m.high + 1e-9 and m.value == pytest.approx(1.0)
        assert m.pays is None or abs(m.low - 1) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_noise_leaves_the_truth_inside_the_interval(name):
    """A few tables of each law; the slow test below counts over 200."""
    case, inside = CASES[name], 0
    for seed in range(3):
        one, m = found(panel_of(case, seed), case.measure, 200, objective="squared")
        inside += m.low <= case.multiplier(one.params, one.tokens) <= m.high
        assert 0.2 < one.correlation <= 1.0 and one.paired == one.runs
    assert inside >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    case, inside = CASES[name], []
    for seed in range(200):
        one, m = found(panel_of(case, seed), case.measure, 400)
        inside.append(m.low <= case.multiplier(one.params, one.tokens) <= m.high)
    assert 0.93 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("tables", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_intervals_of_a_start_hold_its_worth_in_the_cell(tables):
    inside = []
    for seed in range(tables):
        one, m = found(panel_of(PRETRAINED, seed, cells=1), "tokens", 200)
        truth = PRETRAINED.multiplier(one.params, one.tokens)
        inside.append(m.low <= truth <= m.high)
        assert m.value == pytest.approx(truth, rel=0.2)
    assert 0.93 <= np.mean(inside) <= (0.99 if tables > 100 else 1)


def test_pairing_narrows_the_interval():
    case = CASES["kumar"]
    rows = panel_of(case, seed=1, shared=0.95)
    apart = [r | {"seed": r["seed"] + 10 * (r["technique"] != "dense")} for r in rows]
    mixed = np.random.default_rng(0)
    for row in apart:  # a seed of their own is a noise of its own
        if row["technique"] != "dense":
            row["loss"] = case.loss(row["params"], row["tokens"])
            row["loss"] *= math.exp(0.005 * mixed.standard_normal())
    one, m = found(rows, "params", 400)
    other, wide = found(apart, "params", 400)
    assert one.paired == one.runs and other.paired == 0
    assert math.log(m.high / m.low) < 0.75 * math.log(wide.high / wide.low)
    assert one.correlation > other.correlation


def test_a_trend_is_told_where_the_runs_tell_it():
    """m = 0.7 (D / 60 N)^-0.3, whose power comes back with its multiplier in the middle."""

    def worn(n, d):
        return kumar(0.7 * (d / n / 60) ** -0.3 * n, d)

    strong = Case("worn", kumar, worn, "params", (1e7, 1.6e8), 60)
    one, m = found(panel_of(strong, noise=0.002, seeds=3), "params", 400)
    trends = {t.over: t for t in m.trends}
    assert trends["D/N"].told and trends["D/N"].low <= -0.3 <= trends["D/N"].high < 0
    assert m.low <= strong.multiplier(one.params, one.tokens) <= m.high
    flat = found(panel_of(CASES["kumar"], noise=0.002, seeds=3), "params", 400)[1]
    assert not any(t.told for t in flat.trends) and all(t.reason is None for t in flat.trends)


def test_one_cell_has_a_multiplier_and_no_trend():
    one, m = found(panel_of(CASES["kumar"], cells=1, seeds=4), "params", 400)
    assert one.cells == 1 and one.runs == 4
    assert m.low < 0.696 < m.high
    assert {t.reason for t in m.trends} == {"1 cell, a trend needs 4"}
    _, m = found(panel_of(CASES["kumar"], cells=1, seeds=1), "params", 400)
    assert m.value is not None and m.low is None and m.high is None
    assert "one run" in m.reason


def test_losses_below_all_that_size_can_give_have_no_multiplier_of_size():
    """Twice the tokens where data limit: no size makes up for it, the tokens tell it."""

    def limited(n, d):
        return 1.7 + 2000 * n**-0.5 + 1000 * d**-0.3

    case = Case("longer", limited, lambda n, d: limited(n, 2 * d), "tokens", (1e8, 1.6e9), 20.0)
    one, m = found(panel_of(case), "params", 400)
    assert m.value is None and m.low is not None and m.high is None
    assert "below what the dense law reaches" in m.reason and m.pays
    assert all("no bound" in t.reason for t in m.trends)
    tokens = next(m for m in one.multipliers if m.measure == "tokens")
    assert tokens.low < 2.0 < tokens.high and tokens.pays


def test_too_few_dense_runs_are_refused_in_words():
    rows = panel_of(CASES["kumar"], budgets=1, sizes=8)
    table = ranked(rows, 100)
    assert "one budget" in table.refusal and not table.standings[0].multipliers
    rows = [r for r in panel_of(CASES["kumar"]) if r["technique"] != "dense" or r["seed"] > 8]
    rows += panel_of(CASES["kumar"], seeds=1)[:4]
    assert "different runs for 5 parameters" in ranked(rows, 100).refusal


def test_an_interval_is_widened_for_few_cells(monkeypatch):
    """Student's t over the normal's percentile, times sqrt((n + 1) / freedom)."""
    rows = panel_of(CASES["kumar"], cells=6)
    _, m = found(rows, "params", 400)
    monkeypatch.setattr(multiplier, "_expansion", lambda cells, unknowns: 1.0)
    _, plain = found(rows, "params", 400)
    assert math.log(m.high / m.low) > 1.2 * math.log(plain.high / plain.low)
    monkeypatch.undo()
    few = multiplier.Cells(*[np.zeros((1, 6))] * 2, np.ones(6, bool), np.arange(6),
                           *[np.zeros(6)] * 3, cells=6)  # fmt: skip
    assert multiplier._expansion(few, 1) == pytest.approx(math.sqrt(7 / 4) * 2.776445 / 1.959964)


def test_ends_of_draws_that_are_not_known_are_open():
    draws = np.r_[0.0, np.linspace(-1, 1, 200)]
    low, high = multiplier.ends(draws)
    assert (low, high) == (pytest.approx(-0.96, abs=0.02), pytest.approx(0.96, abs=0.02))
    draws[1:12] = np.nan
    assert multiplier.ends(draws) == (-math.inf, math.inf)
    draws[1:12] = np.inf
    assert multiplier.ends(draws)[1] == math.inf and np.isfinite(multiplier.ends(draws)[0])
