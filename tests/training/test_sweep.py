"""A sweep's cells: who takes which, what survives a kill, what a failure leaves behind."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment import fitted_recipe
from chinchilla_jax.experiment.config import (
    DataConfig,
    Experiment,
    LadderConfig,
    Measurement,
    RecipeConfig,
)
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.results import collect
from chinchilla_jax.training import worker
from chinchilla_jax.training.placement import mesh_devices
from chinchilla_jax.training.supervise import _blame
from chinchilla_jax.training.sweep import freeze_plan, select, unmeasured
from tests.command import call
from tests.conftest import QUICK_TO_COMPILE, write_sentences
from tests.experiment.test_fitted_recipe import EVIDENCE, fitted

TIMES = {"wall_seconds", "tokens_per_second", "input_share", "joules_cpu", "joules_memory"}
CONFIG = """
from chinchilla_jax.experiment.config import *
def get_config():
    return Experiment(
        name="tiny", budgets=(3e9, 1e10),
        ladder=LadderConfig(widths=(8, 12), min_tokens_per_param=0.01, min_steps=1),
        data=DataConfig(builder="local_text", path={path!r}, max_epochs=100.0,
                        validation_fraction=0.2),
        recipe=RecipeConfig(sequence_length=16),
        measurement=Measurement(eval_windows=64),
        execution=Execution(log_every=10, checkpoint_seconds=0.3),
    )
