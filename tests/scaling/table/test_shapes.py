"""Files of other programs, made up after real ones, are read with no flag and told by name."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table import folders
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.shapes import SHAPES, run_of
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, BUDGET = grid([1e18, 1e19, 1e20], 6, 4.0)
LOSS = TRUE.loss(PARAMS, TOKENS)


def write_csv(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def said(runs, name):
    return [note for note in runs.notes if note.startswith(f"read as {name}: ")]


def test_nanochat(tmp_path):
    """Spent is the budget; what its own analysis counts is one of our conventions."""
    fixed = dict.fromkeys(("depth", "model_dim", "num_iterations"), range(8, 26))
    path = write_csv(tmp_path / "results.csv", {
        "flops_budget": BUDGET, **fixed,
        "params_wte": 0.25 * PARAMS, "params_value_embeds": 0.5 * PARAMS,
        "params_lm_head": 0.25 * PARAMS, "params_transformer": 0.75 * PARAMS,
        "params_scalars": [16] * 18, "params_total": 1.75 * PARAMS,
        "tokens_trained": TOKENS, "val_bpb": LOSS, "core_score": [0.2] * 18,
    })  # fmt: skip
    runs = read_runs(path)
    np.testing.assert_array_equal(runs.flops, BUDGET)
    np.testing.assert_allclose(runs.params, 1.75 * PARAMS)
    np.testing.assert_allclose(runs.columns["params_matmul"], PARAMS)
    np.testing.assert_allclose(runs.columns["params_embedding"], 0.75 * PARAMS)
    assert len(said(runs, "nanochat's results.csv")) == 1
    assert "loss is 'val_bpb'" in said(runs, "nanochat's results.csv")[0]
    assert runs.names("condition") == []


def marin(i):
    return {
        "parameter_count": int(PARAMS[i]), "throughput/total_tokens": TOKENS[i],
        "throughput/total_gflops": BUDGET[i] / 1e9, "eval/paloma/macro_loss": LOSS[i],
        "train/loss": 0.9 * LOSS[i],
    }  # fmt: skip


def test_runs_of_marin_as_a_table(tmp_path):
    rows = [marin(i) | {"Name": f"iso-{i}", "optimizer.learning_rate": 1e-3} for i in range(18)]
    path = write_csv(tmp_path / "isoflop.csv", {k: [row[k] for row in rows] for k in rows[0]})
    runs = read_runs(path)
    np.testing.assert_allclose(runs.flops, BUDGET)
    np.testing.assert_array_equal(runs.loss, LOSS)
    assert "flops is 1e+09 x 'throughput/total_gflops'" in said(runs, "runs of marin")[0]
    assert runs.run_id_R[3] == "iso-3"


@pytest.mark.parametrize("one_file", [True, False])
def test_tracker_metrics_of_marin(tmp_path, one_file):
    """All in a file, or each in the folder of its run."""
    for i in range(18):
        record = {"config": {"optimizer": {"learning_rate": 3e-3}}, "summary": marin(i)}
        place = tmp_path if one_file else tmp_path / f"iso-{i:02}" / "out"
        place.mkdir(exist_ok=True, parents=True)
        with (place / "tracker_metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    runs = read_runs(tmp_path / "tracker_metrics.jsonl" if one_file else tmp_path)
    np.testing.assert_allclose(np.sort(runs.flops), np.sort(BUDGET))
    np.testing.assert_array_equal(runs.loss, LOSS)
    assert "loss is 'summary.eval/paloma/macro_loss'" in said(runs, "runs of marin")[0]
    if not one_file:
        assert runs.run_id_R[3] == "iso-03/out"


def ladder(folder, size, times, params):
    tokens = times * 20.0 * params
    step = np.arange(1, 11) * 100
    columns = {
        "_step": step,
        "eval/c4_en-validation/CrossEntropyLoss": TRUE.loss(params, tokens * step / 1000),
        "eval/pile-validation/CrossEntropyLoss": [3.0] * 10,
        "eval/downstream/piqa_val_rc_5shot_len_norm": [0.6] * 10,
        "throughput/total_tokens": tokens * step / 1000,
        "throughput/total_training_Gflops": 7e-9 * params * tokens * step / 1000,
        "learning_rate_peak": [1e-3] * 10,
    }
    return write_csv(folder / f"{size}-{times}xC.csv", columns)


def test_a_folder_of_the_olmo_ladder(tmp_path):
    sizes = {"190M": 190354176, "1B": 1279395840}
    for size, params in sizes.items():
        for times in (1, 2, 5):
            ladder(tmp_path, size, times, params)
    (tmp_path / "notes.json").write_text('{"a": {"b": 1}}')
    runs = read_runs(tmp_path)
    assert len(runs) == 6 and len(runs.curves) == 6
    assert dict(zip(runs.run_id_R, runs.params, strict=True))["1B-5xC"] == 1279395840
    np.testing.assert_allclose(runs.flops, 7 * runs.params * runs.tokens)
    np.testing.assert_allclose(runs.loss, TRUE.loss(runs.params, runs.tokens))
    assert "6 files are a run each; 1 others are not ('notes.json' first)" in runs.notes
    assert len(said(runs, "runs of the OLMo ladder")) == 1
    alone = read_runs(tmp_path / "190M-2xC.csv")
    assert alone.run_id_R == ("190M-2xC",) and alone.params[0] == 190354176


def trainer_state(params, tokens, counted=True, steps=100):
    """Logs training every 10 steps and evaluates every 50."""
    history = []
    for step in range(10, steps + 1, 10):
        loss = float(TRUE.loss(params, tokens * step / steps))
        history.append({"step": step, "epoch": 1.0, "loss": 0.9 * loss, "learning_rate": 1e-3})
        if step % 50 == 0:
            history.append({"step": step, "epoch": 1.0, "eval_loss": loss, "eval_runtime": 3.0})
    return {
        "global_step": steps, "log_history": history, "total_flos": 6 * params * tokens,
        "num_input_tokens_seen": int(tokens) if counted else 0, "stateful_callbacks": {},
    }  # fmt: skip


def test_trainer_states_of_hugging_face(tmp_path):
    """Of a run's checkpoints the longest log counts; the held-out loss, though it is rarer."""
    for i in range(6):
        for steps in (100, 200):
            place = tmp_path / f"run-{i}" / f"checkpoint-{steps}"
            place.mkdir(parents=True)
            state = trainer_state(PARAMS[i], TOKENS[i] * steps / 200, steps=steps)
            (place / "trainer_state.json").write_text(json.dumps(state))
    runs = read_runs(tmp_path)
    assert runs.run_id_R == tuple(f"run-{i}" for i in range(6))
    np.testing.assert_allclose(runs.params, PARAMS[:6], rtol=1e-6)
    np.testing.assert_allclose(runs.tokens, TOKENS[:6], rtol=1e-6)
    np.testing.assert_allclose(runs.loss, LOSS[:6], rtol=1e-6)
    text = said(runs, "trainer_state.json of Hugging Face")[0]
    assert "loss is 'eval_loss'" in text and "outside the embedding" in text


