"""Students and their teachers: the loss, the teacher's weights on any mesh, resumes, mistakes."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.needs import other_run
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.models import loss
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.distillation import Distillation
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.training import given, loop, techniques, verified
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import Interrupted, train
from chinchilla_jax.training.techniques.distillation import token_loss
from tests.conftest import write_sentences
from tests.training.helpers import small_run
from tests.training.test_distributed import Job, resolved
from tests.training.test_loop import curve, numbers
from tests.training.test_techniques import train_text

T, D, U, V = 37, 8, 5, 19
TIME = "distillation_time"
TEACHER = {"width": 32, "depth": 4, "heads": 8, "kv_heads": 8, "head_size": 4, "ff_size": 64}


def in_numpy(logits, teacher, targets, weight, temperature):
    """(loss, cross-entropy, gradient by the logits) of each token, in float64."""

    def log_softmax(x):
        x = x - x.max(axis=-1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    logits, teacher = np.float64(logits), np.float64(teacher)
    p, q = log_softmax(teacher / temperature), log_softmax(logits / temperature)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    true = np.eye(logits.shape[-1])[targets]
    nats = -(true * log_softmax(logits)).sum(axis=-1)
    gradient = (1 - weight) * (np.exp(log_softmax(logits)) - true)
    gradient += weight * temperature**2 * (np.exp(q) - np.exp(p)) / temperature
    return (1 - weight) * nats + weight * temperature**2 * kl, nats, gradient


def arrays():
    keys = jax.random.split(jax.random.key(0), 5)
    x, readout = jax.random.normal(keys[0], (T, D)), jax.random.normal(keys[1], (D, V))
    hidden, other = jax.random.normal(keys[2], (T, U)), jax.random.normal(keys[3], (U, V))
    return x, readout, (jax.random.randint(keys[4], (T,), 0, V), hidden), other


@pytest.mark.parametrize("weight,temperature", [(0.9, 1.0), (0.5, 2.0), (1.0, 0.7), (0.0, 3.0)])
@pytest.mark.parametrize("chunk_tokens", [5, 100])
def test_the_loss_and_its_gradient_are_those_of_numpy(weight, temperature, chunk_tokens):
    """By chunks, where the gradient is written out, and in one, where JAX derives it."""
    x, readout, targets, other = arrays()

    def total(x, readout):
        of = token_loss(weight, temperature)
        return loss.total_loss(x, readout, targets, chunk_tokens, 1, of, other)

    (value, sums), (dx, dreadout) = jax.jit(
        jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    )(x, readout)
    nats, plain, gradient = in_numpy(
        x @ readout, targets[1] @ other, np.asarray(targets[0]), weight, temperature
    )
    np.testing.assert_allclose(value, nats.sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["loss"], plain.sum(), rtol=1e-5)
    np.testing.assert_allclose(dx, gradient @ np.float64(readout).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dreadout, np.float64(x).T @ gradient, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_the_student_equals_has_nothing_to_teach():
    x, readout, targets, _ = arrays()
    gradient = token_loss(1.0, 1.0).gradient(x @ readout, (targets[0], x), readout)
    np.testing.assert_allclose(gradient, jnp.zeros_like(gradient), atol=1e-6)


def teacher_run(steps=24, **changes):
    run = small_run(steps=steps, model=TEACHER, **changes)
    return dataclasses.replace(run, run_id="teacher")


@pytest.fixture(scope="module")
def workdir(text_corpus, tmp_path_factory):
    """A work folder in which the teacher is done."""
    folder = tmp_path_factory.mktemp("distilled")
    train(teacher_run(), text_corpus, run_directory(folder, "teacher"))
    return folder


def student(other=None, steps=12, training=None, model=None, **config):
    run = small_run(steps=steps, training=training, model=model)
    distillation = Distillation(**({"teacher": "teacher"} | config))
    return dataclasses.replace(
        run,
        run_id="student",
        techniques=Techniques(distillation=distillation),
        needs=(other_run("teacher", "teacher", other or teacher_run()),),
    )


def folder_beside(workdir, tmp_path):
    """A work folder of its own, with the teacher's run in it."""
    shutil.copytree(workdir / "runs" / "teacher", tmp_path / "runs" / "teacher")
    return tmp_path


