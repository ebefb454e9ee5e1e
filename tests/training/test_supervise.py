"""The parent of workers: nobody waits for ever, and nothing stays behind, whatever ends it."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.plans import write_plan
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.training import supervise, worker

# A worker that says what it was told, and then does as it is asked.
STUB = """
import json, os, signal, sys, time
runs, how = json.loads(sys.stdin.readline()), sys.argv[1]
print(os.getpid(), len(runs), flush=True)
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "damage":
    from pathlib import Path
    folder = Path(sys.argv[2]) / "runs" / runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text("[]")
    time.sleep(0.5)
    print("ended", flush=True)
else:
    time.sleep(60)
"""


@pytest.fixture
def cells(tmp_path):
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 12)))
    write_plan(tmp_path, source, plan(source), {})
    return plan(source)


def stubbed(monkeypatch, how):
    def command(workdir, group):
        return [sys.executable, "-c", STUB, how, str(workdir)]

    monkeypatch.setattr(supervise, "_command", command)
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.05)


def pids(workdir, count):
    """Of `count` stubs, once all have been told their runs."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        said = [log.read_text().split() for log in (workdir / "logs").glob("*.log")]
        if sum(map(bool, said)) == count:
            return [int(words[0]) for words in said]
        time.sleep(0.02)
    raise AssertionError("no worker began")


def is_there(pid):
    """Whether a process is there that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def afterwards(action):
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["deaf", "stopped"])
def test_a_worker_that_does_not_answer_is_named_and_a_second_ctrl_c_ends_it(
    monkeypatch, tmp_path, cells, capfd, how
):
    stubbed(monkeypatch, how)
    monkeypatch.setattr(supervise, "ANSWER_SECONDS", 0.1)
    there = []

    def person():
        there.extend(pids(tmp_path, 1))
        if how == "stopped":
            os.kill(there[0], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 30
        said = ""
        while "waiting for worker" not in said and time.monotonic() < end:
            said += capfd.readouterr().err
            time.sleep(0.05)
        there.append(said)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler that insists lets workers save
        time.sleep(0.5)
        there.append(is_there(there[0]))
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 10
        while is_there(there[0]) and time.monotonic() < end:
            time.sleep(0.05)
        there.append(is_there(there[0]))
        if there[-1]:  # else the parent would wait for ever
            os.kill(there[0], signal.SIGKILL)

    thread = afterwards(person)
    with pytest.raises(KeyboardInterrupt):
        supervise.run(tmp_path, cells, lambda progress: None, workers=1)
    thread.join(60)
    pid, said, there_after_term, there_after_ctrl_c = there
    assert f"waiting for worker {pid} to save and end (see {tmp_path}/logs/" in said
    assert there_after_term and not there_after_ctrl_c


def test_ctrl_c_ends_workers_that_answer(monkeypatch, tmp_path, cells, capfd):
    stubbed(monkeypatch, "sleep")
    there = []

    def person():
        there.extend(pids(tmp_path, 1))
        os.kill(os.getpid(), signal.SIGINT)

    thread = afterwards(person)
    with pytest.raises(KeyboardInterrupt):
        supervise.run(tmp_path, cells, lambda progress: None, workers=1)
    thread.join(60)
    assert not is_there(there[0]) and "waiting" not in capfd.readouterr().err


def test_a_fault_of_the_parent_leaves_no_worker(monkeypatch, tmp_path, cells):
    stubbed(monkeypatch, "deaf")
    there = []

    def fault(progress):
        there.extend(pids(tmp_path, 1))
        raise RuntimeError("no room for the bar")

    with pytest.raises(RuntimeError):
        supervise.run(tmp_path, cells, fault, workers=1)
    assert not is_there(there[0])


def test_a_result_that_is_damaged_meanwhile_does_not_end_the_parent(monkeypatch, tmp_path, cells):
    stubbed(monkeypatch, "damage")
    rows = supervise.run(tmp_path, cells, lambda progress: None, devices_per_cell=1, workers=1)
    assert rows[0]["status"] == "damaged" and "remove this file" in rows[0]["reason"]
    (first, *_) = sorted((tmp_path / "logs").glob("*.log"))
    assert first.read_text().endswith("ended\n")


def test_files_that_were_damaged_before_are_left_to_the_worker(monkeypatch, tmp_path, cells):
    for cell, name in zip(cells, ("config.json", "result.json"), strict=True):
        run_directory(tmp_path, cell.run.run_id).path.mkdir(parents=True)
        (run_directory(tmp_path, cell.run.run_id).path / name).write_text("{")
    seen = []
    monkeypatch.setattr(supervise, "_supervise", lambda w, groups, *rest: seen.extend(groups) or "")
    rows = supervise.run(tmp_path, cells, lambda progress: None, devices_per_cell=1, workers=1)
    assert set(seen[0].cells) == set(cells)
    assert [row["status"] for row in rows] == ["missing", "damaged"]  # its table has both
    assert "result.json: is not JSON" in rows[1]["reason"]


def test_more_runs_than_a_pipe_holds_are_told(monkeypatch, tmp_path, cells):
    run = replace(cells[0].run, run_id="a" * 100)
    stub = [sys.executable, "-c", STUB.replace("time.sleep(60)", "pass"), ""]
    monkeypatch.setattr(supervise, "_command", lambda workdir, group: stub)
    group = supervise.Group(supervise.placement.Place(()), (replace(cells[0], run=run),) * 1000)
    process = supervise._spawn(tmp_path, group, 0)
    assert process.wait(60) == 0
    assert (tmp_path / "logs").glob("*.log").__next__().read_text().split()[1] == "1000"


ORPHANS = """
import os, sys, time
from pathlib import Path
from chinchilla_jax.experiment import plans
from chinchilla_jax.training import placement, supervise
folder = Path(sys.argv[1])
cells = tuple(plans.read_plan(folder)[1])
group = supervise.Group(placement.Place((), {"JAX_PLATFORMS": "cpu"}), cells)
print(supervise._spawn(folder, group, 0).pid, flush=True)
time.sleep(float(sys.argv[2]))
os._exit(9)
"""


@pytest.mark.parametrize("seconds", [0, 0.3, 1])
def test_a_worker_whose_parent_dies_ends_whenever_that_is(tmp_path, cells, seconds):
    """Also before it has read a line of Python, when it could not know its parent's process id."""
    parent = subprocess.run(
        [sys.executable, "-c", ORPHANS, str(tmp_path), str(seconds)],
        capture_output=True,
        text=True,
    )
    pid, end = int(parent.stdout), time.monotonic() + 60
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_there(pid)