def test_a_trainer_state_that_counts_no_tokens(tmp_path):
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(trainer_state(PARAMS[0], TOKENS[0], counted=False)))
    with pytest.raises(UserError, match="include_num_input_tokens_seen=True") as error:
        read_runs(path)
    assert "tokens=num_input_tokens_seen?" not in str(error.value)


def test_a_table_of_wandb(tmp_path):
    columns = {
        "Name": [f"r{i}" for i in range(18)], "State": ["finished"] * 17 + ["crashed"],
        "Notes": ["-"] * 18, "Created": ["2026-05-29T08:53:32.000Z"] * 18, "n_params": PARAMS,
        "train_tokens": TOKENS, "eval/loss": LOSS,
    }  # fmt: skip
    runs = read_runs(write_csv(tmp_path / "export.csv", columns))
    assert len(runs) == 17 and runs.aside[0].status == "crashed"
    assert said(runs, "a table of W&B's runs")
    del columns["n_params"], columns["train_tokens"], columns["eval/loss"]
    with pytest.raises(UserError, match="in W&B's table of runs show the columns"):
        read_runs(write_csv(tmp_path / "export.csv", columns))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("Step", "r0 - train/loss", "r0 - train/loss__MIN", "r0 - train/loss__MAX"),
         "download the table of runs"),
        (("Wall time", "Step", "Value"), "a row per step with a column run_id"),
    ],
)  # fmt: skip
def test_an_export_that_is_no_table_says_how_to_get_one(tmp_path, columns, says):
    path = write_csv(tmp_path / "x.csv", {name: range(1, 9) for name in columns})
    for source in (path, tmp_path):
        with pytest.raises(UserError, match=says) as error:
            read_runs(source)
        assert "\n" not in str(error.value)


def lm_eval(path, accuracy, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "results": {"piqa": {"alias": "piqa", "acc,none": accuracy, "acc_stderr,none": 0.01}},
        "configs": {}, "n-shot": {"piqa": 0}, "config": {"model_num_parameters": 123456789},
        **more,
    }))  # fmt: skip
    return path


