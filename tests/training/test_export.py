"""A finished run exported by the program: what is written, what is refused."""

import dataclasses
import re
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from chinchilla_jax import program, shared_flags
from chinchilla_jax.experiment import exported, needs
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.formats import huggingface
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.transfer import Transfer
from chinchilla_jax.training import sharding, techniques, weights
from chinchilla_jax.training.initial import abstract_params
from chinchilla_jax.training.loop import train
from tests.command import as_in_a_new_process, call
from tests.formats import qwen3
from tests.formats.models import drawn
from tests.training.helpers import small_run


@pytest.fixture(scope="module")
def finished(text_corpus, tmp_path_factory):
    """The folder and the row of a run whose products are of bfloat16 values."""
    training = {"data_parallel": 1, "layers": "scan", "eval_windows": 4}
    run = small_run(steps=2, model={"kv_heads": 2}, training=training, base_width=24)
    run = dataclasses.replace(run, techniques=Techniques(quantisation=Quantisation(bits=16.0)))
    directory = RunDirectory(tmp_path_factory.mktemp("work") / "runs" / "small")
    return directory.path, train(run, text_corpus, directory)


@pytest.fixture(scope="module")
def out(finished, tmp_path_factory):
    """What the program makes of it."""
    target = tmp_path_factory.mktemp("exported") / "small"
    done = call("export", f"--run={finished[0]}", f"--to={target}")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.search(r"^exported small, [\d,]+ parameters in float32: ", done.stdout)
    return target


def test_the_folder_predicts_what_the_run_did(finished, out, text_corpus):
    """Its loss, by a forward pass from the folder alone."""
    folder, row = finished
    windows, _ = text_corpus.validation_windows(4, 16)
    nats = []
    for window in windows:
        logits = qwen3.logits(out, window[:-1])
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        nats.append(-logits[np.arange(16), window[1:]].mean())
    assert np.mean(nats) == pytest.approx(row["loss"], rel=1e-5)
    gate = qwen3.arrays(out)["model.layers.1.mlp.gate_proj.weight"]
    assert np.array_equal(gate, gate.astype(ml_dtypes.bfloat16))
    of = exported.read(out)
    assert (of.run, of.loss, of.data) == ("small", row["loss"], row["data_fingerprint"])
    assert str(folder.parent) not in (out / "config.json").read_text()

    again = call("export", f"--run={folder}", f"--to={out}")
    assert again.returncode == 0 and "is there already: small" in again.stdout
    other = call("export", f"--run={folder}", f"--to={out}", "--dtype=bfloat16")
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "is there already, and is of dtype float32, not bfloat16" in other.stderr


def stacked(params):
    """Parameters of unrolled layers as those under a scan."""
    layers = [params[f"layers_{i}"] for i in range(2)]
    outside = {name: w for name, w in params.items() if not name.startswith("layers")}
    return outside | {"layers": jax.tree.map(lambda *each: np.stack(each), *layers)}


@pytest.mark.parametrize("scan", [False, True])
def test_a_run_starts_from_it_to_the_bit(finished, out, text_corpus, tmp_path, scan):
    """On another mesh, under a scan too; the embedding's factor here is no power of two."""
    folder, row = finished
    assert (out / "exact.safetensors").exists()
    run = begun(out)
    (source,) = techniques.sources_of(run, text_corpus, RunDirectory(tmp_path / "second")).values()
    assert source.loss == row["loss"]
    mesh = sharding.make_mesh(Execution(data_parallel=2, fsdp=2, tensor=2))
    like = sharding.with_shardings(abstract_params(Decoder(run.model, scan=scan)), mesh)
    found = jax.tree.map(np.asarray, source.params(like))
    used = jax.tree.map(np.asarray, weights.as_multiplied(weights.read(folder)))
    expected = stacked(used) if scan else used
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))


def begun(out):
    """A run that starts from an exported folder."""
    run = small_run(steps=2, model={"kv_heads": 2}, base_width=24)
    start = Techniques(transfer=Transfer(start=str(out)))
    return dataclasses.replace(run, techniques=start, needs=(needs.of_export(str(out), out),))


def test_a_folder_that_was_changed_or_is_of_another_tokenizer_is_refused(text_corpus, tmp_path):
    of, arrays = drawn()
    place = RunDirectory(tmp_path / "second")
    huggingface.write(tmp_path / "out", of, arrays)
    run = begun(tmp_path / "out")
    with pytest.raises(UserError, match="which has another tokenizer"):
        techniques.sources_of(run, text_corpus, place)
    arrays["readout"][0, 0] += 1
    huggingface.write(tmp_path / "out", of, arrays)
    with pytest.raises(UserError, match="is another run by now than it was planned with"):
        techniques.sources_of(run, text_corpus, place)
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        begun(tmp_path / "out")


def test_where_runs_start_from_is_a_flag():
    config = "--config=configs/quickstart.py"
    with as_in_a_new_process(["plan"]):
        flag = shared_flags.define_config()
        program._parse(["plan", config, "--init_from=out"])
        found = program.experiment_from_flags(flag.value)
    assert found.techniques.transfer.start == "./out"
    done = call("sweep", "--workdir=w", "--init_from=out")
    assert done.returncode == 2 and "techniques.transfer.start: changes a field" in done.stderr


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


@pytest.mark.parametrize("there,told", [
    (lambda place: place.write_text("x"), "is no exported model"),
    (lambda place: place.mkdir(), "is no exported model"),
])  # fmt: skip
def test_what_else_is_there_is_left_alone(finished, tmp_path, there, told):
    there(tmp_path / "out")
    done = call("export", f"--run={finished[0]}", f"--to={tmp_path / 'out'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and told in done.stderr


@pytest.mark.parametrize("package", ["safetensors", "gguf"])
def test_a_package_that_is_not_installed_is_one_line(finished, tmp_path, monkeypatch, package):
    for name in [*sys.modules, package]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    done = call("export", f"--run={finished[0]}", f"--to={tmp_path / 'out'}", "--gguf")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{package} is not installed" in done.stderr and "chinchilla_jax[export]" in done.stderr
    assert not list(tmp_path.iterdir())
