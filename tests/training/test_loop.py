"""A run from its beginning to its result, however often it is interrupted."""

import contextlib
import dataclasses
import json
import random
import shutil
import types

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.training import checkpoints, loop
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.loop import Interrupted, train
from tests.training.helpers import small_run, with_training

TIMES = {"wall_seconds", "tokens_per_second", "input_share", "joules_cpu", "joules_memory"}


def numbers(row):
    return {key: value for key, value in row.items() if key not in TIMES}


def curve(directory):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")}
        for row in directory.metrics()
    ]


def train_with_interruptions(run, corpus, directory, steps):
    """Stops at each of `steps`, which a dispatch may overshoot."""
    for step in steps:
        seen = [0]
        with pytest.raises(Interrupted):
            train(
                run,
                corpus,
                directory,
                lambda seen=seen, step=step: seen[0] >= step - 2,
                lambda done, loss, seen=seen: seen.__setitem__(0, done),
            )
        assert directory.result() is None
        assert any(directory.checkpoints.iterdir())
    return train(run, corpus, directory)


@pytest.fixture(scope="module")
def mesh_run():
    return small_run(
        steps=30,
        training={"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2},
    )


@pytest.fixture(scope="module")
def uninterrupted(mesh_run, text_corpus, tmp_path_factory):
    directory = RunDirectory(tmp_path_factory.mktemp("whole"))
    return train(mesh_run, text_corpus, directory), curve(directory)


def test_the_result_is_complete_and_the_model_learned(mesh_run, uninterrupted, text_corpus):
    row, lines = uninterrupted
    assert row["status"] == "done"
    assert row["tokens"] == 30 * 8 * 16 == lines[-1]["tokens"]
    assert row["flops"] == lines[-1]["flops"]
    # The start knows nothing: ln 256, and 1/2 for random logits of variance 1.
    assert lines[0]["loss"] == pytest.approx(5.545 + 0.5, abs=0.2)
    assert row["loss"] < 4.5 and row["loss_se"] > 0
    assert row["mfu"] is None and row["device_count"] == 8
    assert row["data_fingerprint"] == text_corpus.data_fingerprint
    assert (row["text_left_out"], row["metrics_lost"]) == ("nothing", 0)
    assert [line["step"] for line in lines] == list(range(1, 31))


def test_interrupted_anywhere_it_ends_bit_identical(mesh_run, uninterrupted, text_corpus, tmp_path):
    random.seed(1)
    steps = sorted(random.sample(range(4, 28, 4), 3))
    directory = RunDirectory(tmp_path)
    row = train_with_interruptions(mesh_run, text_corpus, directory, steps)
    assert numbers(row) == numbers(uninterrupted[0])
    assert curve(directory) == uninterrupted[1]


def test_lines_of_metrics_that_were_lost_are_in_the_result(text_corpus, tmp_path):
    run = small_run(8, training={"data_parallel": 1, "steps_per_dispatch": 2})
    directory, steps = RunDirectory(tmp_path), []
    with pytest.raises(Interrupted):
        train(run, text_corpus, directory, lambda: len(steps) > 1, lambda *a: steps.append(a))
    first, _, *rest = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([first, "\0\0\n", *rest]))
    row = train(run, text_corpus, directory)
    assert row["metrics_lost"] == 1
    assert [line["step"] for line in directory.metrics()] == [1, *range(3, 9)]


@pytest.mark.slow
def test_killed_while_it_saves_asynchronously_it_ends_bit_identical(
    mesh_run, uninterrupted, text_corpus, tmp_path
):
    """What a kill would leave is what lies on the disk at a moment when a save has just begun."""
    run = with_training(mesh_run, checkpoint_seconds=1e-6, async_checkpoints="on")
    directory, left = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "left")
    copies = iter([False] * 5 + [True])

    def copy_and_stop():
        if stop := next(copies):
            with contextlib.suppress(shutil.Error):  # of files renamed under our hands
                shutil.copytree(directory.path, left.path)
        return stop

    with pytest.raises(Interrupted):
        train(run, text_corpus, directory, copy_and_stop)
    assert any(left.checkpoints.iterdir())
    for place in (directory, left):
        row = train(run, text_corpus, place)
        assert numbers(row) == numbers(uninterrupted[0])
        assert curve(place) == uninterrupted[1]


def test_on_another_mesh_it_continues_within_tolerance(
    mesh_run, uninterrupted, text_corpus, tmp_path
):
    directory = RunDirectory(tmp_path)
    with pytest.raises(Interrupted):
        train(mesh_run, text_corpus, directory, lambda: True)
    other = with_training(mesh_run, data_parallel=1, fsdp=4, tensor=1)
    row = train(other, text_corpus, directory)
    assert row["device_count"] == 4
    assert row["loss"] == pytest.approx(uninterrupted[0]["loss"], rel=1e-5)


