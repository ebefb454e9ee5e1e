"""Runs that start from a run on another text: its weights to the bit, any mesh, resumes."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.needs import other_run
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.distillation import Distillation
from chinchilla_jax.techniques.transfer import Transfer
from chinchilla_jax.training import techniques
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import train
from tests.training.helpers import small_run
from tests.training.test_loop import curve, numbers, train_with_interruptions

MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}


def first_run(**changes):
    run = small_run(steps=24, training={"data_parallel": 1, "layers": "unrolled"}, **changes)
    run = dataclasses.replace(run, execution=dataclasses.replace(run.execution, save_final=True))
    return dataclasses.replace(run, run_id="first")


@pytest.fixture(scope="module")
def other_text(tmp_path_factory):
    place = tmp_path_factory.mktemp("other")
    for number in range(100):
        (place / f"{number}.txt").write_text(f"{number} is THE FIRST TEXT of some. " * 9)
    data = DataConfig(builder="local_text", path=str(place), validation_fraction=0.2)
    return open_corpus(data, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def workdir(other_text, tmp_path_factory):
    """A work folder in which a run on another text is done."""
    folder = tmp_path_factory.mktemp("transfer")
    train(first_run(), other_text, run_directory(folder, "first"))
    return folder


def begun(training=MESH, steps=12, first=None, **more):
    run = small_run(steps=steps, training=training)
    needs = (other_run("first", "first", first or first_run()),)
    on = Techniques(transfer=Transfer(start="first"), **more)
    return dataclasses.replace(run, techniques=on, needs=needs)


@pytest.mark.parametrize("layers", ["scan", "unrolled"])
def test_it_starts_with_the_weights_of_the_other_run(workdir, other_text, text_corpus, layers):
    """As evaluation has it: the other run's loss on its own text, to rounding."""
    from chinchilla_jax.training.evaluation import evaluate

    run = begun(MESH | {"layers": layers})
    sources = techniques.sources_of(run, text_corpus, run_directory(workdir, "second"))
    compiled = compiled_for(run)
    held, _ = other_text.validation_windows(16, 16)
    with jax.set_mesh(compiled.mesh):
        random = initial_state(compiled.method, compiled.shardings, run.seed)
        state = techniques.started(run, random, sources)
        found = evaluate(compiled, state, held, 128)["loss"]
    assert found == pytest.approx(sources["first"].loss, rel=1e-5)
    assert int(np.asarray(state.step)) == 0


def test_it_is_resumed_to_the_bit_and_charged_for_what_it_starts_from(workdir, text_corpus):
    run = begun()
    whole, broken = run_directory(workdir, "whole"), run_directory(workdir, "broken")
    row = train(run, text_corpus, whole)
    again = train_with_interruptions(run, text_corpus, broken, (4, 8))
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    assert row["needs_tokens"] == first_run().tokens and row["transfer_start"] == "first"
    scratch = dataclasses.replace(run, techniques=Techniques(), needs=())
    plain = train(scratch, text_corpus, run_directory(workdir, "scratch"))
    assert curve(whole)[0]["loss"] < curve(run_directory(workdir, "scratch"))[0]["loss"]
    assert plain["flops"] == row["flops"]


def test_of_another_text_is_a_start_but_no_teacher(workdir, text_corpus):
    run = begun(distillation=Distillation(teacher="first"))
    with pytest.raises(UserError, match="needs first, which has another corpus"):
        techniques.sources_of(run, text_corpus, run_directory(workdir, "taught"))


def test_another_parametrization_is_one_line(workdir, text_corpus):
    other = begun()
    run = dataclasses.replace(
        other, optimizer=dataclasses.replace(other.optimizer, base_width=16), run_id="narrow"
    )
    with pytest.raises(UserError, match="trained under mup of base width 64, here mup of 16"):
        train(run, text_corpus, run_directory(workdir, "narrow"))
