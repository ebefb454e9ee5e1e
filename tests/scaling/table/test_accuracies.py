"""Tasks by the names of columns, as tables of peers have them."""

import numpy as np
import pytest

from chinchilla_jax.scaling.table.accuracies import left_out, tasks
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, _ = grid([1e18, 1e19, 1e20], 5, 4.0)
LOSS = TRUE.loss(PARAMS, TOKENS)
SHARE = np.linspace(0.3, 0.8, len(PARAMS))


def found(**columns):
    columns = {name.replace("__", "/"): list(column) for name, column in columns.items()}
    runs = read_runs({"params": PARAMS, "tokens": TOKENS, "loss": LOSS, **columns})
    return {task.name: task for task in tasks(runs)}


@pytest.mark.parametrize(
    ("accuracy", "loss", "task"),
    [
        ("hellaswag_acc", "hellaswag_bpb", "hellaswag"),
        ("eval__downstream__piqa_val_rc_5shot_len_norm",
         "eval__downstream_bpb__piqa_val_rc_5shot_bpb", "piqa val rc 5shot"),
        ("arc_easy__acc_norm", "arc_easy__bits_per_byte", "arc easy"),
    ],
)  # fmt: skip
def test_an_accuracy_finds_the_loss_of_its_task(accuracy, loss, task):
    task = found(**{accuracy: SHARE, loss: 2 - SHARE})[task]
    assert task.loss == loss.replace("__", "/") and not task.error
    np.testing.assert_array_equal(task.accuracy_R, SHARE)
    assert task.chance == (0.5 if "piqa" in task.name else 0.25)


def test_normalised_accuracy_comes_first_and_errors_of_errors_are_none():
    columns = {"piqa/acc": SHARE / 2, "piqa/acc_norm": SHARE, "piqa/acc_stderr": SHARE / 10,
               "grad_error_std": SHARE}  # fmt: skip
    assert {name: task.accuracy for name, task in found(**columns).items()} == {
        "piqa": "piqa/acc_norm"
    }


def test_errors_and_percent_become_shares_that_are_right():
    tasks_found = found(err_17=1 - SHARE, mmlu_accuracy=100 * SHARE)
    np.testing.assert_allclose(tasks_found["err_17"].accuracy_R, SHARE)
    assert tasks_found["err_17"].error and tasks_found["err_17"].loss is None
    np.testing.assert_allclose(tasks_found["mmlu"].accuracy_R, SHARE)
    assert not found(core_score=SHARE - 0.5)


def test_cells_with_a_percent_sign_are_shares():
    rows = {"params": PARAMS, "tokens": TOKENS, "loss": LOSS}
    runs = read_runs(rows | {"piqa_acc": [f"{100 * x:.2f} %" for x in SHARE]})
    (task,) = tasks(runs)
    np.testing.assert_allclose(task.accuracy_R, SHARE, atol=1e-4)
    assert "percent are read as shares of 1: piqa_acc" in runs.notes


def test_what_is_no_share_is_told():
    rows = {"params": PARAMS, "tokens": TOKENS, "loss": LOSS}
    assert not left_out(read_runs(rows | {"piqa_acc": SHARE, "piqa_acc_stderr": SHARE - 0.5}))
    (said,) = left_out(read_runs(rows | {"core_score": SHARE - 0.5, "piqa_acc": 500 * SHARE}))
    assert "'core_score' (-0.2 to 0.3), 'piqa_acc' (150 to 400)" in said


def test_a_table_of_losses_has_no_tasks():
    assert not found(eval_loss=LOSS, train_loss=LOSS, tokens_per_second=1e4 * SHARE)
