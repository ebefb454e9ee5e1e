"""The run directory: nothing half-written, nothing lost, nothing evaluated."""

import csv
import dataclasses
import json
import multiprocessing
import os
import signal
import time

import pytest

from chinchilla_jax.experiment import needs, plans, records, results, status, storage
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.experiment.version import MODEL_VERSION


def experiment(**changes):
    values = {"name": "t", "budgets": (1e11,), "ladder": LadderConfig(widths=(8, 16, 24, 96))}
    return Experiment(**(values | changes))


def corpora(text):
    return {"corpora": {"of this data": {"data_fingerprint": text}}}


def planned(source):
    return [cell for cell in plan(source) if cell.status == "planned"]


@pytest.fixture
def run():
    return planned(experiment())[0].run


def _overwrite_for_ever(path, started):
    content = b"x" * 100_000
    while True:
        storage.write_bytes_atomic(path, content)
        started.set()


def test_a_kill_in_the_middle_of_writing_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    context = multiprocessing.get_context("spawn")
    for delay in (0.0, 0.003, 0.007):
        started = context.Event()
        writer = context.Process(target=_overwrite_for_ever, args=(path, started))
        writer.start()
        assert started.wait(10)
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert path.read_bytes() == b"x" * 100_000


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        storage.write_text_atomic(tmp_path / "file" / "inner.json", "{}")


