"""A finished run exported by the program: what is written, what is refused."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from chinchilla_jax.experiment import exported
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.training import techniques
from chinchilla_jax.training.loop import train
from tests.command import call
from tests.formats import qwen3
from tests.training.helpers import small_run


@pytest.fixture(scope="module")
def finished(text_corpus, tmp_path_factory):
    """The folder and the row of a run whose products are of bfloat16 values."""
    training = {"data_parallel": 1, "layers": "scan", "eval_windows": 4}
    run = small_run(steps=2, model={"kv_heads": 2}, training=training)
    run = dataclasses.replace(run, techniques=Techniques(quantisation=Quantisation(bits=16.0)))
    directory = RunDirectory(tmp_path_factory.mktemp("work") / "runs" / "small")
    return directory.path, train(run, text_corpus, directory)


def test_the_folder_predicts_what_the_run_did(finished, text_corpus, tmp_path):
    """Its loss, by a forward pass from the folder alone."""
    folder, row = finished
    done = call("export", f"--run={folder}", f"--to={tmp_path / 'out'}")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "exported small, " in done.stdout and " in float32: " in done.stdout
    windows, _ = text_corpus.validation_windows(4, 16)
    nats = []
    for window in windows:
        logits = qwen3.logits(tmp_path / "out", window[:-1])
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        nats.append(-logits[np.arange(16), window[1:]].mean())
    assert np.mean(nats) == pytest.approx(row["loss"], rel=1e-5)
    gate = qwen3.arrays(tmp_path / "out")["model.layers.1.mlp.gate_proj.weight"]
    assert np.array_equal(gate, gate.astype(ml_dtypes.bfloat16))
    of = exported.read(tmp_path / "out")
    assert (of.run, of.loss, of.data) == ("small", row["loss"], row["data_fingerprint"])
    assert str(folder.parent) not in (tmp_path / "out" / "config.json").read_text()

    again = call("export", f"--run={folder}", f"--to={tmp_path / 'out'}")
    assert again.returncode == 0 and "is there already: small" in again.stdout
    other = call("export", f"--run={folder}", f"--to={tmp_path / 'out'}", "--dtype=bfloat16")
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "is there already, and is of dtype float32, not bfloat16" in other.stderr


@pytest.mark.parametrize("changes,why", [
    ({"routed": 4}, "has a bias beside each choice"),
    ({"routed": 4, "balance": "loss"}, ""),
    ({"routed": 4, "balance": "none", "router_weight": 1e-3}, ""),
    ({}, ""),
])  # fmt: skip
def test_what_weights_do_not_say_is_told(changes, why):
    run = dataclasses.replace(small_run(), techniques=Techniques(experts=Experts(**changes)))
    reason = techniques.beside_weights(run)
    assert why in reason if why else reason == ""


def test_no_run_is_one_line(tmp_path):
    done = call("export", f"--run={tmp_path / 'no'}", f"--to={tmp_path / 'out'}")
    assert done.returncode == 2 and "there is no run" in done.stderr
    assert not (tmp_path / "out").exists()