def trained(run, corpus, workdir, tmp_path, *arguments):
    folder = folder_beside(workdir, tmp_path)
    directory = run_directory(folder, run.run_id)
    return train(run, corpus, directory, *arguments), directory


def dense_of(run):
    return dataclasses.replace(run, techniques=Techniques(), needs=())


def losses(directory):
    return np.array([line["loss"] for line in directory.metrics()])


def test_a_student_learns_from_its_teacher(workdir, text_corpus, tmp_path, monkeypatch):
    run = student()
    # As in a folder that is named from where the program was started.
    monkeypatch.chdir(folder_beside(workdir, tmp_path))
    directory = run_directory(Path(), run.run_id)
    row = train(run, text_corpus, directory)
    plain = run_directory(tmp_path, "dense")
    dense = train(dense_of(run), text_corpus, plain)
    assert row["flops"] == row["flops_forward"] + row["flops_backward"] + row["flops_teacher"]
    assert row["flops"] - row["flops_teacher"] == dense["flops"]
    assert row["needs"] == "teacher" and row["needs_tokens"] == teacher_run().tokens
    assert row["needs_flops"] == run.needs[0].flops > row["flops_teacher"]
    # What is shown is the student's cross-entropy, not what it minimises.
    assert losses(directory)[0] == pytest.approx(losses(plain)[0], rel=1e-6)
    assert losses(directory)[1] != pytest.approx(losses(plain)[1], rel=1e-6)
    assert row["loss"] != dense["loss"] and abs(row["loss"] - dense["loss"]) < 0.5
    # How much of its teacher it is.
    teacher = run_directory(tmp_path, "teacher").result()
    saved = math.log(256) - row["loss"], math.log(256) - teacher["loss"]
    assert row["distillation_teacher_loss"] == teacher["loss"]
    assert row["distillation_quality"] == pytest.approx(saved[0] / saved[1], rel=1e-12)
    assert row["distillation_size"] == row["params_total"] / teacher["params_total"]
    seconds = row["distillation_seconds_per_token"], row["distillation_teacher_seconds_per_token"]
    assert row[TIME] == seconds[0] / seconds[1] > 0


def test_with_no_weight_it_is_the_dense_run_to_the_bit():
    run = student(weight=0.0)
    texts = [train_text(run), train_text(dense_of(run)), train_text(student())]
    assert texts[0] == texts[1] != texts[2]
    assert ledger(run) == dataclasses.replace(ledger(dense_of(run)), needs=run.needs)


def test_it_is_resumed_to_the_bit_and_its_checkpoints_are_without_the_teacher(
    workdir, text_corpus, tmp_path
):
    run = student(steps=12, training={"steps_per_dispatch": 2, "data_parallel": 4, "fsdp": 2})
    row, whole = trained(run, text_corpus, workdir, tmp_path)
    broken, seen = run_directory(tmp_path, "broken"), [0]
    with pytest.raises(Interrupted):
        train(
            run, text_corpus, broken, lambda: seen[0] >= 6,
            lambda done, loss: seen.__setitem__(0, done),
        )  # fmt: skip
    again = train(run, text_corpus, broken)
    assert untimed(again) == untimed(row) and curve(broken) == curve(whole)
    record = json.loads((whole.checkpoints / "12" / "record.json").read_text())
    assert not [name for name in record["layout"] if "distillation" in name]


def untimed(row):
    return {k: v for k, v in numbers(row).items() if "seconds" not in k and k != TIME}


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "layers": "scan", "microbatch": 4}


@pytest.fixture(scope="module")
def alone(workdir, text_corpus, tmp_path_factory):
    """The curve of a student on one device."""
    run = student(training={"data_parallel": 1})
    folder = tmp_path_factory.mktemp("alone")
    return losses(trained(run, text_corpus, workdir, folder)[1])