def test_results_csv_has_a_row_per_cell_whatever_became_of_it(tmp_path):
    source = experiment()
    cells = plan(source)
    plans.write_plan(tmp_path, source, cells, {})
    done, diverged, failed = (c.run for c in planned(source)[:3])
    records.run_directory(tmp_path, done.run_id).finish(done, "done", "", {"loss": 1 / 3})
    records.run_directory(tmp_path, diverged.run_id).finish(
        diverged, "diverged", "not finite", {"loss": float("nan")}
    )
    records.run_directory(tmp_path, failed.run_id).fail("out of memory")
    results.write(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(cells) == 4
    assert float(rows[done.run_id]["loss"]) == 1 / 3  # not rounded
    assert rows[diverged.run_id]["status"] == "diverged" and rows[diverged.run_id]["loss"] == ""
    assert (rows[failed.run_id]["status"], rows[failed.run_id]["reason"]) == (
        "failed",
        "out of memory",
    )
    assert list(rows[done.run_id]) == list(row_of(done))
    (rejected,) = [r for r in rows.values() if r["status"] == "rejected"]
    assert "tokens per parameter" in rejected["reason"]


def test_results_of_several_versions_have_the_columns_of_all(tmp_path):
    """What another version did not measure is empty, and what only it did is kept."""
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    first, second = (cell.run for cell in planned(source)[:2])
    records.run_directory(tmp_path, first.run_id).finish(first, "done", "", {"loss": 2.0})
    old = {"run_id": second.run_id, "status": "done", "reason": "", "loss": 3.0, "spikes": 7}
    folder = records.run_directory(tmp_path, second.run_id).path
    storage.write_text_atomic(folder / "result.json", json.dumps(old))
    results.write(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    assert rows[first.run_id]["spikes"] == "" and rows[second.run_id]["spikes"] == "7"
    assert rows[second.run_id]["params_total"] == str(row_of(second)["params_total"])
    assert rows[second.run_id]["loss"] == "3.0" and rows[second.run_id]["mfu"] == ""


def test_plan_round_trip(tmp_path):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {"code_version": "1"})
    facts = {"model_version": MODEL_VERSION, "code_version": "1"}
    assert plans.read_plan(tmp_path) == (source, plan(source), facts)
    assert plans.continued_plan(tmp_path) == (source, plan(source))


def test_a_plan_may_grow_but_not_change_what_was_begun(tmp_path):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    begun = planned(source)[0].run
    records.run_directory(tmp_path, begun.run_id).start(begun)
    wider = experiment(budgets=(1e11, 1e12))
    plans.write_plan(tmp_path, wider, plan(wider), {})
    changed = experiment(recipe=dataclasses.replace(source.recipe, base_lr=0.1))
    with pytest.raises(UserError, match=r"learning_rate was .*another --workdir"):
        plans.write_plan(tmp_path, changed, plan(changed), {})
    dropped = experiment(budgets=(1e12,))
    with pytest.raises(UserError, match="dropped"):
        plans.write_plan(tmp_path, dropped, plan(dropped), {})
    assert plans.read_plan(tmp_path)[0] == wider


def test_a_sweep_of_a_shape_that_the_recipe_gave_goes_on(tmp_path):
    """Shapes stand in the plan: which the recipe chooses is nothing of a version of the model."""
    source = experiment()
    shape = {"heads": 1, "kv_heads": 1, "head_size": 16}
    cells = [
        dataclasses.replace(
            c, run=dataclasses.replace(c.run, model=dataclasses.replace(c.run.model, **shape))
        )
        for c in plan(source)
        if c.run.model.width == 16
    ]
    assert cells and cells != [c for c in plan(source) if c.run.model.width == 16]
    plans.write_plan(tmp_path, source, cells, {})
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_version": 3}))
    records.run_directory(tmp_path, cells[0].run.run_id).start(cells[0].run)
    assert plans.continued_plan(tmp_path)[1] == cells


def test_a_folder_begun_under_another_configuration_is_refused(tmp_path, run):
    directory = records.run_directory(tmp_path, run.run_id)
    directory.start(run)
    directory.start(dataclasses.replace(run, experiment="renamed"))
    with pytest.raises(UserError, match="seed was 0, now 5"):
        directory.start(dataclasses.replace(run, seed=5))


def test_metrics_rewind_to_the_step_resumed_from(tmp_path):
    directory = records.RunDirectory(tmp_path)
    rows = [{"step": i, "flops": 10 * i, "loss": 1.0} for i in range(1, 6)]
    directory.metrics_writer().append(rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "fl')  # cut off by a kill
    assert directory.metrics() == rows
    directory.rewind_metrics(3)
    directory.metrics_writer().append([{"step": 4, "flops": 40, "loss": float("inf")}])
    assert [row["step"] for row in directory.metrics()] == [1, 2, 3, 4]
    assert directory.metrics()[-1]["loss"] is None
    assert directory.last_flops() == 40


def _hold(path, ready, done):
    with records.RunDirectory(path).lock() as mine:
        assert mine
        ready.set()
        done.wait(30)


def test_one_owner_at_a_time_and_a_killed_one_leaves_the_run_free(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    assert ready.wait(10)
    directory = records.RunDirectory(tmp_path)
    with directory.lock() as mine:
        assert not mine
    assert directory.owner().split()[-1] == str(holder.pid)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with directory.lock() as mine:
        assert mine


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}', "cos\nsystem\n(S'true'"])
def test_a_broken_plan_is_one_line(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=r"plan\.json"):
        plans.read_plan(tmp_path)


@pytest.mark.parametrize("value", [None, 3, True, "x", [[]], {"a": 1}, 10**400])
@pytest.mark.parametrize(
    "place", ["cells", "cells 0", "cells 0 run", "cells 0 run model", "cells 0 run steps",
              "experiment", "experiment ladder", "experiment vary", "experiment budgets", "corpora",
              "corpora k", "corpora k data_fingerprint"],
)  # fmt: skip
def test_a_value_that_a_plan_cannot_have_is_one_line_(tmp_path, place, value):
    source = experiment()
    facts = {"corpora": {"k": {"data_fingerprint": "a"}}}
    plans.write_plan(tmp_path, source, plan(source), facts)
    content = here = json.loads((tmp_path / "plan.json").read_text())
    *path, name = (int(part) if part.isdigit() else part for part in place.split())
    for part in path:
        here = here[part]
    here[name] = value
    (tmp_path / "plan.json").write_text(json.dumps(content))
    try:
        status.text(tmp_path)
        plans.planned_text(plans.read_plan(tmp_path)[2], source.data)
        plans.write_plan(tmp_path, source, plan(source), facts)
    except UserError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)
    else:  # as of an old plan, or a run of 3 steps
        assert (place, value) in (
            ("corpora k data_fingerprint", None), ("corpora k", {"a": 1}), ("cells 0 run steps", 3)
        )  # fmt: skip


def test_a_run_that_is_planned_twice_is_one_line(tmp_path):
    plans.write_plan(tmp_path, experiment(), plan(experiment()), {})
    content = json.loads((tmp_path / "plan.json").read_text())
    content["cells"].append(content["cells"][0])
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"plan\.json: run \S+ is planned 2 times"):
        plans.read_plan(tmp_path)


