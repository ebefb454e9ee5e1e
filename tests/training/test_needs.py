"""A sweep over runs that need others: their order, their waiting, and what a failure leaves."""

import threading
import time

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.plans import write_plan
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.results import collect
from chinchilla_jax.training import worker
from chinchilla_jax.training.sweep import chosen, select
from tests.experiment.test_needs import TAUGHT, TEACHER, by_id, experiment

FIRST = "3e10-32x3-s0"


def test_what_is_needed_comes_first_and_is_in_every_part():
    cells = plan(experiment(TAUGHT))
    for order in ("smallest", "largest", "planned"):
        assert select(cells, "", order)[0].run.run_id == "3e10-32x3-s0"
    parts = [select(cells, f"{i}/3", "smallest") for i in range(3)]
    for part in parts:
        names = [cell.run.run_id for cell in part]
        assert names[0] == "3e10-32x3-s0" or not any(cell.run.needs for cell in part)
    assert {cell.index for part in parts for cell in part} == {cell.index for cell in cells}


def test_a_cell_chosen_without_the_one_that_it_needs_is_one_line(tmp_path):
    cells = plan(experiment(TAUGHT))
    taught = next(cell for cell in cells if cell.run.needs)
    teacher = by_id(cells)["3e10-32x3-s0"]
    message = rf"--cells={taught.index}: .* needs cell {teacher.index} \({FIRST}\), which is not"
    with pytest.raises(UserError, match=message):
        chosen(tmp_path, cells, str(taught.index), "smallest")
    both = chosen(tmp_path, cells, f"{taught.index},{teacher.index}", "smallest")
    assert both == [teacher, taught]


class Fake:
    """Runs that take no training: what became of each, and in which order they began."""

    def __init__(self, monkeypatch, failing=(), diverging=()):
        self.begun = []
        self.failing, self.diverging = failing, diverging
        monkeypatch.setattr(worker, "prepare_jax", lambda cache: None)
        monkeypatch.setattr(worker, "open_planned_corpus", lambda workdir, run: None)
        monkeypatch.setattr(worker, "_outcome", self.outcome)

    def outcome(self, run, corpus, directory, should_stop):
        self.begun.append(run.run_id)
        if run.run_id in self.failing:
            return True, "out of memory"
        status = "diverged" if run.run_id in self.diverging else "done"
        directory.start(run)
        directory.finish(run, status, "loss 1e9" * (status != "done"), {"loss": 2.0})
        return True, ""


def work(workdir, runs):
    """What a worker does, which a fault would let wait for ever, for a minute at most."""
    end = time.monotonic() + 60
    worker._work(workdir, runs, lambda: time.monotonic() > end)
    assert time.monotonic() < end, "it waited for what does not come"


def planned(tmp_path, panel=TAUGHT):
    source = experiment(panel)
    cells = plan(source)
    write_plan(tmp_path, source, cells, {})
    return [cell.run for cell in select(cells, "", "smallest")]


def statuses(workdir):
    return {row["run_id"]: (row["status"], row["reason"]) for row in collect(workdir)}


def test_a_student_begins_when_its_teacher_is_done(monkeypatch, tmp_path):
    runs, fake = planned(tmp_path), Fake(monkeypatch)
    work(tmp_path, runs[::-1])  # students first: they wait for a pass
    assert {status for status, _ in statuses(tmp_path).values()} == {"done"}
    assert all(fake.begun.index(FIRST) < fake.begun.index(r.run_id) for r in runs if r.needs)


def test_of_two_workers_one_waits_for_the_teacher_that_the_other_trains(monkeypatch, tmp_path):
    runs, fake = planned(tmp_path), Fake(monkeypatch)
    other = threading.Thread(target=work, args=(tmp_path, runs))
    with run_directory(tmp_path, FIRST).lock():  # another worker has the teacher
        other.start()
        other.join(2.0)
        assert other.is_alive() and len(fake.begun) == 3
        assert not any("taught" in name or name == FIRST for name in fake.begun)
    other.join(60)  # the other one has died: so this one takes it
    assert not other.is_alive()
    assert {status for status, _ in statuses(tmp_path).values()} == {"done"}
    assert len(fake.begun) == len(set(fake.begun)) == len(runs)


def test_it_does_not_wait_for_a_teacher_that_nobody_trains(monkeypatch, tmp_path):
    runs, fake = planned(tmp_path), Fake(monkeypatch)
    work(tmp_path, [run for run in runs if run.needs])
    assert not fake.begun and statuses(tmp_path)["1e10-16x2-taught-s0"] == ("missing", "")


@pytest.mark.parametrize("how", ["failing", "diverging"])
def test_a_teacher_that_ends_badly_fails_its_students_in_a_line(monkeypatch, tmp_path, how):
    panel = {"first": {TEACHER: "3e10-32x3"}, "second": {TEACHER: "1e10-32x3-first-s0"}}
    runs = planned(tmp_path, panel)
    fake = Fake(monkeypatch, **{how: (FIRST,)})
    work(tmp_path, runs)
    found = statuses(tmp_path)
    why = "out of memory" if how == "failing" else "diverged: loss 1e9"
    assert found["1e10-16x2-first-s0"] == (
        "failed", f"needs {FIRST}, which did not end well: {why}",
    )  # fmt: skip
    status, reason = found["1e10-16x2-second-s0"]
    assert status == "failed" and reason.startswith("needs 1e10-32x3-first-s0") and why in reason
    assert set(fake.begun) == {FIRST, "1e10-16x2-s0", "1e10-32x3-s0", "3e10-16x2-s0"}
    if how == "failing":  # the next sweep forgets failures and tries again
        for run in runs:
            run_directory(tmp_path, run.run_id).forget_failure()
        fake.failing = ()
        work(tmp_path, runs)
        assert {status for status, _ in statuses(tmp_path).values()} == {"done"}


def test_a_result_that_is_damaged_meanwhile_is_told_of_in_its_run_and_others_go_on(
    monkeypatch, tmp_path
):
    runs, fake = planned(tmp_path), Fake(monkeypatch)
    teacher = run_directory(tmp_path, FIRST)

    def damaging(run, *rest):
        ended = fake.outcome(run, *rest)
        if run.run_id == FIRST:
            (teacher.path / "result.json").write_text("[]")
        return ended

    monkeypatch.setattr(worker, "_outcome", damaging)
    work(tmp_path, runs)
    assert "result.json: is no JSON object; remove this file" in teacher.failure()
    students = [run.run_id for run in runs if run.needs]
    assert all("is no JSON object" in run_directory(tmp_path, s).failure() for s in students)
    others = {run.run_id for run in runs} - {FIRST, *students}
    assert others and all(run_directory(tmp_path, name).result() for name in others)