"""


def experiment():
    return Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16, 24, 96)))


@pytest.mark.parametrize(
    "selection,order,expected",
    [
        ("", "planned", [0, 1, 2]),
        ("2,0", "planned", [0, 2]),
        ("1,1", "planned", [1]),
        ("0/2", "planned", [0, 2]),
        ("1/2", "planned", [1]),
        ("5/7", "planned", []),
        ("1-2", "planned", [1, 2]),
        ("2, 0-1", "planned", [0, 1, 2]),
        ("1-3", "planned", [1, 2]),  # 3 is rejected
    ],
)
def test_selections(selection, order, expected):
    assert [cell.index for cell in select(plan(experiment()), selection, order)] == expected


def test_parts_cover_every_cell_once():
    cells = plan(experiment())
    parts = [cell.index for i in range(2) for cell in select(cells, f"{i}/2", "smallest")]
    assert sorted(parts) == [0, 1, 2]


def test_orders():
    cells = plan(experiment())
    flops = [cell.flops for cell in select(cells, "", "smallest")]
    assert flops == sorted(flops)
    assert [c.flops for c in select(cells, "", "largest")] == flops[::-1]


@pytest.mark.parametrize(
    "selection,word",
    [("9", "no cell '9'"), ("2/2", "0 to n - 1"), ("a/b", "0 to n - 1"), ("x", "no cell"),
     ("3", "tokens per parameter"), ("3-3", "cell 3: .*tokens per parameter"),
     ("2-0", r"a range goes up; did you mean 0-2\?"), ("1-9", "no cell '9'"),
     ("-1", "no cell '-1'"), ("1-", "no cell '1-'"), ("0,", "beside a comma"),
     ("0,,1", "beside a comma")],
)  # fmt: skip
def test_wrong_selections(selection, word):
    with pytest.raises(UserError, match=word):
        select(plan(experiment()), selection, "planned")


def sentences(folder):
    """A little corpus in a folder that has none yet."""
    (folder / "text").mkdir()
    write_sentences(folder / "text")
    return DataConfig(
        builder="local_text", path=str(folder / "text"), cache=str(folder / "cache"),
        max_epochs=100.0,
    )  # fmt: skip


def test_a_plan_that_holds_out_too_little_is_refused_before_any_cell_runs(tmp_path):
    few = Experiment(
        name="few",
        budgets=(3e9,),
        ladder=LadderConfig(widths=(8,), min_tokens_per_param=0.01, min_steps=1),
        data=sentences(tmp_path),
        measurement=Measurement(eval_windows=100_000),
    )
    with pytest.raises(UserError, match=r"100000 windows of 64 need 6400001; raise data\.valid"):
        freeze_plan(few, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_recipe_that_was_tuned_on_other_text_is_told(tmp_path, caplog):
    file, data = tmp_path / "recipe.json", sentences(tmp_path)

    def told(text):
        evidence = dataclasses.replace(EVIDENCE, data_fingerprint=text)
        file.write_text(fitted_recipe.text(fitted(evidence=evidence)))
        caplog.clear()
        freeze_plan(
            Experiment(
                name="t",
                budgets=(1e10,),
                ladder=LadderConfig(widths=(16,), min_tokens_per_param=0.01, min_steps=1),
                recipe=RecipeConfig(source=str(file)),
                data=data,
                measurement=Measurement(eval_windows=16),
            ),
            tmp_path / "work",
        )
        return [r.getMessage() for r in caplog.records if "other text" in r.getMessage()]

    (line,) = told("text")
    assert line.startswith(f"recipe.source = {file}: was tuned on other text (made up, data")
    corpora = json.loads((tmp_path / "work" / "plan.json").read_text())["corpora"]
    (ours,) = (corpus["data_fingerprint"] for corpus in corpora.values())
    assert told(ours) == told("") == []


def test_a_config_that_names_its_text_is_refused_on_another(tmp_path):
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text", documents=40)
    data = DataConfig(
        builder="local_text",
        path=str(tmp_path / "text"),
        cache=str(tmp_path / "cache"),
        max_epochs=1000.0,
        validation_fraction=0.2,
        fingerprint="0123456789abcdef",
    )
    named = Experiment(
        name="named",
        budgets=(1e9,),
        ladder=LadderConfig(widths=(8,), min_tokens_per_param=0.01, min_steps=1),
        data=data,
        measurement=Measurement(eval_windows=16),
    )
    with pytest.raises(UserError, match=r"data fingerprint 0123456789abcdef.* put the old cache"):
        freeze_plan(named, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    right = open_corpus(data, tmp_path / "cache").data_fingerprint
    named = dataclasses.replace(named, data=dataclasses.replace(data, fingerprint=right))
    assert freeze_plan(named, tmp_path / "work")


def test_text_may_vary_and_each_run_reads_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "prepare_jax", lambda cache: None)
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text")
    source = Experiment(
        name="texts",
        budgets=(1e8,),
        ladder=LadderConfig(widths=(8,), min_tokens_per_param=0.01, min_steps=1),
        data=DataConfig(
            builder="local_text",
            path=str(tmp_path / "text"),
            cache=str(tmp_path / "cache"),
            validation_fraction=0.2,
            max_epochs=100.0,
        ),
        recipe=RecipeConfig(sequence_length=16),
        measurement=Measurement(eval_windows=16),
        execution=Execution(data_parallel=1),
        vary={"data.max_megabytes": (None, 0.002)},
    )
    cells = freeze_plan(source, tmp_path / "work")
    assert freeze_plan(source, tmp_path / "work") == cells  # again: the corpora that it knows
    worker._work(tmp_path / "work", [cell.run for cell in cells], lambda: False)
    whole, part = (run_directory(tmp_path / "work", cell.run.run_id).result() for cell in cells)
    assert whole["data_fingerprint"] != part["data_fingerprint"]
    assert part["unique_tokens"] < 2100 < whole["unique_tokens"]
    assert whole["loss"] != part["loss"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text, a configuration and a cache."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "text").mkdir()
    write_sentences(folder / "text")
    (folder / "config.py").write_text(CONFIG.format(path=str(folder / "text")))
    return folder


def start(place, workdir, *arguments, program="sweep", **variables):
    environment = (
        {name: value for name, value in os.environ.items() if name not in QUICK_TO_COMPILE}
        | variables
        | {
            "CHINCHILLA_JAX_CACHE": str(place / "cache"),
            "JAX_PLATFORMS": "cpu",
        }
    )
    command = [sys.executable, "-m", f"chinchilla_jax.{program}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers see it and end
        raise
    return process.returncode, out, err


def results(workdir):
    with (Path(workdir) / "results.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key not in TIMES}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """A sweep that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    status, out, err = finish(start(place, workdir, f"--config={place / 'config.py'}"))
    assert status == 0, err
    return workdir, out, err