def test_a_worker_whose_parent_dies_before_it_has_told_all_ends(monkeypatch):
    said = iter([b'["1e11-8x1', b""])
    monkeypatch.setattr(worker, "os", SimpleNamespace(read=lambda file, most: next(said)))
    with pytest.raises(SystemExit):
        worker._told_by_parent()


GOES_ON = """
import os, signal, sys, threading, time
from chinchilla_jax.training import worker
worker.ORPHAN_SECONDS = 0.5
print(worker._told_by_parent(), flush=True)
gone = worker._watch_parent()
print("watching", flush=True)
for _ in range(1200):
    time.sleep(0.05)
    if sys.argv[1] == "answers" and gone.is_set():
        print("saved", flush=True)
        sys.exit(0)
"""


@pytest.mark.parametrize("how", ["answers", "hangs", "stopped"])
def test_an_orphan_may_save_and_is_ended_if_it_does_not_end(tmp_path, how):
    """Its parent is a process by itself, which is killed; a stopped orphan is woken for it."""
    parent_code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]],"
        " stdin=subprocess.PIPE, start_new_session=True)\n"
        "child.stdin.write(b'[\"a\"]\\n'); child.stdin.flush()\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    said = tmp_path / "said"
    with said.open("w") as file:
        parent = subprocess.Popen([sys.executable, "-c", parent_code, GOES_ON, how], stdout=file)
    end = time.monotonic() + 60
    while "watching" not in said.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    pid = int(next(line for line in said.read_text().splitlines() if line.isdecimal()))
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_there(pid)
    assert ("saved" in said.read_text()) == (how == "answers")


def test_orphans_have_ended_within_ten_seconds():
    assert worker.ORPHAN_SECONDS < 10


def test_a_run_begun_from_a_shell_outlives_it(monkeypatch):
    """`nohup ... train &`, and the shell is left: the run goes on, a signal still stops it."""
    handlers = {}
    monkeypatch.setattr(signal, "signal", lambda number, what: handlers.update({number: what}))
    stop = worker.stop_requested()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not stop()
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert stop()
