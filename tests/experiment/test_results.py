"""results.csv as runs end, one by one and by several processes, and what that costs."""

import csv
import dataclasses
import multiprocessing

import pytest

from chinchilla_jax.experiment import plans, records, results, storage
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan


def planned(workdir, seeds=1):
    """The runs of a new plan in `workdir`, three for each seed."""
    source = Experiment(
        name="t",
        budgets=(1e11,),
        ladder=LadderConfig(widths=(8, 16, 24, 96)),
        vary={"seed": tuple(range(seeds))},
    )
    cells = plan(source)
    plans.write_plan(workdir, source, cells, {})
    return [cell.run for cell in cells if cell.status == "planned"]


def finish(workdir, run, **measured):
    records.run_directory(workdir, run.run_id).finish(run, "done", "", {"loss": 2.0} | measured)


def table(workdir):
    return storage.read_text(workdir / "results.csv")


def whole(workdir):
    """The table as it is rebuilt."""
    noted = table(workdir)
    results.write(workdir)
    return noted, table(workdir)


def test_lines_that_are_noted_make_the_table_that_is_written(tmp_path):
    runs = planned(tmp_path)
    for run, reason in zip(runs, ("", 'a "quoted", reason', "two\nlines"), strict=True):
        if reason:
            records.run_directory(tmp_path, run.run_id).fail(reason)
        else:
            finish(tmp_path, run)
        (row,) = results.note(tmp_path, [run])
        assert (row["run_id"], row["status"]) == (run.run_id, "failed" if reason else "done")
        noted, rebuilt = whole(tmp_path)
        assert noted == rebuilt
    rows = {row["run_id"]: row for row in csv.DictReader(table(tmp_path).splitlines())}
    assert [rows[run.run_id]["reason"] for run in runs] == ["", 'a "quoted", reason', "two lines"]
    assert len(rows) == len(table(tmp_path).splitlines()) - 1 == 4
    records.run_directory(tmp_path, runs[1].run_id).forget_failure()
    finish(tmp_path, runs[1])
    results.note(tmp_path, runs)
    assert "quoted" not in table(tmp_path)


def test_a_column_that_only_one_run_has_is_every_rows(tmp_path):
    runs = planned(tmp_path)
    results.write(tmp_path)
    finish(tmp_path, runs[0], spikes=3, sparsity_level=0.5)
    results.note(tmp_path, runs[:1])
    noted, rebuilt = whole(tmp_path)
    assert noted == rebuilt and "spikes" in noted.splitlines()[0]
    finish(tmp_path, runs[1])
    results.note(tmp_path, runs[1:2])
    noted, rebuilt = whole(tmp_path)
    assert noted == rebuilt


def test_a_plan_that_grows_leaves_no_table_of_the_smaller_one(tmp_path):
    runs = planned(tmp_path)
    finish(tmp_path, runs[0])
    results.write(tmp_path)
    smaller = table(tmp_path)
    more = planned(tmp_path, seeds=2)
    assert not (tmp_path / "results.csv").exists()
    results.note(tmp_path, [more[0]])
    right = table(tmp_path)
    assert len(right.splitlines()) == 1 + len(more) + 2  # two are rejected
    assert "\n" + more[0].run_id + ",done," in right
    # By one who had read it before and wrote afterwards.
    storage.write_text_atomic(tmp_path / "results.csv", smaller)
    results.renew(tmp_path)
    assert table(tmp_path) == right


def test_a_table_of_another_version_is_renewed_before_cells_end(tmp_path):
    runs = planned(tmp_path)
    results.renew(tmp_path)
    assert not (tmp_path / "results.csv").exists()  # nothing was begun
    finish(tmp_path, runs[0])
    results.renew(tmp_path)
    right = table(tmp_path)
    assert f"\n{runs[0].run_id},done," in right
    storage.write_text_atomic(tmp_path / "results.csv", right.replace("device_kind", "device"))
    results.renew(tmp_path)
    assert table(tmp_path) == right
    storage.write_text_atomic(tmp_path / "results.csv", right.replace("done", "gone"))
    results.renew(tmp_path)
    assert table(tmp_path) != right  # it has all columns: `note` and the end of a sweep see to it