def test_a_sweep_runs_every_cell_and_shows_progress(whole):
    workdir, out, err = whole
    assert {row["status"] for row in results(workdir)} == {"done"}
    assert len(results(workdir)) == 4
    assert "4 done" in out and str(workdir / "results.csv") in out
    assert "100 %" in err and "4 of 4 cells" in err


def test_runs_that_are_done_without_a_measurement_are_told(place, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "w")
    asked = f"--config={place / 'config.py'}", "--config.techniques.quantisation.after=4"
    hint = "runs lack measurements that the plan asks for: run python -m chinchilla_jax.measure"
    status, out, err = finish(start(place, tmp_path / "w", *asked))
    assert status == 0 and f"4 {hint} --workdir={tmp_path / 'w'}\n" in out, err
    assert "lack measurements" not in whole[1]
    cells = read_plan(tmp_path / "w")[1]
    directory = run_directory(tmp_path / "w", cells[0].run.run_id)
    directory.amend({"loss_after_b4": 3.0})
    assert "\n3 runs lack" in unmeasured(tmp_path, cells, collect(tmp_path / "w"))


def test_run_again_it_does_nothing_twice(place, whole):
    workdir = whole[0]
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*")}
    status, _, err = finish(start(place, workdir))
    assert status == 0, err
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*")} == before


def test_killed_while_it_trains_it_changes_no_digit(place, whole, tmp_path):
    """kill -9 of the sweep and its workers, twice; the slow one below, twenty times."""
    config = f"--config={place / 'config.py'}"
    for workers in (2, 1):
        process = start(place, tmp_path, config, f"--workers={workers}")
        await_steps(process, tmp_path)
        kill_all(tmp_path, process)
        assert {row["status"] for row in collect(tmp_path)} != {"done"}  # it was not over
    status, _, err = finish(start(place, tmp_path, config, "--workers=1"))
    assert status == 0, err
    assert results(tmp_path) == results(whole[0])


def test_a_plan_that_is_carried_out_may_grow_and_not_shrink(place, whole, tmp_path, monkeypatch):
    """By a plan, a sweep, and a train of other grids, while the first cells train."""
    monkeypatch.setenv("CHINCHILLA_JAX_CACHE", str(place / "cache"))
    config, workdir = f"--config={place / 'config.py'}", f"--workdir={tmp_path}"
    process = start(place, tmp_path, config, "--workers=1")
    await_steps(process, tmp_path)
    # The last cells have hardly begun; if they have, that is why they may not go.
    refused = rf"carried out here, by {socket.gethostname()} \d+, .*1e10|run 1e10\S+ was begun"
    for program, *more in (("plan",), ("sweep", "--cells=0"), ("train", "--cell=0")):
        done = call(program, config, workdir, "--config.budgets=3e9", *more)
        assert done.returncode == 2 and re.search(refused, done.stderr), done.stderr
        assert done.stderr.count("\n") == 1
    # Cells of the new width stand between the old: positions change, and a run stays what it is.
    done = call("plan", config, workdir, "--config.ladder.widths=8,10,12")
    assert done.returncode == 0, done.stderr
    status, _, err = finish(process)
    assert status == 0, err
    found = {row["run_id"]: row for row in results(tmp_path)}
    assert [found[row["run_id"]] for row in results(whole[0])] == results(whole[0])
    assert sorted(row["status"] for row in found.values()) == ["done"] * 4 + ["missing"] * 2
    assert len(list(tmp_path.glob("runs/*"))) == 4


@pytest.mark.slow
def test_killed_twenty_times_it_changes_no_digit(place, whole, tmp_path):
    config = f"--config={place / 'config.py'}"
    for number in range(20):
        process = start(place, tmp_path, config)
        time.sleep(1.0 + 0.25 * number)
        kill_all(tmp_path, process)
    status, _, err = finish(start(place, tmp_path, config))
    assert status == 0, err
    assert results(tmp_path) == results(whole[0])


