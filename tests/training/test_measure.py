"""Finished runs measured by their last checkpoint: as at their end, and nothing else of them."""

import dataclasses
import shutil

import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import (
    DataConfig,
    Experiment,
    LadderConfig,
    Measurement,
)
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.results import collect
from chinchilla_jax.techniques import Techniques, derived
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.measure import Outcome, measure
from chinchilla_jax.training.sweep import freeze_plan
from tests.conftest import write_sentences
from tests.training.test_loop import numbers

AFTER = Techniques(quantisation=Quantisation(after=(8, 3), after_groups=(0, 4)))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "text").mkdir()
    write_sentences(folder / "text")
    return Experiment(
        name="t",
        budgets=(2e8,),
        ladder=LadderConfig(
            widths=(8, 12, 16), sizes_per_budget=(0,), min_tokens_per_param=0.01, min_steps=1
        ),
        data=DataConfig(
            builder="local_text",
            path=str(folder / "text"),
            validation_fraction=0.2,
            cache=str(folder / "cache"),
        ),
        measurement=Measurement(eval_windows=16),
        execution=Execution(data_parallel=1),
    )


def trained(experiment, workdir, cells):
    corpus = open_corpus(experiment.data, cache_folder(experiment.data.cache))
    for cell in cells:
        train(cell.run, corpus, run_directory(workdir, cell.run.run_id))
    return {row["run_id"]: row for row in collect(workdir)}


@pytest.fixture(scope="module")
def plain(experiment, tmp_path_factory):
    """A work folder whose three runs are done."""
    workdir = tmp_path_factory.mktemp("plain")
    trained(experiment, workdir, freeze_plan(experiment, workdir))
    return workdir


def copied(plain, workdir, runs):
    """`plain` with its first runs only."""
    workdir.mkdir(exist_ok=True)
    shutil.copy(plain / "plan.json", workdir)
    for cell in read_plan(plain)[1][:runs]:
        name = f"runs/{cell.run.run_id}"
        shutil.copytree(plain / name, workdir / name)
    return workdir


def test_a_finished_run_is_measured_as_at_its_end(experiment, plain, tmp_path):
    """Of three: one measured at its end too, two later, one that is not done yet."""
    before, after = copied(plain, tmp_path / "before", 2), tmp_path / "after"
    asked = dataclasses.replace(experiment, techniques=AFTER)
    rows = {row["run_id"]: row for row in collect(before)}
    expected = trained(asked, after, freeze_plan(asked, after)[:1])
    seen = []
    outcome = measure(before, freeze_plan(asked, before), seen.append)
    assert outcome == Outcome(measured=2, not_done=1, left={})
    assert seen == [0, 1, 2, 3]
    found = {row["run_id"]: row for row in collect(before)}
    (done,) = (name for name, row in expected.items() if row["status"] == "done")
    assert numbers(found[done]) == numbers(expected[done])
    for name in found:
        assert found[name]["wall_seconds"] == rows[name]["wall_seconds"]
    assert len(derived(found.values())) == 8
    assert "loss_after_b3g4" in (before / "results.csv").read_text()
    assert [row["status"] for row in found.values()] == ["done", "done", "missing"]


@pytest.fixture(scope="module")
def without_the_last(experiment, tmp_path_factory):
    """A run that has one checkpoint, of the way, and the experiment that it is of."""
    execution = Execution(
        data_parallel=1, checkpoint_seconds=1e-3, save_final=False, steps_per_dispatch=2
    )
    planned = dataclasses.replace(experiment, execution=execution)
    workdir = tmp_path_factory.mktemp("without")
    trained(planned, workdir, freeze_plan(planned, workdir)[:1])
    return planned, workdir


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_without_its_last_checkpoint_is_left_out_with_the_reason(
    without_the_last, tmp_path, earlier
):
    """Without any, and with one of the way; beside one whose result is damaged."""
    planned, workdir = without_the_last
    copied(workdir, tmp_path, 1)
    (name,) = [row["run_id"] for row in collect(tmp_path) if row["status"] == "done"]
    folder = run_directory(tmp_path, name).checkpoints
    assert any(folder.iterdir())
    if not earlier:
        shutil.rmtree(folder)
    asked = dataclasses.replace(planned, techniques=AFTER)
    cells = freeze_plan(asked, tmp_path)
    (other, *_) = [cell.run.run_id for cell in cells if cell.run.run_id != name]
    run_directory(tmp_path, other).path.mkdir(exist_ok=True)
    (run_directory(tmp_path, other).path / "result.json").write_text("[]")
    outcome = measure(tmp_path, cells)
    assert outcome.left.pop(name) == "it has no checkpoint of its end (execution.save_final)"
    assert "is no JSON object" in outcome.left.pop(other)
    assert outcome == Outcome(measured=0, not_done=2, left={})
    assert not derived(collect(tmp_path, tell_damage=True))
    assert f"\n{other},damaged," in (tmp_path / "results.csv").read_text()


def test_nothing_is_done_where_nothing_is_asked(plain, tmp_path):
    cells = read_plan(copied(plain, tmp_path, 1))[1]
    rows = collect(tmp_path)
    shutil.rmtree(run_directory(tmp_path, cells[0].run.run_id).checkpoints)
    assert measure(tmp_path, cells) == Outcome(measured=0, not_done=2, left={})
    assert collect(tmp_path) == rows


def test_a_run_that_cannot_be_measured_leaves_the_others_to_be(experiment, plain, tmp_path):
    """A student whose teacher is gone, before a plain run and after it."""
    students = {
        f"student{i}": Setting(values={"techniques.distillation.teacher": "2e08-16x2"}, widths=(w,))
        for i, w in enumerate((8, 12))
    }
    planned = dataclasses.replace(experiment, panel=students)
    copied(plain, tmp_path, 3)
    students = [cell for cell in freeze_plan(planned, tmp_path) if cell.run.needs]
    rows = trained(planned, tmp_path, students)
    assert len(students) == 2 and {row["status"] for row in rows.values()} == {"done"}
    cells = freeze_plan(dataclasses.replace(planned, techniques=AFTER), tmp_path)
    first, *rest = (cell for cell in cells if cell.run.needs)
    (teacher,) = {cell.run.needs[0].run for cell in (first, *rest)}
    shutil.rmtree(run_directory(tmp_path, teacher).checkpoints)
    (tmp_path / "results.csv").unlink(missing_ok=True)
    outcome = measure(tmp_path, [first, *(c for c in cells if c is not first)])
    assert set(outcome.left) == {first.run.run_id, *(c.run.run_id for c in rest), teacher}
    assert outcome.measured == len(cells) - len(outcome.left) > 0
    assert "loss_after_b3g4" in (tmp_path / "results.csv").read_text()
