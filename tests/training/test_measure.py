"""Finished runs measured by their last checkpoint: as at their end, and nothing else of them."""

import csv
import dataclasses
import json
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
from chinchilla_jax.experiment.records import RunDirectory, run_directory
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


def test_a_finished_run_is_measured_as_at_its_end(experiment, tmp_path):
    """Of three: one measured at its end, one later, one that is not done yet."""
    before, after = tmp_path / "before", tmp_path / "after"
    asked = dataclasses.replace(experiment, techniques=AFTER)
    rows = trained(experiment, before, freeze_plan(experiment, before)[:2])
    expected = trained(asked, after, freeze_plan(asked, after)[:2])
    seen = []
    outcome = measure(before, freeze_plan(asked, before), seen.append)
    assert outcome == Outcome(measured=2, not_done=1, left={})
    assert seen == [0, 1, 2, 3]
    found = {row["run_id"]: row for row in collect(before)}
    for name, row in expected.items():
        assert numbers(found[name]) == numbers(row)
        assert found[name]["wall_seconds"] == rows[name]["wall_seconds"]
    assert len(derived(found.values())) == 8
    assert "loss_after_b3g4" in (before / "results.csv").read_text()
    assert [row["status"] for row in found.values()] == ["done", "done", "missing"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_without_its_last_checkpoint_is_left_out_with_the_reason(
    experiment, tmp_path, earlier
):
    """Without any, and with one of the way."""
    execution = Execution(
        data_parallel=1, checkpoint_seconds=1e-3, save_final=False, steps_per_dispatch=2
    )
    planned = dataclasses.replace(experiment, execution=execution)
    rows = trained(planned, tmp_path, freeze_plan(planned, tmp_path)[:1])
    (name,) = [name for name, row in rows.items() if row["status"] == "done"]
    folder = run_directory(tmp_path, name).checkpoints
    assert any(folder.iterdir())
    if not earlier:
        shutil.rmtree(folder)
    asked = dataclasses.replace(planned, techniques=AFTER)
    left = {name: "it has no checkpoint of its end (execution.save_final)"}
    outcome = measure(tmp_path, freeze_plan(asked, tmp_path))
    assert outcome == Outcome(measured=0, not_done=2, left=left)
    assert not derived(collect(tmp_path))


def test_an_interruption_loses_nothing_that_was_measured(experiment, tmp_path, monkeypatch):
    asked = dataclasses.replace(experiment, techniques=AFTER)
    rows = trained(experiment, tmp_path, freeze_plan(experiment, tmp_path)[:2])
    cells, amend = freeze_plan(asked, tmp_path), RunDirectory.amend

    def interrupted(directory, found):
        monkeypatch.setattr(RunDirectory, "amend", pytest.fail)
        amend(directory, found)
        raise KeyboardInterrupt

    (tmp_path / "results.csv").unlink(missing_ok=True)
    monkeypatch.setattr(RunDirectory, "amend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, cells)
    found = {row["run_id"]: row for row in collect(tmp_path)}
    assert sum("loss_after_b3g4" in found[name] for name in rows) == 1
    with (tmp_path / "results.csv").open() as file:
        assert sum(bool(row["loss_after_b3g4"]) for row in csv.DictReader(file)) == 1
    monkeypatch.setattr("chinchilla_jax.training.measure._amended", lambda *_: True)
    assert measure(tmp_path, cells) == Outcome(measured=1, not_done=1, left={}, before=1)


def test_nothing_is_done_where_nothing_is_asked(experiment, tmp_path):
    cells = freeze_plan(experiment, tmp_path)
    rows = trained(experiment, tmp_path, cells[:1])
    shutil.rmtree(run_directory(tmp_path, cells[0].run.run_id).checkpoints)
    assert measure(tmp_path, cells) == Outcome(measured=0, not_done=2, left={})
    assert collect(tmp_path) == list(rows.values())


def test_a_run_that_cannot_be_measured_leaves_the_others_to_be(experiment, tmp_path):
    """A student whose teacher is gone, before a plain run and after it."""
    students = {
        f"student{i}": Setting(values={"techniques.distillation.teacher": "2e08-16x2"}, widths=(w,))
        for i, w in enumerate((8, 12))
    }
    asked = dataclasses.replace(experiment, techniques=AFTER, panel=students)
    cells = sorted(freeze_plan(asked, tmp_path), key=lambda cell: len(cell.run.needs))
    rows = trained(asked, tmp_path, cells)
    assert {row["status"] for row in rows.values()} == {"done"}
    first, *rest = (cell for cell in cells if cell.run.needs)
    for cell in cells:
        result = run_directory(tmp_path, cell.run.run_id).path / "result.json"
        row = json.loads(result.read_text())
        kept = {name: value for name, value in row.items() if "_after_" not in name}
        result.write_text(json.dumps(kept))
    (teacher,) = {cell.run.needs[0].run for cell in (first, *rest)}
    shutil.rmtree(run_directory(tmp_path, teacher).checkpoints)
    (tmp_path / "results.csv").unlink(missing_ok=True)
    outcome = measure(tmp_path, [first, *(c for c in cells if c is not first)])
    assert set(outcome.left) == {first.run.run_id, *(c.run.run_id for c in rest), teacher}
    assert outcome.measured == len(cells) - len(outcome.left) > 0
    assert "loss_after_b3g4" in (tmp_path / "results.csv").read_text()
