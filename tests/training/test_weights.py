"""A finished run as others take it, whatever it was trained on and with."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.models.module import path_name
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.training import weights
from chinchilla_jax.training.loop import train
from tests.training.helpers import small_run


@pytest.fixture(scope="module")
def finished(text_corpus, tmp_path_factory):
    """Of four bits from its last quarter on, under a scan, on a mesh of two devices."""
    run = small_run(steps=4, training={"layers": "scan", "data_parallel": 1, "tensor": 2})
    few = Quantisation(bits=4, start=0.75)
    run = dataclasses.replace(run, techniques=Techniques(quantisation=few))
    directory = RunDirectory(tmp_path_factory.mktemp("work") / "runs" / "small")
    result = train(run, text_corpus, directory)
    return directory.path, result


def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "runs" / "small")


def test_a_run_is_read_as_it_was_trained(finished, text_corpus):
    folder, result = finished
    trained = weights.read(folder)
    assert trained.run.run_id == "small" and trained.tokenizer.name == "bytes"
    assert trained.tokenizer.fingerprint == result["tokenizer_fingerprint"]
    assert {w.dtype for w in jax.tree.leaves(trained.params)} == {np.dtype(np.float32)}
    assert trained.carried["quantisation"]["step"] == 4
    windows, _ = text_corpus.validation_windows(16, 16)
    method = weights.method(trained.run, weights.decoder_of(trained.run))

    @jax.jit
    def total(used):
        inputs, _ = method.forward(used, trained.carried, windows)
        return method.loss(inputs, trained.carried, windows)[0]

    loss = float(total(weights.as_multiplied(trained))) / windows[:, 1:].size
    assert loss == pytest.approx(result["loss"], rel=1e-5)


def test_weights_of_few_bits_are_of_few_values(finished):
    trained = weights.read(finished[0])
    stored, used = (
        {path_name(path): np.asarray(w) for path, w in jax.tree.leaves_with_path(tree)}
        for tree in (trained.params, weights.as_multiplied(trained))
    )
    assert stored.keys() == used.keys()
    column = "layers_1/feed_forward/up"
    assert len(np.unique(used[column][:, 0])) <= 16 < len(np.unique(stored[column][:, 0]))
    assert np.array_equal(
        stored["layers_0/attention_norm/scale"], used["layers_0/attention_norm/scale"]
    )


@pytest.mark.parametrize("damage,told", [
    (lambda f: shutil.rmtree(f), "there is no run"),
    (lambda f: (f / "result.json").unlink(), "is not finished"),
    (lambda f: shutil.rmtree(f / "checkpoints" / "4"), "no checkpoint of its end, step 4"),
    (lambda f: (f / "checkpoints" / "4" / "record.json").unlink(), "is damaged: it has no record"),
    (lambda f: flip(next((f / "checkpoints" / "4").rglob("d/*"))), "is damaged: the file"),
    (lambda f: edit(f / "config.json", seed=1), "config.json is not that of its checkpoint"),
    (lambda f: edit(f / "result.json", status="diverged", reason="why"), "has diverged: why"),
])  # fmt: skip
def test_what_is_no_finished_run_is_refused(finished, tmp_path, damage, told):
    folder = copied(finished, tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=told):
        weights.finished(folder)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
