"""Runs on corpora mixed by weight: resumed to the bit, and not continued on another mixture."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training.checkpoints import meta
from chinchilla_jax.training.loop import train
from tests.conftest import write_sentences
from tests.training.helpers import small_run
from tests.training.test_loop import curve, numbers, train_with_interruptions

MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}


@pytest.fixture
def mixed(tmp_path):
    """(the run, its corpus) of a mixture with the weights given."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
    write_sentences(first)
    for number in range(30):
        (second / f"{number}.txt").write_text(f"{number} QUITE ANOTHER TEXT. " * 9)

    def made(*weights):
        data = DataConfig(builder="local_text", path=str(first), validation_fraction=0.2,
                          mixed_with=(str(second),), weights=weights)  # fmt: skip
        run = dataclasses.replace(small_run(steps=12, training=MESH), data=data)
        return run, open_corpus(data, tmp_path / "cache")

    return made


def test_it_is_resumed_to_the_bit_and_counts_what_it_saw(mixed, tmp_path):
    run, corpus = mixed(3.0, 1.0)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    row = train(run, corpus, whole)
    again = train_with_interruptions(run, corpus, broken, (4, 8))
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    assert row["unique_tokens"] == run.tokens
    assert row["held_out_in_training"] == corpus.held_out_in_training
    assert row["data_weights"] == [3.0, 1.0] and "+" in row["data_fingerprint"]
    seen = corpus.examples(run.seed, np.arange(run.steps * run.batch_size), 16)
    other = np.isin(seen, np.frombuffer(b"QUITE", np.uint8)).any(axis=1)
    assert other.sum() == run.steps * run.batch_size // 4


def test_another_mixture_is_not_continued(mixed, tmp_path):
    run, corpus = mixed(3.0, 1.0)
    directory = RunDirectory(tmp_path / "run")
    train(run, corpus, directory)
    (directory.path / "result.json").unlink()
    with pytest.raises(UserError, match="weights"):
        train(*mixed(2.0, 1.0), directory)
    facts = [meta(*mixed(*weights)) for weights in ((3.0, 1.0), (2.0, 1.0))]
    assert facts[0]["data"] == facts[1]["data"]
    assert facts[0]["fingerprint"] != facts[1]["fingerprint"]
