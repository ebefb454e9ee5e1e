"""Laws of experts: tables of the papers, the runs of Clark et al. fitted again."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.separable import Objective
from chinchilla_jax.scaling.laws.fit import fit
from chinchilla_jax.techniques.routing import (
    BY_EXPERTS,
    CLARK,
    JOINT,
    LEVERAGE,
    LUDZIEJEWSKI,
    ROUTED,
    TIAN,
    dense_size_multiplier,
    optimum,
    saturated,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clark_routing.csv"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason="no ../shared/data beside the repo")


def clark_runs(router):
    """Every second layer routed, one expert a token, the last step of one seed."""
    with DATA.open() as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["router"] in ("Dense", router) and float(row["routing_frequency"]) == 0.5
            and float(row["k"]) == 1 and row["seed"] == "42"
        ]  # fmt: skip
    named = {"experts": "experts", "params_active": "dense_params", "loss": "loss"}
    return {to: np.array([float(row[column]) for row in rows]) for to, column in named.items()}


@needs_data
@pytest.mark.parametrize(
    "router,runs,alpha,beta,gamma,log_A,smallest,largest,square",
    [
        ("S-Base", 58, 0.083025, 0.118044, 0.009925, 1.113580, 2.0746, 238.675, 1.0417e-5),
        ("RL-R", 59, 0.082730, 0.123417, 0.011233, 1.107013, 1.7219, 470.053, 1.0428e-5),
        ("Hash", 56, 0.087357, 0.138364, 0.012635, 1.159531, 4.2688, 427.323, 8.890e-6),
    ],
)
def test_the_runs_of_the_paper_fitted_again(
    router, runs, alpha, beta, gamma, log_A, smallest, largest, square
):
    table = clark_runs(router)
    found = fit(ROUTED, table, table["loss"], Objective("squared"))
    assert found.runs == runs and found.starts_agreeing > 0.5
    assert (found.rms / np.log(10)) ** 2 == pytest.approx(square, rel=1e-4)
    p = found.parameters
    for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
        assert p[name] == pytest.approx(value, abs=1.1e-6), name
    assert np.log10(p["A"]) == pytest.approx(log_A, abs=1e-5)
    assert p["Es"] == pytest.approx(smallest, rel=1e-4)
    assert p["Em"] == pytest.approx(largest, rel=1e-4)


def test_made_up_runs_of_its_shape_give_the_law_back():
    experts, params = np.meshgrid(2.0 ** np.arange(10), [1.5e7, 2.5e7, 5.5e7, 1.3e8, 3.7e8, 1.3e9])
    runs = {"experts": experts.ravel(), "params_active": params.ravel()}
    noise = np.exp(0.007 * np.random.default_rng(0).standard_normal(60))
    found = fit(ROUTED, runs, ROUTED.predict(CLARK, **runs) * noise, Objective("squared"))
    assert found.rms == pytest.approx(0.007, rel=0.2)
    for name in ("alpha", "beta"):
        assert found.parameters[name] == pytest.approx(CLARK[name], rel=0.2), name


def test_the_dense_model_that_does_as_well():
    found = dense_size_multiplier(
        CLARK, np.array([25e6, 130e6, 370e6, 1.3e9])[:, None], np.array([8, 64, 512])
    )
    golden = [[2.228, 5.778, 11.294], [1.967, 4.398, 7.745], [1.818, 3.699, 6.097],
              [1.653, 3.004, 4.574]]  # fmt: skip
    np.testing.assert_allclose(found, golden, atol=5.1e-4)
    loss = ROUTED.predict(CLARK, experts=64.0, params_active=1.3e8)
    dense = ROUTED.predict(CLARK, experts=1.0, params_active=1.3e8 * found[1, 1])
    assert loss == pytest.approx(dense, rel=1e-12)


@pytest.mark.parametrize(
    "flops,experts,params,tokens",
    [
        (1e20, 1, "1.7", "9.7"), (1e20, 2, "1.5", "11.4"), (1e20, 4, "1.2", "13.9"),
        (1e20, 8, "0.99", "17.0"), (1e20, 16, "0.81", "20.7"), (1e20, 32, "0.669", "24.9"),
        (1e21, 1, "5.7", "29.3"), (1e21, 8, "3.8", "44.3"), (1e21, 32, "2.85", "58.4"),
        (1e22, 1, "18.8", "88.6"), (1e22, 8, "14.4", "115.8"), (1e22, 32, "12.2", "136.9"),
    ],
)  # fmt: skip
def test_the_best_run_of_a_budget_as_their_first_table_prints_it(flops, experts, params, tokens):
    """In units of 1e9; rounding of their fourth table costs up to one percent."""
    found = optimum(experts, flops)
    for value, printed in zip(found, (params, tokens), strict=True):
        last = 10.0 ** -len(printed.partition(".")[2])
        assert value / 1e9 == pytest.approx(float(printed), abs=0.75 * last, rel=0.01)


@pytest.mark.parametrize("experts", BY_EXPERTS)
def test_the_joint_law_gives_the_constants_of_each_number_of_experts(experts):
    grown = saturated(np.float64(experts), LUDZIEJEWSKI["Es"], LUDZIEJEWSKI["Em"])
    assert experts > 1 or grown == pytest.approx(2.0732)
    m, mu, n, nu = BY_EXPERTS[experts]
    for params, tokens in ((1e8, 2e9), (1e10, 2e11)):
        columns = {"experts": experts, "params_active": params, "tokens": tokens}
        by_hand = m * params**mu + n * tokens**nu + 1.3637
        assert JOINT.predict(LUDZIEJEWSKI, **columns) == pytest.approx(by_hand, rel=2e-3)


def test_leverage_at_the_papers_own_examples():
    """Over 7 at 3.1 % of the parameters, a granularity of 12 and 1e22 FLOPs; best at 11.3."""
    at = {"active_ratio": 0.031, "flops": 1e22}
    assert LEVERAGE.predict(TIAN, granularity=12.0, **at) == pytest.approx(7.245, abs=5e-4)
    finest = 2 ** np.linspace(0, 7, 7001)
    best = finest[np.argmax(LEVERAGE.predict(TIAN, granularity=finest, **at))]
    assert best == pytest.approx(2**3.50, rel=0.005)


def test_a_dense_run_is_one_expert_of_its_own_size():
    assert ROUTED.completed({"params": 5.0}) == {
        "params": 5.0,
        "experts": 1.0,
        "params_active": 5.0,
    }