def test_a_mesh_is_one_device_and_the_teachers_folder_is_left_alone(
    workdir, text_corpus, tmp_path, alone
):
    """Whatever else is in another order: scanned layers, microbatches, chunks of tokens."""
    run = student(training=MESH | {"loss_chunk_tokens": 12})
    before = contents(workdir / "runs" / "teacher")
    _, directory = trained(run, text_corpus, workdir, tmp_path)
    np.testing.assert_allclose(losses(directory), alone, rtol=2e-5)
    assert contents(tmp_path / "runs" / "teacher") == before


@pytest.mark.parametrize("saved,layers", [("scan", "unrolled"), ("unrolled", "scan")])
def test_weights_are_read_exactly_whatever_the_layers_and_start_a_student(
    text_corpus, tmp_path, layers, saved
):
    """Also from another mesh and with the student's own; every second layer, in float32."""
    teacher = teacher_run(training={"layers": saved, "fsdp": 4, "data_parallel": 2}, steps=2)
    train(teacher, text_corpus, run_directory(tmp_path, "teacher"))
    run = student(
        teacher, training={"layers": layers, "tensor": 2, "data_parallel": 4}, start="teacher"
    )
    compiled = compiled_for(run)
    with jax.set_mesh(compiled.mesh):
        sources = techniques.sources_of(run, text_corpus, run_directory(tmp_path, "student"))
        state = initial_state(compiled.method, compiled.shardings, 0)
        state = techniques.started(run, state, sources)
        state = techniques.completed(run, state, compiled.abstract_state, sources)
    there = ocp.PyTreeCheckpointer().restore(
        run_directory(tmp_path, "teacher").checkpoints / "2" / "default"
    )
    wanted = verified.flatten(state.params)
    for name, array in verified.flatten(given.of(state.techniques, "distillation")).items():
        np.testing.assert_array_equal(array, of_checkpoint(there, name, range(4)))
    for name, array in wanted.items():
        taken = of_checkpoint(there, re.sub(r"layers_1\.", "layers_2.", name), (0, 2))
        np.testing.assert_array_equal(array, taken)
    assert all(
        a.sharding.is_equivalent_to(b.sharding, a.ndim)
        for a, b in zip(
            wanted.values(), jax.tree.leaves(compiled.abstract_state.params), strict=True
        )
    )


def of_checkpoint(there, name, layers):
    """A parameter as it was saved, whichever way; of a stack the given layers."""
    name = f"params.{name}"
    if name in there:
        return there[name][np.array(layers)] if ".layers." in name else there[name]
    if unrolled := re.match(r"params\.layers_(\d+)\.(.*)", name):
        return there[f"params.layers.{unrolled[2]}"][int(unrolled[1])]
    rest = name.removeprefix("params.layers.")
    return np.stack([there[f"params.layers_{i}.{rest}"] for i in layers])


def test_the_teacher_is_held_in_the_precision_of_products():
    run = student(training={"dtype": "bfloat16", "data_parallel": 1})
    held = given.of(compiled_for(run).abstract_state.techniques, "distillation")
    kinds = {name: leaf.dtype for name, leaf in verified.flatten(held).items()}
    assert kinds["layers_0.attention.query"] == kinds["readout"] == jnp.bfloat16
    assert kinds["embedding"] == kinds["final_norm.scale"] == jnp.float32


def test_a_student_may_be_sparse_and_of_few_bits(workdir, text_corpus, tmp_path):
    """What changes its weights leaves its teacher's alone, and is carried beside them."""
    run = student(training={"data_parallel": 1})
    changed = dataclasses.replace(
        run.techniques, sparsity=Sparsity(level=0.5), quantisation=Quantisation(bits=4.0, start=0.5)
    )
    row, directory = trained(
        dataclasses.replace(run, techniques=changed), text_corpus, workdir, tmp_path
    )
    assert row["params_nonzero"] < row["params_total"] and row["status"] == "done"
    record = json.loads((directory.checkpoints / "12" / "record.json").read_text())
    assert [name for name in record["layout"] if "quantisation" in name]
    assert not [name for name in record["layout"] if "distillation" in name]


def spoilt(folder, how):
    """A finished teacher's folder with something wrong in it."""
    checkpoint = folder / "checkpoints" / "24"
    if how == "gone":
        shutil.rmtree(folder)
    elif how == "unfinished":
        (folder / "result.json").unlink()
    elif how == "diverged":
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"status": "diverged"}))
    elif how == "no checkpoint":
        shutil.rmtree(checkpoint)
    elif how == "damaged":
        file = max(
            (f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
        )
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "another run":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"seed": 7}))


