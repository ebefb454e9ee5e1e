"""From loss to accuracy: published fits to their digits, and laws recovered from what they made."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface
from chinchilla_jax.scaling.laws.downstream import (
    EXPONENTIAL,
    LEAST_SQUARES,
    TASK_LOSS,
    TaskRows,
    direct,
    two_step,
)
from chinchilla_jax.scaling.laws.fit import fit
from chinchilla_jax.scaling.laws.over_training import OVER_TRAINING

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SIZES, RATIOS = np.meshgrid(np.geomspace(1e8, 1e10, 5), [20.0, 60.0, 200.0])
PARAMS, TOKENS = SIZES.ravel(), (SIZES * RATIOS).ravel()
LOSS = Surface(0.5, 30.0, 60.0, 0.25, 0.24)


def published(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}: tables of published runs are not here")
    with path.open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


# The task's loss of the 13B model, as the authors' table of their first step has it.
LADDER = {
    "c4_loss": 2.344387, "hellaswag_bpb": 0.653177, "arc_easy_bpb": 0.593105,
    "piqa_bpb": 0.874795, "csqa_bpb": 0.661728, "socialiqa_bpb": 0.991574,
    "openbookqa_bpb": 1.275007,
}  # fmt: skip


@pytest.mark.parametrize("task", LADDER)
def test_the_first_step_of_the_olmo_ladder(task):
    """Bhagia et al. 2412.04403: the ladder's sixteen runs tell the loss of a model of 13B."""
    rows = [row for row in published("olmo_ladder.csv") if row["size"] not in ("7B", "13B")]
    s = fit_surface(column(rows, "params"), column(rows, "tokens"), column(rows, task)).surface
    predicted = float(s.loss(13202396160, 5000088518656))
    assert predicted == pytest.approx(LADDER[task], abs=3e-6)
    if task == "c4_loss":
        found = [np.log(s.A), np.log(s.B), s.alpha, s.beta, s.E]
        np.testing.assert_allclose(found, [2.52435, 3.51085, 0.10360, 0.16197, 0.93438], rtol=6e-5)


def test_the_relative_errors_of_gadre():
    """Five small runs, and one of 1.4B for the errors on 17 tasks (Gadre et al., figure 1)."""
    rows = [row for row in published("gadre_overtraining.csv") if row["train"] == "rpj"]

    def run(size, multiple):
        return next(
            row for row in rows
            if abs(float(row["N"]) / size - 1) < 0.05 and float(row["mult"]) == multiple
        )  # fmt: skip

    small = [run(n, m) for n, m in [(10.6e6, 1), (79e6, 1), (154e6, 1), (412e6, 1), (10.6e6, 16)]]
    large = [run(1.44e9, 32), run(6.9e9, 1)]
    sizes = {"params": column(small, "N"), "tokens": column(small, "D")}
    law = fit(OVER_TRAINING, sizes, column(small, "loss_c4_val"), Objective("huber", 1e6))
    loss = OVER_TRAINING.predict(
        law.parameters, params=column(large, "N"), tokens=column(large, "D")
    )
    errors = 100 * np.abs(loss / column(large, "loss_c4_val") - 1)
    np.testing.assert_allclose(errors, [0.7103, 0.7320], atol=6e-5)

    also = [*small, run(1.44e9, 1)]
    x = {TASK_LOSS: column(also, "loss_c4_val")}
    link = fit(EXPONENTIAL, x, column(also, "err_17"), LEAST_SQUARES)
    found = [link.parameters[name] for name in ("k", "gamma", "eps")]
    np.testing.assert_allclose(found, [2.20648989, 0.71459051, 0.85699194], rtol=1e-5)
    predicted = EXPONENTIAL.predict(link.parameters, **{TASK_LOSS: loss})
    errors = 100 * np.abs(predicted / column(large, "err_17") - 1)
    np.testing.assert_allclose(errors, [3.6365, 0.0464], atol=6e-5)


def rows_of(accuracy_R, own_loss, chance=0.25):
    loss = LOSS.loss(PARAMS, TOKENS)
    return TaskRows(
        PARAMS, TOKENS, 6 * PARAMS * TOKENS, loss, accuracy_R, own_loss, chance
    )  # fmt: skip


def place():
    return np.array([5e10]), np.array([5e12])


def test_two_steps_recover_a_sigmoid():
    def made(loss):
        return 0.25 + 0.75 / (1 + np.exp(9 * (loss - 0.75)))

    law = two_step(rows_of(made(LOSS.loss(PARAMS, TOKENS)), True))
    assert law.link.law == "sigmoid"
    assert law.predict(*place())[0] == pytest.approx(made(LOSS.loss(*place()))[0], abs=2e-3)
    drawn = law.redrawn(np.ones((3, len(PARAMS))))(*place())
    np.testing.assert_allclose(drawn, np.full((3, 1), law.predict(*place())[0]), atol=1e-6)


def test_two_steps_by_the_loss_of_the_run_recover_an_exponential():
    def made(loss):
        return 1 - (0.85 - 2.2 * np.exp(-1.3 * loss / 0.5))

    law = two_step(rows_of(made(LOSS.loss(PARAMS, TOKENS)), False))
    assert law.link.law == "exponential"
    assert law.link.parameters["eps"] == pytest.approx(0.85, abs=1e-5)
    assert law.predict(*place())[0] == pytest.approx(made(LOSS.loss(*place()))[0], abs=1e-5)


@pytest.mark.parametrize("chance", [0.0, 0.25])
def test_the_direct_law_recovers_its_surface(chance):
    """Also where some runs are at chance, which say nothing."""
    made = Surface(0.1, 200.0, 400.0, 0.3, 0.28)
    accuracy = chance + (1 - chance) * np.exp(-made.loss(PARAMS, TOKENS))
    wrong = accuracy.copy()
    wrong[0] = chance - 0.01
    for values in (accuracy, wrong)[: 1 + (chance > 0)]:
        law = direct(rows_of(values, True, chance))
        expected = chance + (1 - chance) * np.exp(-made.loss(*place()))
        np.testing.assert_allclose(law.predict(*place()), expected, rtol=1e-4)