def test_results_of_lm_eval_alone(tmp_path):
    path = lm_eval(tmp_path / "results_2026-01-01T00-00-00.json", 0.7)
    for source in (path, tmp_path):
        with pytest.raises(UserError, match=r"no table of runs: .* no tokens and no loss"):
            read_runs(source)


def test_results_of_lm_eval_beside_a_table(tmp_path):
    """By the model's name, or by the folder; what is of no run is said."""
    columns = {"name": [f"r{i}" for i in range(18)], "N": PARAMS, "D": TOKENS, "loss": LOSS}
    path = write_csv(tmp_path / "runs.csv", columns)
    evals = tmp_path / "evals"
    stamp = "results_2026-01-01T00-00-00.json"
    for i in range(9):
        lm_eval(evals / f"r{i}" / stamp, 0.5 + i / 100)
    for i in range(9, 17):
        lm_eval(evals / "x" / f"results_2026-01-{i:02}.json", 0.5 + i / 100, model_name=f"org/r{i}")
    lm_eval(evals / "other" / stamp, 0.9)
    runs = read_runs(f"{path},{evals}")
    np.testing.assert_allclose(runs.columns["piqa/acc"][:17], 0.5 + np.arange(17) / 100)
    assert np.isnan(runs.columns["piqa/acc"][17])
    text = next(note for note in runs.notes if "joined" in note)
    assert text.startswith("17 results") and "1 are of no run of the table ('other' first)" in text
    alone = lm_eval(tmp_path / "other" / stamp, 0.9)
    with pytest.raises(UserError, match="they are of other, its runs are r0, r1, r2"):
        read_runs(f"{path},{alone}")
    with pytest.raises(UserError, match="has no results of lm-eval"):
        read_runs(f"{path},{path}")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "results.csv").write_text("run_id,params,tokens,loss\n")
    with pytest.raises(
        UserError, match=rf"sweep: is a sweep's .*--compare={path},{tmp_path}/sweep$"
    ):
        read_runs(f"{path},{tmp_path}/sweep")


def test_what_a_person_names_comes_before_a_shape(tmp_path):
    rows = [marin(i) | {"bpb": 0.3 * LOSS[i]} for i in range(18)]
    path = write_csv(tmp_path / "isoflop.csv", {k: [row[k] for row in rows] for k in rows[0]})
    runs = read_runs(path, {"loss": "bpb", "flops": "2e9*throughput/total_gflops"})
    np.testing.assert_allclose(runs.loss, 0.3 * LOSS)
    np.testing.assert_allclose(runs.flops, 2 * BUDGET)
    assert "loss" not in said(runs, "runs of marin")[0]


def test_a_folder_without_runs(tmp_path):
    (tmp_path / "a.csv").write_text("params,tokens,loss\n1e6,1e7,3\n1e6,2e7,2.9\n")
    with pytest.raises(UserError, match=r"neither a sweep's .* nor one with a file per run"):
        read_runs(tmp_path)


def test_a_folder_of_very_many_files_tells_what_it_has_and_how_far_it_is(
    tmp_path, monkeypatch, capsys
):
    for name in ("1.json", "2.json", "3.JSON", "4.csv", "5.png"):
        (tmp_path / name).write_text('{"a": 1}')
    monkeypatch.setattr(folders, "_PATIENCE", 1e9)
    with pytest.raises(UserError, match=r"none of 4 files is one \(3 \.json, 1 \.csv\); "):
        read_runs(tmp_path)
    assert not capsys.readouterr().err
    for pause in ("_PATIENCE", "_PAUSE"):
        monkeypatch.setattr(folders, pause, -1.0)
    with pytest.raises(UserError):
        read_runs(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[4] == f"{tmp_path}: 4 files so far"
    assert lines[-1] == f"{tmp_path}: read 3 of 4 files (3 .json, 1 .csv)"


@pytest.mark.parametrize(
    ("path", "run"),
    [("a/190M-1xC.csv", "190M-1xC"), ("a/b/trainer_state.json", "b"),
     ("a/b/checkpoint-500/trainer_state.json", "b"), ("trainer_state.json", "trainer_state"),
     ("m/org__name/results_2026-01-01T00-00-00.123.json", "org__name")],
)  # fmt: skip
def test_the_run_that_a_file_is_of(path, run):
    assert run_of(Path(path)) == run


def test_every_shape_is_said_in_one_line():
    for shape in SHAPES:
        assert shape.columns or shape.instead
        names = [n.rpartition("*")[2] for group in shape.columns.values() for n in group]
        assert shape.found(names).keys() == shape.columns.keys()
        assert "\n" not in shape.told(shape.found(names))
