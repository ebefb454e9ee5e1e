"""`dense_loss`: of each run of a technique the loss of the run beside it that lacks only that."""

import math

import numpy as np
import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.further import completed
from chinchilla_jax.scaling.table.partners import with_dense_loss
from chinchilla_jax.scaling.table.read import read_runs

LAW = LAWS["students"]
OFF = techniques.without(LAW.name)


def row(name, loss, teacher="", seed=0, params=1e5, tokens=1e6, bits=32.0, **more):
    taught = {"distillation_teacher_loss": 1.7} if teacher else {}
    return {
        "run_id": name, "status": "done", "params_total": params, "tokens": tokens,
        "flops": 6 * params * tokens, "loss": loss, "seed": seed, "quantisation_bits": bits,
        **OFF, "distillation_teacher": teacher, **taught, **more,
    }  # fmt: skip


def dense_loss(rows):
    runs = with_dense_loss(read_runs(rows), OFF)
    found = zip(runs.run_id_R, runs.columns["dense_loss"], strict=True)
    return {name: None if np.isnan(loss) else float(loss) for name, loss in found}


def test_a_partner_has_the_size_the_tokens_the_seed_and_the_other_techniques():
    found = dense_loss([
        row("dense-0", 2.0), row("dense-1", 2.2, seed=1),
        row("larger", 1.9, params=2e5), row("longer", 1.8, tokens=2e6),
        row("four-bits", 2.5, bits=4.0),
        row("taught-0", 1.95, "t"), row("taught-1", 1.97, "t", seed=1),
        row("taught-2", 1.96, "t", seed=2),
        row("taught-four-bits", 2.3, "t", bits=4.0),
        row("begun", 1.94, "t", distillation_start="teacher"),
        row("alone", 1.7, "t", tokens=4e6), row("eight-bits", 2.0, "t", bits=8.0),
    ])  # fmt: skip
    assert found == {
        "dense-0": None, "dense-1": None, "larger": None, "longer": None, "four-bits": None,
        "taught-0": pytest.approx(2.0), "taught-1": pytest.approx(2.2),
        "taught-2": pytest.approx(math.sqrt(2.0 * 2.2)), "taught-four-bits": pytest.approx(2.5),
        "begun": pytest.approx(2.0), "alone": None, "eight-bits": None,
    }  # fmt: skip


def test_of_several_rates_the_partner_has_the_best():
    rows = [row(f"dense-{lr}", loss, learning_rate=lr) for lr, loss in ((1e-3, 2.1), (2e-3, 2.0))]
    rows.append(row("taught", 1.9, "t", learning_rate=1e-3))
    assert dense_loss(rows)["taught"] == pytest.approx(2.0)


def test_a_table_that_has_the_column_keeps_its_own():
    rows = [row("dense", 2.0), row("taught", 1.9, "t", dense_loss=2.4)]
    runs = read_runs(rows)
    assert completed(LAW, runs) is runs and runs.columns["dense_loss"][1] == 2.4
    assert completed(LAWS["sparsity"], runs) is runs


def test_without_any_partner_one_line_says_what_would_give_it():
    rows = [row("longer", 2.0, tokens=2e6), row("taught", 1.9, "t")]
    with pytest.raises(UserError, match=r"needs the column dense_loss.*distillation_teacher=none"):
        completed(LAW, read_runs(rows))
    with pytest.raises(UserError, match="needs the column dense_loss"):
        completed(LAW, read_runs([{"params": 1e5, "tokens": 1e6, "loss": 2.0, "teacher_loss": 2}]))
