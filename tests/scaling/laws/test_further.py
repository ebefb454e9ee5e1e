"""Which rows a further law is fitted to: the best settings of each cell, inside what it spans."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.further import fit_laws, law_weights
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.techniques.law import Law, power_terms
from tests.scaling.known import TRUE, grid
from tests.scaling.laws.known import TRUTH

SQUARED = Objective("squared")


def _rate(p, x):
    return p["A"] * x["params"] ** -p["alpha"] + p["K"] * x["learning_rate"] ** p["kappa"]


RATE = Law(
    name="rate",
    formula="L = A/N^alpha + K lr^kappa",
    source="made up for this test",
    columns=("params", "learning_rate"),
    parameters=("A", "K", "alpha", "kappa"),
    form=_rate,
    ranges={"alpha": (0.05, 1.0), "kappa": (0.1, 2.0)},
    linear=lambda p, x: (
        (x["params"] ** -p["alpha"], x["learning_rate"] ** p["kappa"]),
        np.ones(()),
    ),
    natural=power_terms("A", "K"),
)  # fmt: skip


def test_a_law_in_the_rate_gets_every_rate_and_of_each_the_best_schedule():
    rows = []
    for n in np.geomspace(1e7, 1e9, 6):
        for lr in np.geomspace(1e-3, 1e-1, 5):
            true = RATE.predict({"A": 100.0, "K": 2.0, "alpha": 0.3, "kappa": 0.5}, params=n,
                                learning_rate=lr)  # fmt: skip
            for schedule, worse in (("wsd", 1.0), ("cosine", 1.07)):
                rows.append({"params": n, "tokens": 20 * n, "peak_lr": lr, "schedule": schedule,
                             "loss": float(true) * worse})  # fmt: skip
    runs = read_runs(rows, {"learning_rate": "peak_lr"})
    assert len(runs) == len(rows) and len(runs.best()) == 6
    (found,) = fit_laws([RATE], runs, SQUARED, 0, 0)
    assert found.runs == 30 and found.rms < 1e-8
    assert found.parameters["kappa"] == pytest.approx(0.5, rel=1e-4)


def test_a_law_in_the_column_of_a_condition_spans_it_and_takes_the_best_rate_inside():
    law, rows = LAWS["sparsity"], []
    for sparsity in (0.0, 0.5, 0.75, 0.875):
        for n in np.geomspace(1e6, 1e8, 4):
            for d in np.geomspace(1e9, 6e10, 4):
                loss = law.predict(TRUTH["sparsity"], sparsity=sparsity, nonzero_params=n, tokens=d)
                for lr in (1e-3, 2e-3):
                    # The rate that wins is another one above half sparsity.
                    worse = 1.0 if (lr == 1e-3) == (sparsity < 0.6) else 1.02
                    rows.append({"sparsity": sparsity, "nonzero_params": n, "tokens": d, "lr": lr,
                                 "loss": float(loss) * worse})  # fmt: skip
    runs = read_runs(rows)
    assert runs.names("condition") == ["sparsity"]
    (found,) = fit_laws([law], runs, SQUARED, 0, 0)
    assert found.runs == 64 and found.rms < 1e-7
    for name, value in TRUTH["sparsity"].items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-3), name


def test_the_weights_of_a_spanning_law_are_from_seeds_inside_conditions():
    """Two sparsities of one cell are no replicates: else their difference would be its noise."""
    rng, rows = np.random.default_rng(0), []
    params, tokens, budget = grid([1e17, 1e18, 1e19], 4, 4.0)
    for sparsity in (0.0, 0.75):
        for n, d, c in zip(params, tokens, budget, strict=True):
            for seed in range(3):
                noise = 0.01 if c < 1e18 else 0.001
                loss = (
                    TRUE.loss(n, d) * (1 - 0.2 * sparsity) * np.exp(noise * rng.standard_normal())
                )
                rows.append({"sparsity": sparsity, "nonzero_params": n, "tokens": d, "flops": c,
                             "seed": seed, "loss": float(loss)})  # fmt: skip
    runs = read_runs(rows)
    seen = []
    for picked in (runs, read_runs(rows, kinds={"sparsity": "outcome"})):
        weights = law_weights(picked, SQUARED)
        seen.append(weights[picked.flops > 1e18].mean() / weights[picked.flops < 1e18].mean())
    assert seen[0] > 10  # (.01 / .001)^2, drawn towards the table's
    assert seen[1] == pytest.approx(1.0, rel=0.5)


def test_laws_beside_a_fit_leave_out_what_lost():
    params, tokens, _ = grid([1e17, 1e18, 1e19], 5, 4.0)
    rows = [
        {"params": n, "tokens": d, "lr": lr, "loss": float(TRUE.loss(n, d)) * (1 + 5 * lr)}
        for n, d in zip(params, tokens, strict=True)
        for lr in (0.0, 1e-2)
    ]
    for row in rows:
        row["lr"] += 1e-3
    fits, _ = analyse(read_runs(rows), Settings(bootstrap=0), [LAWS["chinchilla"]])
    assert fits.laws[0].runs == fits.table.fitted == len(params)
    assert fits.table.beaten == len(params) and fits.table.rows == len(rows)
    assert fits.laws[0].parameters["alpha"] == pytest.approx(TRUE.alpha, rel=1e-3)


def test_powers_that_overflow_warn_nobody():
    """A fit goes to the edge of what is tried, beside `analyse` too."""
    seen = []

    def form(p, x):
        seen.append(np.geterr()["over"])
        return _rate(p, x)

    rows = [
        {
            "params": 1e7 * 2**i,
            "tokens": 1e9 * 3**k,
            "learning_rate": 1e-3 * 2**k,
            "loss": 3.0 - i / 9,
        }
        for i in range(5)
        for k in range(4)
    ]
    runs = read_runs(rows, kinds={"learning_rate": "condition"})
    fit_laws([replace(RATE, form=form)], runs, SQUARED, draws=20, seed=0)
    assert set(seen) == {"ignore"}