def test_no_plan_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no plan\.json"):
        results.collect(tmp_path)


def test_results_are_json_without_nan(tmp_path, run):
    directory = records.run_directory(tmp_path, run.run_id)
    directory.finish(run, "done", "", {"loss": 1.0, "mfu": float("nan")})
    text = (directory.path / "result.json").read_text()
    assert "NaN" not in text and json.loads(text)["mfu"] is None


def test_several_who_write_a_plan_at_once_agree_on_one(tmp_path):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), corpora("a"))
    before = (tmp_path / "plan.json").read_bytes()
    plans.write_plan(tmp_path, source, plan(source), corpora("a"))
    assert (tmp_path / "plan.json").read_bytes() == before
    with pytest.raises(UserError, match="data fingerprint a, and here it is b"):
        plans.write_plan(tmp_path, source, plan(source), corpora("b"))
    assert (tmp_path / "plan.json").read_bytes() == before


DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5_000


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", "3", "null", "true", '"done"', DEEP,
        f'{{"status": "done", "loss": {DEEP}}}', LONG,
        f'{{"status": "done", "loss": {LONG}}}', '{"status": "done", "loss": 1e400}',
        f'{{"status": "done", "loss": {LONG[:400]}}}', '{"loss": NaN}', '{"loss": 2.0}',
        '{"status": "done", "loss": NaN}', '{"status": "done", "loss": "2.0"}',
        '{"status": "done", "loss": true}', '{"status": "done", "loss": [2.0]}',
        '{"status": "done"}', '{"status": "Done", "loss": 2.0}',
        '{"status": "done", "loss": -3}', '{"status": "done", "loss": 0.0}',
        '{"status": "done", "loss": 2.0, "bits_per_byte": -1.0}',
        '{"status": ["done"], "loss": 2.0}',
        '{"status": "done", "loss": 2.0, "wall_seconds": "an hour"}',
        '{"status": "done", "loss": 2.0, "params_total": "many"}',
        '{"status": "done", "loss": 2.0, "tokens": null, "steps": NaN}',
        '{"status": "done", "loss": 2.0, "run_id": "another"}', b"\xff\xfe{}", b"\0" * 20,
    ],
    ids=lambda content: repr(content[:50]),
)  # fmt: skip
def test_a_damaged_result_is_one_line_with_its_path_and_never_a_run_that_is_missing(
    tmp_path, content
):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    folder = records.run_directory(tmp_path, planned(source)[0].run.run_id).path
    storage.write_bytes_atomic(
        folder / "result.json", content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(UserError) as error:
        results.collect(tmp_path)
    told = str(error.value)
    assert told.startswith(f"{folder}/result.json") and told.endswith("is trained anew")
    assert "\n" not in told and len(told) < len(str(folder)) + 300


@pytest.mark.parametrize("name", ["failure.json", "heartbeat.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", "3", "null", DEEP, '{"step": "5"}'])
def test_another_damaged_file_of_a_run_is_one_line_with_its_path(tmp_path, name, content):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    folder = records.run_directory(tmp_path, planned(source)[0].run.run_id).path
    storage.write_text_atomic(folder / name, content)
    first, *others = status.rows(tmp_path)
    assert first["status"] == results.DAMAGED and "\n" not in first["reason"]
    assert first["reason"].startswith(f"{folder / name}: ")
    assert first["reason"].endswith("remove this file")
    assert {row["status"] for row in others} == {"missing", "rejected"}


DAMAGED_LINES = (
    b"[]", b"3", b"{}", b"null", b'"text"', b"", b"{", b'{"step": 2, "loss": "low"}', b"\xff",
    b'{"step": "2", "loss": 1.0}', b'{"step": null}', b'{"loss": 1.0}', b'{"step": 2, "loss": []}',
    b'{"step": 2, "loss": true}', b'{"step": 2, "loss": NaN}', b'{"step": 2, "loss": 1e400}',
    LONG.encode(), DEEP.encode(), b'{"step": 2, "loss": %s}' % LONG[:400].encode(),
)  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED_LINES, ids=lambda line: repr(line[:40]))
def test_a_damaged_line_of_metrics_is_left_out_counted_and_said_on_resume(tmp_path, line, caplog):
    directory = records.RunDirectory(tmp_path)
    rows = [{"step": i, "flops": 10 * i, "loss": 1.0} for i in (1, 3)]
    first, last = (json.dumps(row).encode() + b"\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_bytes(first + line + b"\n" + last)
    assert directory.metrics_and_damage() == (rows, 1)
    for _ in range(2):  # whoever reads it later is told too
        caplog.clear()
        directory.rewind_metrics(3)
        assert "metrics.jsonl: damaged or gone, lines that are lost: 1" in caplog.text
        assert directory.metrics_and_damage() == (rows, 1)
    caplog.clear()
    directory.rewind_metrics(1)
    assert not caplog.text  # its step is written anew
    assert directory.metrics_and_damage() == (rows[:1], 0)
    (tmp_path / "metrics.jsonl").write_bytes(first + line)
    assert directory.metrics_and_damage() == (rows[:1], 0)  # cut off by a kill
    assert directory.last_flops() == (0 if line else 10)


@pytest.mark.parametrize(
    "lines,step,lost",
    [
        ([50, 100, None], 149, 0),  # of step 150, which comes again
        ([50, 100, None], 150, 1),
        ([50, 100, None, None], 170, 1),
        ([50, None, 150, None, 250], 200, 2),
        ([None, None], 60, 1),
        ([], 149, 2),  # the whole file is gone
        ([], 49, 0),
        ([50, 100], 150, 0),  # nobody knows of another `log_every`
    ],
)
def test_lost_lines_of_metrics_are_those_up_to_where_the_run_goes_on(tmp_path, lines, step, lost):
    directory = records.RunDirectory(tmp_path)
    text = "".join("?\n" if line is None else f'{{"step": {line}}}\n' for line in lines)
    if lines:
        (tmp_path / "metrics.jsonl").write_text(text)
    directory.rewind_metrics(step, log_every=50)
    kept = [{"step": line} for line in lines if line is not None and line <= step]
    assert directory.metrics_and_damage() == (kept, lost)


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", "a/b", "../../x", "/tmp/x", "a\0b", "a\\b", " ", "a\n", ".hidden", "~x", "C:x",
     "x" * 251, "ü" * 126],
    ids=lambda run_id: repr(run_id[:10]),
)  # fmt: skip
def test_a_run_id_that_is_no_plain_name_is_refused_wherever_it_is_read(tmp_path, run, run_id):
    """The folder of a run is made, locked and written by its name."""
    with pytest.raises(UserError, match=r"run\.run_id = .*one plain name"):
        dataclasses.replace(run, run_id=run_id)
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    content = json.loads((tmp_path / "plan.json").read_text())
    content["cells"][1]["run"]["run_id"] = run_id
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"plan\.json: cells\[1\].*one plain name"):
        results.collect(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(content["cells"][1]["run"]))
    with pytest.raises(UserError, match=r"config\.json.*one plain name"):
        needs.read_run(tmp_path / "config.json")