def await_steps(process, workdir):
    """Returns when the sweep has logged a step since now, or is over."""

    def logged():
        return {path: path.stat().st_size for path in workdir.glob("runs/*/metrics.jsonl")}

    before, deadline = logged(), time.monotonic() + 60
    while process.poll() is None and logged() == before and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_all(workdir, sweep):
    """SIGKILL to the sweep and to all its workers, which are sessions of their own."""
    pids = {sweep.pid}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if f"--workdir={workdir}" in (entry / "cmdline").read_text().split("\0"):
                    pids.add(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    sweep.communicate()


def test_sigterm_saves_and_a_resumed_sweep_ends_the_same(place, whole, tmp_path):
    config = f"--config={place / 'config.py'}"
    process = start(place, tmp_path, config)
    await_steps(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 130 and "interrupted" in err
    assert (tmp_path / "results.csv").exists()
    assert finish(start(place, tmp_path, config, "--workers=1"))[0] == 0
    assert results(tmp_path) == results(whole[0])


def test_a_cell_that_another_process_has_is_left_alone(place, whole, tmp_path):
    workdir = whole[0]
    cells = read_plan(workdir)[1]
    (tmp_path / "plan.json").write_text((workdir / "plan.json").read_text())
    with run_directory(tmp_path, cells[0].run.run_id).lock() as mine:
        assert mine
        status, out, err = finish(start(place, tmp_path, "--cells=0,1", "--workers=1"))
        assert status == 1
        assert "1 done" in out and f"{cells[0].run.run_id}: missing" in err
        status, _, err = finish(start(place, tmp_path, "--cell=0", program="train"))
        assert status == 2 and "is being run by" in err and str(os.getpid()) in err


def test_a_failing_cell_does_not_stop_the_others(place, whole, tmp_path):
    workdir = whole[0]
    cells = read_plan(workdir)[1]
    (tmp_path / "plan.json").write_text((workdir / "plan.json").read_text())
    bad, damaged = (run_directory(tmp_path, cell.run.run_id).path for cell in cells[1:3])
    # A folder where metrics belong: the run cannot write its own.
    (bad / "metrics.jsonl").mkdir(parents=True)
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("[]")
    status, out, err = finish(start(place, tmp_path, "--workers=1"))
    assert status == 1 and "2 done" in out and "2 failed" in out
    assert f"{bad.name}: failed: " in err and "metrics.jsonl: cannot be read" in err
    assert f"{damaged.name}: failed: {damaged}/config.json: " in err
    assert f"remove {damaged} and the run is trained anew" in err
    (bad / "metrics.jsonl").rmdir()
    shutil.rmtree(damaged)
    assert finish(start(place, tmp_path, "--workers=1"))[0] == 0
    assert results(tmp_path) == results(workdir)


def test_a_worker_that_is_killed_is_told_of_in_its_cell(whole, tmp_path):
    shutil.copy(whole[0] / "plan.json", tmp_path)
    cells = read_plan(tmp_path)[1]
    directory = run_directory(tmp_path, cells[1].run.run_id)
    with directory.lock() as mine:
        assert mine is not None
        assert _blame(tmp_path, cells, os.getpid(), -signal.SIGKILL)
        assert not _blame(tmp_path, cells, os.getppid(), -signal.SIGKILL)
    assert "ended by SIGKILL, as where memory runs out" in (directory.failure() or "")


def test_workers_that_cannot_begin_say_why(place, whole, tmp_path):
    plan_text = (whole[0] / "plan.json").read_text()
    (corpus,) = read_plan(whole[0])[2]["corpora"].values()
    fingerprint = corpus["data_fingerprint"]
    (tmp_path / "plan.json").write_text(plan_text.replace(fingerprint, "0123456789abcdef"))
    status, _, err = finish(start(place, tmp_path, "--workers=1"))
    assert status == 2
    assert "error: the corpus that these runs are of" in err and "0123456789abcdef" in err


def test_one_cell_by_the_train_program(place, whole, tmp_path):
    config = f"--config={place / 'config.py'}"
    status, out, err = finish(start(place, tmp_path, config, "--cell=2", program="train"))
    assert status == 0, err
    name = read_plan(tmp_path)[1][2].run.run_id
    assert "1 done" in out and name in out
    row = next(row for row in results(tmp_path) if row["run_id"] == name)
    expected = next(row for row in results(whole[0]) if row["run_id"] == name)
    assert row == expected  # though it had all cores


@pytest.mark.slow
def test_a_cell_gets_as_many_devices_as_asked_and_as_it_can_use(place, whole, tmp_path):
    """Eight logical devices, cut by fours, for cells whose batches four need not divide."""
    shutil.copy(whole[0] / "plan.json", tmp_path)
    arguments = ("--devices_per_cell=4", "--cells=0,1")
    status, _, err = finish(start(place, tmp_path, *arguments, JAX_NUM_CPU_DEVICES="8"))
    assert status == 0, err
    cells = read_plan(tmp_path)[1][:2]
    sizes = [mesh_devices(cell.run, 4) for cell in cells]
    assert [int(row["device_count"]) for row in results(tmp_path)[:2]] == sizes
    assert max(sizes) > 1
    for row, expected in zip(results(tmp_path)[:2], results(whole[0]), strict=False):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-2)


def test_tasks_of_an_array_started_at_once_share_a_fresh_folder(place, whole, tmp_path):
    """Each builds the same plan, runs its part, and leaves results.csv as complete as it finds."""
    tasks = [
        start(
            place,
            tmp_path,
            f"--config={place / 'config.py'}",
            "--cells=auto",
            "--workers=1",
            SLURM_ARRAY_TASK_ID=str(2 * task + 1),
            SLURM_ARRAY_TASK_MIN="1",
            SLURM_ARRAY_TASK_STEP="2",
            SLURM_ARRAY_TASK_COUNT="2",
        )
        for task in range(2)
    ]
    assert [finish(task)[0] for task in tasks] == [0] * 2
    assert results(tmp_path) == results(whole[0])


def test_a_resolved_run_needs_no_plan(place, whole, tmp_path):
    config = sorted(whole[0].glob("runs/*/config.json"))[0]
    status, out, err = finish(start(place, tmp_path, f"--run={config}", program="train"))
    assert status == 0, err
    assert "1 done" in out and not (tmp_path / "plan.json").exists()


def test_status_reads_without_running(whole, tmp_path):
    done = call("sweep", f"--workdir={whole[0]}", "--status")
    assert done.returncode == 0 and "4 done" in done.stdout
    done = call("sweep", f"--workdir={tmp_path}", "--status")
    assert done.returncode == 2 and "holds no plan.json" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_in_an_object_store_is_interrupted_resumed_and_evaluated(
    place, whole, google_storage, monkeypatch
):
    """Over HTTP to a stand-in that cannot rename, append or lock."""
    for name, value in google_storage.environment.items():
        monkeypatch.setenv(name, value)
    google_storage.faults.clear()
    workdir = "gs://bucket/sweeps/tiny"
    arguments = [f"--config={place / 'config.py'}", "--config.execution.checkpoint_seconds=4"]
    process = start(place, workdir, *arguments)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(name.endswith("/record.json") for name in list(google_storage.objects)):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 130 and "interrupted" in err
    google_storage.fail(503, times=20)
    status, out, err = finish(start(place, workdir))
    assert status == 0 and "4 done" in out and "gs://bucket/sweeps/tiny/results.csv" in out, err
    text = google_storage.objects["sweeps/tiny/results.csv"][0].decode()
    rows = {row["run_id"]: row for row in csv.DictReader(text.splitlines())}
    for row in results(whole[0]):
        assert rows[row["run_id"]]["loss"] == row["loss"]
    process = subprocess.run(
        [sys.executable, "-m", "chinchilla_jax.evaluate", f"--runs={workdir}", "--bootstrap=10"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "report: gs://bucket/sweeps/tiny/report/report.html" in process.stdout
    assert {"fits.json", "report.html"} <= {
        name.removeprefix("sweeps/tiny/report/") for name in google_storage.objects
    }
    assert any(name.startswith("sweeps/tiny/logs/") for name in google_storage.objects)