WRONG = {
    "gone": r"student needs teacher, which is not there: .* has no config\.json",
    "unfinished": r"student needs teacher, which is not done; run it first",
    "diverged": r"student needs teacher, which has diverged",
    "no checkpoint": r"has no sound checkpoint of step 24: .*: its folder is empty",
    "damaged": r"has a damaged checkpoint: .*: the file .* is not the one that was written",
    "another run": r"which is another run by now than it was planned with",
}


@pytest.mark.parametrize("how", WRONG)
def test_a_teacher_that_cannot_teach_is_one_line_before_anything_is_allocated(
    workdir, text_corpus, tmp_path, how, monkeypatch
):
    folder = folder_beside(workdir, tmp_path)
    spoilt(folder / "runs" / "teacher", how)
    monkeypatch.setattr(loop, "compiled_for", lambda run: pytest.fail("something was allocated"))
    before = contents(folder)
    with pytest.raises(UserError, match=WRONG[how]) as raised:
        train(student(), text_corpus, run_directory(folder, "student"))
    assert "\n" not in str(raised.value) and contents(folder) == before


def test_a_teacher_of_another_text_is_one_line(workdir, text_corpus, tmp_path):
    folder = folder_beside(workdir, tmp_path)
    for field, what in (("data_fingerprint", "corpus"), ("tokenizer_fingerprint", "tokenizer")):
        meta = dataclasses.replace(text_corpus.meta, **{field: "another"})
        other = dataclasses.replace(text_corpus, meta=meta)
        with pytest.raises(UserError, match=f"needs teacher, which has another {what} "):
            train(student(), other, run_directory(folder, "student"))


def test_a_teacher_that_computes_with_other_weights_is_one_line(workdir, text_corpus, tmp_path):
    folder = folder_beside(workdir, tmp_path)
    few = dataclasses.replace(
        teacher_run(), techniques=Techniques(quantisation=Quantisation(bits=4.0))
    )
    (folder / "runs" / "teacher" / "config.json").write_text(json.dumps(to_json(few)))
    with pytest.raises(UserError, match="computes with other weights than it stores"):
        train(student(few), text_corpus, run_directory(folder, "student"))


def test_any_checkpoint_of_any_folder_may_teach(workdir, text_corpus, tmp_path):
    """Also of a run that is not done."""
    there = folder_beside(workdir, tmp_path) / "runs" / "teacher"
    (there / "result.json").unlink()
    asked = str(there / "checkpoints" / "24")
    run = student(teacher=asked, weight=0.0, start="teacher")
    run = dataclasses.replace(run, needs=(other_run(asked, asked, teacher_run(), 24),))
    found = techniques.sources_of(run, text_corpus, run_directory(tmp_path / "far", "student"))
    assert found[asked].loss is None and found[asked].record["step"] == 24


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [{"data_parallel": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}], ids=str
)
def test_two_processes_learn_as_one(tmp_path, mesh):
    """The teacher was trained by one; it starts the student and teaches it."""
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text")
    data = DataConfig(
        builder="local_text", path=str(tmp_path / "text"), validation_fraction=0.2,
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    corpus = open_corpus(data, tmp_path / "cache")
    teacher = dataclasses.replace(teacher_run(), data=data)
    train(teacher, corpus, run_directory(tmp_path / "work", "teacher"))
    run = student(teacher, training={"data_parallel": 1} | mesh, start="teacher")
    run = dataclasses.replace(run, data=data)
    row, whole = trained(run, corpus, tmp_path / "work", tmp_path / "alone")
    before = contents(tmp_path / "work" / "runs" / "teacher")
    argument, directory = resolved(run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument) as job:
        assert [status for status, _, _ in job.end()] == [0, 0]
    np.testing.assert_allclose(losses(directory), losses(whole), rtol=1e-5)
    assert directory.result()["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert contents(tmp_path / "work" / "runs" / "teacher") == before
