"""Quantisation without JAX: its levels, its bytes, what it is told by, or one line."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.scaling.table.derived import with_derived
from chinchilla_jax.scaling.table.kinds import _by_name
from chinchilla_jax.scaling.table.readers import Raw
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import (
    Quantisation,
    columns_after,
    gaussian_error,
    gaussian_step,
    levels,
)
from chinchilla_jax.techniques.sparsity import Sparsity
from tests.training.helpers import small_run

# Panferov et al. 2025 (arXiv 2506.01863) order formats by it; exact integrals.
GAUSSIAN = {
    1: (1.5958, 0.363380), 2: (0.9957, 0.118846), 3: (0.5860, 0.037440), 4: (0.3352, 0.011543),
    5: (0.1881, 0.003495), 6: (0.1041, 0.001040), 8: (0.0308, 0.000088),
}  # fmt: skip


def experiment(**changes):
    ladder = LadderConfig(widths=(16, 32), sizes_per_budget=(0,), min_tokens_per_param=0.1)
    return Experiment(name="t", budgets=(1e11,), ladder=ladder, **changes)


def on(config=None, **others):
    return Techniques(quantisation=config or Quantisation(), **others)


@pytest.mark.parametrize("bits", GAUSSIAN)
def test_steps_and_errors_on_a_normal_distribution(bits):
    step, error = GAUSSIAN[bits]
    assert gaussian_step(levels(bits)) == pytest.approx(step, abs=5.1e-5)
    assert gaussian_error(levels(bits), gaussian_step(levels(bits))) == pytest.approx(
        error, abs=5.1e-7
    )


def test_the_error_is_the_integral_and_the_step_its_minimum():
    x = np.linspace(-9, 9, 400_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    for n in (2, 3, 8):
        for step in (0.4, gaussian_step(n), 1.7):
            k = np.clip(np.floor(x / step + n / 2), 0, n - 1)
            squares = (x - step * (k - (n - 1) / 2)) ** 2 * density
            assert gaussian_error(n, step) == pytest.approx(np.trapezoid(squares, x), rel=1e-6)
        best = gaussian_error(n, gaussian_step(n))
        assert all(gaussian_error(n, gaussian_step(n) * f) > best for f in (0.99, 1.01))


@pytest.mark.parametrize(
    "values,message",
    [
        ({"bits": 0}, "bits = 0: expected 1 to 8, 1.58"),
        ({"bits": 17}, "bits = 17: expected"),
        ({"bits": 4.5}, "bits = 4.5: expected"),
        ({"bits": 4, "table_bits": -1}, "table_bits = -1: expected"),
        ({"after": (4, 32)}, r"after = 32: expected 1 to 8, 1.58 .* 16 \(bfloat16\)$"),
        ({"after": (4, 4)}, r"after = \(4, 4\): has one twice"),
        ({"bits": 4, "start": 1.0}, r"start = 1.0: must lie in \[0, 1\)"),
        ({"bits": 4, "start": -0.1}, r"start = -0.1: must lie in \[0, 1\)"),
        ({"bits": 4, "group": -8}, r"group = -8: must be 0 \(a channel\) or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(values, message):
    with pytest.raises(UserError, match=rf"^techniques\.quantisation\.{message}"):
        Quantisation(**values)


@pytest.mark.parametrize(
    "config", [Quantisation(bits=4, group=24), Quantisation(after=(4,), after_groups=(0, 24))]
)
def test_a_group_that_divides_no_matrix_is_refused_before_anything_is_planned(config):
    with pytest.raises(UserError, match=r"group = 24: does not divide the 16 inputs of embedding"):
        plan(experiment(techniques=on(config)))


def test_without_bits_a_run_is_the_dense_run_whatever_else_is_set():
    without = experiment(techniques=on(Quantisation(group=8, start=0.5, table_bits=4)))
    assert plan(without) == plan(experiment())
    vary = {"techniques.quantisation.bits": (32, 4), "techniques.quantisation.group": (0, 8)}
    cells = plan(experiment(vary=vary))
    assert [cell.status for cell in cells[:4]] == ["planned", "rejected", "planned", "planned"]
    assert cells[1].reason == f"is the same run as {cells[0].run.run_id}"
    assert cells[3].run.run_id.endswith("-b4-g8-s0")


def test_what_is_set_of_the_experiment_holds_for_the_bits_of_a_panel_and_of_what_varies():
    fields = {"group": 4, "start": 0.5, "table_bits": 4.0, "after": (3.0,)}
    base = on(Quantisation(**fields))
    bits = {"techniques.quantisation.bits": 4}
    for changes in (
        {"panel": {"few": Setting(values=bits)}},
        {"vary": {path: (32, value) for path, value in bits.items()}},
    ):
        runs = [cell.run for cell in plan(experiment(techniques=base, **changes))]
        found = {run.techniques.quantisation for run in runs}
        assert found == {Quantisation(bits=4.0, **fields), Quantisation(after=(3.0,))}


def test_what_is_measured_afterwards_changes_no_run():
    dense, measured = (
        plan(experiment(techniques=t))[0].run for t in (on(), on(Quantisation(after=(8, 4))))
    )
    assert fingerprint(measured) == fingerprint(dense)
    assert ledger(measured) == ledger(dense)
    assert "quantisation_after" not in row_of(measured)
    with pytest.raises(UserError, match="after decides no number of a run"):
        experiment(vary={"techniques.quantisation.after": ((8,), (4,))})


def test_a_run_of_few_bits_is_not_measured_at_others():
    assert not list(Quantisation(bits=4, after=(8, 2)).measured())
    found = list(Quantisation(after=(16, 8, 2), after_groups=(0, 32)).measured())
    assert [(m.bits, m.table_bits, m.group) for m in found] == [
        (16, 16, 0), (8, 8, 0), (8, 8, 32), (2, 8, 0), (2, 8, 32),
    ]  # fmt: skip


def bytes_of(config, **others):
    run = dataclasses.replace(small_run(), techniques=on(config, **others))
    return {w.name: w.bytes_at_rest for w in ledger(run).weights}


def test_bytes_at_rest_are_packed_codes_and_their_scales():
    """Width 32, 2 layers, 8 heads of 4, feed-forward 64, 256 tokens; scales of two bytes."""
    found = bytes_of(Quantisation(bits=3))
    assert found["query"] == 2 * 32 * 32 * 3 // 8 + 2 * 2 * 32
    assert found["down"] == 2 * 64 * 32 * 3 // 8 + 2 * 2 * 32  # a scale for each output
    assert found["up"] == 2 * 64 * 32 * 3 // 8 + 2 * 2 * 64
    assert found["embedding"] == found["readout"] == 256 * 32 + 2 * 256
    assert found["scale"] == 4 * 5 * 32
    by_group = bytes_of(Quantisation(bits=3, group=8))
    assert by_group["down"] == 2 * 64 * 32 * 3 // 8 + 2 * 2 * 32 * 8
    assert by_group["out"] == 2 * 32 * 32 * 3 // 8 + 2 * 2 * 32 * 4
    ternary = bytes_of(Quantisation(bits=1.58, table_bits=32))
    assert ternary["query"] == 410 + 2 * 2 * 32  # 2048 numbers, five to a byte
    assert ternary["embedding"] == 4 * 256 * 32
    assert bytes_of(Quantisation(bits=16, table_bits=16))["query"] == 2 * 2048


def test_bytes_of_sparse_weights_are_those_of_the_others_and_a_bitmap():
    sparse = {"sparsity": Sparsity(level=0.75)}
    assert bytes_of(Quantisation(bits=4), **sparse)["query"] == 512 // 2 + 2048 // 8 + 2 * 2 * 32
    assert bytes_of(Quantisation(bits=4), **sparse)["embedding"] == 256 * 32 + 2 * 256


def test_flops_are_those_of_the_dense_run():
    run = small_run()
    few = dataclasses.replace(run, techniques=on(Quantisation(bits=2)))
    assert ledger(few).training == ledger(run).training
    assert ledger(few).decode == ledger(run).decode
    assert row_of(few)["params_nonzero"] == row_of(run)["params_nonzero"]


def row(**more):
    base = {"run_id": "r", "loss": 2.0, "loss_se": 0.1, "bits_per_byte": 3.0, "bytes_at_rest": 999}
    return base | {"seed": 1, **techniques.dense_columns()} | more


def measured_columns():
    found = {}
    for number, config in enumerate(Quantisation(after=(4, 1.58), after_groups=(0, 8)).measured()):
        loss = 2.1 + number / 10
        found |= columns_after(
            config,
            {"loss": loss, "loss_se": 0.2, "bits_per_byte": 3.1, "bytes_at_rest": 100 + number},
        )
    return found


def test_a_measured_run_stands_for_a_row_at_every_width():
    found = techniques.derived([row(), row(**measured_columns())])
    assert [r["run_id"] for r in found] == ["r-b4", "r-b4g8", "r-b1.58", "r-b1.58g8"]
    last = found[-1]
    assert (last["quantisation_bits"], last["quantisation_group"]) == (1.58, 8)
    assert (last["quantisation_start"], last["quantisation_table_bits"]) == (1.0, 8.0)
    assert (last["loss"], last["bytes_at_rest"], last["seed"]) == (2.4, 103, 1)
    assert last["excess_loss"] == pytest.approx(0.4)
    assert not any("_after_" in name for name in last)
    assert set(last) == {*row(), "excess_loss"}


def test_a_measurement_that_is_missing_is_no_row():
    empty = dict.fromkeys(measured_columns())
    assert techniques.derived([row(**empty), row(**dict.fromkeys(empty, ""))]) == []
    as_text = {name: str(value) for name, value in row(**measured_columns()).items()}
    assert techniques.derived([as_text])[0]["excess_loss"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "column,value,message",
    [
        ("loss_after_b4", "2.x", r"'loss_after_b4': '2.x' is not a number"),
        ("loss_after_b4", [2], r"'loss_after_b4': \[2\] is not a number"),
        ("loss_after_b...", 2.1, r"'loss_after_b...': there are no ... bits; one of 1, 1.58, 2"),
        ("loss_after_b9", 2.1, r"'loss_after_b9': there are no 9 bits"),
        ("loss_after_b32", 2.1, r"'loss_after_b32': there are no 32 bits"),
    ],
)
def test_a_damaged_measurement_is_one_line_with_its_row(column, value, message):
    columns = {name: [cell, cell] for name, cell in row().items()} | {column: [None, value]}
    with pytest.raises(UserError, match=rf"^runs.csv, row 3, column {message}"):
        with_derived(Raw("runs.csv", columns, [2, 3]))
    with_derived(Raw("runs.csv", columns | {column: [None, ""]}, [2, 3]))


def test_measurements_make_no_condition():
    labels = np.array(["1", "2"])
    for name in (*measured_columns(), "excess_loss"):
        assert _by_name(name, labels).kind in ("outcome", "amount"), name
