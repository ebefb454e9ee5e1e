"""Runs on a capped and noisy text: the same held-out text, on every mesh, resumed to the bit."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.data import Data
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.techniques import corpus_of
from tests.training.helpers import small_run
from tests.training.test_loop import curve, numbers, train_with_interruptions

ALONE = {"data_parallel": 1, "steps_per_dispatch": 2}
MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}


def on(run, **config):
    return dataclasses.replace(run, techniques=Techniques(data=Data(**config)))


def test_a_run_repeats_what_is_left_and_is_measured_on_the_same_windows(text_corpus, tmp_path):
    plain = small_run(steps=8, training=ALONE)
    run = on(plain, unique_tokens=160, noise=0.5)
    kept = corpus_of(run, text_corpus)
    np.testing.assert_array_equal(
        kept.validation_windows(16, 16)[0], text_corpus.validation_windows(16, 16)[0]
    )
    windows = kept.examples(0, np.arange(20), 16)
    assert len({*map(bytes, windows)}) == 10 and (windows.max(axis=1) > 128).sum() == 10
    rows = [
        train(r, text_corpus, RunDirectory(tmp_path / f"{i}")) for i, r in enumerate((plain, run))
    ]
    assert [row["unique_tokens"] for row in rows] == [8 * 8 * 16, 160]
    assert rows[0]["data_fingerprint"] == rows[1]["data_fingerprint"]
    assert (rows[1]["data_unique_tokens"], rows[1]["data_noise"]) == (160, 0.5)
    assert rows[0]["loss"] < rows[1]["loss"]
    assert "data_noise" not in rows[0]


def test_it_is_the_same_on_eight_devices_and_resumed_to_the_bit(text_corpus, tmp_path):
    run = on(small_run(steps=12, training=MESH), unique_tokens=320, noise=0.25)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    row = train(run, text_corpus, whole)
    again = train_with_interruptions(run, text_corpus, broken, (4, 8))
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    alone = dataclasses.replace(run, execution=small_run(training=ALONE).execution)
    one = train(alone, text_corpus, RunDirectory(tmp_path / "one"))
    assert one["loss"] == pytest.approx(row["loss"], rel=1e-5)


def test_a_filtered_text_is_the_same_on_any_mesh_and_no_other_is_continued(text_corpus, tmp_path):
    run = on(small_run(steps=4, training=ALONE), quality="random", keep=0.4)
    directory = RunDirectory(tmp_path / "run")
    row = train(run, text_corpus, directory)
    assert row["data_quality"] == "random"
    assert row["data_fingerprint"] == text_corpus.data_fingerprint
    mesh = dataclasses.replace(run, execution=small_run(training=MESH).execution)
    other = train(mesh, text_corpus, RunDirectory(tmp_path / "mesh"))
    assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)
    (directory.path / "result.json").unlink()
    for file in text_corpus.folder.parent.glob("selected-*/meta.json"):  # as of another selection
        file.write_text(file.read_text().replace('"selection": "', '"selection": "0'))
    with pytest.raises(UserError, match="the checkpoint has data = "):
        train(run, text_corpus, directory)


def test_another_text_is_not_continued(text_corpus, tmp_path):
    run, directory = on(small_run(steps=4, training=ALONE), noise=0.25), RunDirectory(tmp_path)
    train(run, text_corpus, directory)
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match="noise"):
        train(on(run, noise=0.5), text_corpus, directory)