def test_a_run_that_is_over_is_not_run_again(mesh_run, text_corpus, tmp_path):
    directory = RunDirectory(tmp_path)
    directory.finish(mesh_run, "done", "", {"loss": 1.25})
    assert train(mesh_run, text_corpus, directory)["loss"] == 1.25
    assert not directory.checkpoints.exists()


def test_another_horizon_is_refused(mesh_run, text_corpus, tmp_path):
    directory = RunDirectory(tmp_path)
    with pytest.raises(Interrupted):
        train(mesh_run, text_corpus, directory, lambda: True)
    with pytest.raises(UserError, match="steps was 30, now 40"):
        train(dataclasses.replace(mesh_run, steps=40), text_corpus, directory)


def test_other_data_is_refused(mesh_run, text_corpus, tmp_path):
    directory = RunDirectory(tmp_path)
    with pytest.raises(Interrupted):
        train(mesh_run, text_corpus, directory, lambda: True)
    meta = dataclasses.replace(text_corpus.meta, data_fingerprint="another")
    with pytest.raises(UserError, match=f"{text_corpus.data_fingerprint}.*another"):
        train(mesh_run, dataclasses.replace(text_corpus, meta=meta), directory)


def test_a_checkpoint_of_another_version_of_the_model_is_refused(
    mesh_run, text_corpus, tmp_path, monkeypatch
):
    directory = RunDirectory(tmp_path)
    with pytest.raises(Interrupted):
        train(mesh_run, text_corpus, directory, lambda: True)
    monkeypatch.setattr(checkpoints, "MODEL_VERSION", MODEL_VERSION + 1)
    with pytest.raises(UserError, match=f"model_version = {MODEL_VERSION}, this run"):
        train(mesh_run, text_corpus, directory)


def test_divergence_ends_the_run_as_diverged(text_corpus, tmp_path):
    wild = small_run(steps=60, rate=1e3, training={"data_parallel": 1, "steps_per_dispatch": 7})
    directory = RunDirectory(tmp_path)
    row = train(wild, text_corpus, directory)
    assert row["status"] == "diverged" and row["loss"] is None
    assert "at step" in row["reason"]
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "diverged"
    again = with_training(wild, steps_per_dispatch=1)
    assert train(again, text_corpus, RunDirectory(tmp_path / "b"))["reason"] == row["reason"]


def test_too_few_validation_windows_are_an_error_before_training(text_corpus, tmp_path):
    run = small_run(training={"data_parallel": 1, "eval_windows": 10**6})
    with pytest.raises(UserError, match="eval_windows"):
        train(run, text_corpus, RunDirectory(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_vocabulary_smaller_than_that_of_the_text_is_refused(text_corpus, tmp_path):
    message = r"model\.vocab_size = 200: the tokens of its text are of 256 kinds"
    with pytest.raises(UserError, match=message):
        train(small_run(model={"vocab_size": 200}), text_corpus, RunDirectory(tmp_path))
    assert not list(tmp_path.iterdir())


def test_speed_is_not_counted_while_compiling(mesh_run, uninterrupted):
    row = uninterrupted[0]
    assert row["tokens_per_second"] > row["tokens"] / row["wall_seconds"]


def test_tensorboard_gets_the_scalars_of_metrics(text_corpus, tmp_path):
    run = small_run(steps=3, training={"data_parallel": 1, "tensorboard": True})
    train(run, text_corpus, RunDirectory(tmp_path))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert content.count(b"grad_norm") == 3 and b"learning_rate" in content


@pytest.mark.parametrize("idle,share", [(True, 0.75), (False, 0.0)])
def test_time_that_an_idle_device_waits_for_input_is_counted(
    idle, share, text_corpus, tmp_path, monkeypatch
):
    """By a clock of ours: gathering a batch takes three seconds, a step one."""
    clock = [0.0]

    class Slow:
        def __getattr__(self, name):
            return getattr(text_corpus, name)

        def examples(self, *arguments):
            clock[0] += 3
            return text_corpus.examples(*arguments)

    class Metric:
        def __init__(self, value):
            self.value = np.asarray(value)

        def is_ready(self):
            return idle

        def __array__(self, *_, **__):
            return self.value

    run = small_run(
        steps=20,
        training={"data_parallel": 1, "steps_per_dispatch": 1, "checkpoint_seconds": 1e9},
    )
    program = compiled_for(run)

    def step(*arguments):
        clock[0] += 1
        state, metrics = program.train(*arguments)
        return state, {name: Metric(value) for name, value in metrics.items()}

    stand_in = types.SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr(loop, "time", stand_in)
    monkeypatch.setattr(loop, "compiled_for", lambda _: dataclasses.replace(program, train=step))
    row = train(run, Slow(), RunDirectory(tmp_path))
    assert row["input_share"] == pytest.approx(share, abs=0.05)