def test_a_damaged_run_has_a_line_that_says_so_and_the_others_theirs(tmp_path):
    runs = planned(tmp_path)
    for run in runs[:2]:
        finish(tmp_path, run)
    broken = records.run_directory(tmp_path, runs[0].run_id).path / "result.json"
    broken.write_text("[]")
    for rows in (results.write(tmp_path), results.note(tmp_path, runs)):
        assert [row["status"] for row in rows[:2]] == [results.DAMAGED, "done"]
        assert str(broken) in rows[0]["reason"]
        assert f"\n{runs[0].run_id},damaged," in table(tmp_path)
    with pytest.raises(UserError, match=r"^\S+/result\.json"):
        results.collect(tmp_path)


def test_all_damaged_runs_are_told_at_once(tmp_path, monkeypatch):
    runs = planned(tmp_path)
    files = [records.run_directory(tmp_path, run.run_id).path / "result.json" for run in runs]
    for run, file, content in zip(runs, files, ("[]", "{", ""), strict=True):
        finish(tmp_path, run)
        file.write_text(content)
    with pytest.raises(UserError, match=r"^3 runs are damaged: \(1\) ") as told:
        results.collect(tmp_path)
    assert all(f"{file}: " in str(told.value) for file in files) and "\n" not in str(told.value)
    monkeypatch.setattr(results, "_NAMED", 2)
    with pytest.raises(UserError, match=r"; and 1 more$"):
        results.collect(tmp_path)


def test_a_run_that_the_plan_does_not_have_adds_no_line(tmp_path):
    runs = planned(tmp_path)
    other = dataclasses.replace(runs[0], run_id=runs[0].run_id[:-1])  # its name begins another's
    finish(tmp_path, other)
    assert results.note(tmp_path, [other]) == []
    assert f"\n{other.run_id}," not in table(tmp_path)


def _end(workdir, runs, barrier):
    barrier.wait(60)
    for run in runs:
        finish(workdir, run)
        results.note(workdir, [run])


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_of_several_who_note_at_once_none_loses_a_line(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("CHINCHILLA_JAX_LOCK", kind)
    runs = planned(tmp_path, seeds=4)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    others = [context.Process(target=_end, args=(tmp_path, runs[i::3], barrier)) for i in range(3)]
    for process in others:
        process.start()
    for process in others:
        process.join(120)
    assert [row["status"] for row in csv.DictReader(table(tmp_path).splitlines())].count(
        "done"
    ) == len(runs)
    noted, rebuilt = whole(tmp_path)
    assert noted == rebuilt


def test_one_who_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_TURN_SECONDS", 0.2)
    runs = planned(tmp_path)
    with (
        results._turn(tmp_path),
        pytest.raises(UserError, match=r"process \S+ \d+ has it for 0\.2 s"),
    ):
        results.note(tmp_path, runs[:1])


def requests_of_a_finished_run(gcs, workdir, seeds):
    """How many a run that ends takes in a bucket, the first one and the next."""
    runs = planned(workdir, seeds)
    counts = []
    for run in runs[:3]:
        finish(workdir, run)
        gcs.requests.clear()
        results.note(workdir, [run])
        # Waiting for one's turn may take another look at the lease.
        counts.append(sum("/.results/" not in path for _, path in gcs.requests))
        assert len(gcs.requests) <= 16
    return counts


def test_requests_of_a_run_that_ends_do_not_grow_with_the_grid(gcs, tmp_path):
    """Only the first builds the table, from one look at what is there."""
    few, many = (
        requests_of_a_finished_run(gcs, storage.path(f"gs://bucket/{tmp_path.name}/{seeds}"), seeds)
        for seeds in (1, 20)
    )
    assert few == many
    assert max(many) <= 10 and many[-1] <= 5


def test_a_plan_is_read_once_by_a_process_until_it_changes(tmp_path, monkeypatch):
    runs = planned(tmp_path)
    read = []
    from_json = plans.list_from_json
    monkeypatch.setattr(plans, "list_from_json", lambda *a: read.append(a[0]) or from_json(*a))
    results.write(tmp_path)
    _, cells, facts = plans.read_plan(tmp_path)
    assert len(read) <= 1
    facts["code_version"] = "of another"
    cells.clear()
    assert plans.read_plan(tmp_path)[1] and "code_version" not in plans.read_plan(tmp_path)[2]
    planned(tmp_path, seeds=2)
    assert len(plans.read_plan(tmp_path)[1]) > len(runs) + 1
