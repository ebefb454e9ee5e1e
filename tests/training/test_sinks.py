"""TensorBoard and W&B hold every step once, however often a run was killed."""

import contextlib
import inspect
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import Execution
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import sinks
from chinchilla_jax.training.loop import train
from tests.training import fake_wandb, wandb_server
from tests.training.helpers import small_run


def _row(step):
    return {"step": step, "tokens": 128 * step, "loss": 2.0 + 1 / step, "learning_rate": 1e-3,
            "grad_norm": None, "seconds": 0.1 * step}  # fmt: skip


def _killed_and_resumed(run, directory, seen=lambda: None):
    """Steps 1 to 20 of which a kill takes 13 to 16 back: they come again."""
    for first, last in ((1, 16), (13, 20)):
        directory.rewind_metrics(first - 1)
        (sink,) = sinks.opened(run, directory)
        rows = [_row(step) for step in range(first, last + 1)]
        directory.metrics_writer().append(rows)
        for row in rows:
            sink.write([row])
        sink.flush()
        seen()
        sink.end(None if last < 20 else {"status": "done", "loss": 2.0})


def _records(data):
    """The payloads of a file of TFRecords."""
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + size]
        data = data[16 + size :]


def test_tensorboard_has_every_step_once(tmp_path, monkeypatch):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    run = small_run(training={"tensorboard": True})
    now = time.time()

    def later():  # event files are named by the second in which they were begun
        monkeypatch.setattr(time, "time", lambda: now + 100)

    _killed_and_resumed(run, RunDirectory(tmp_path), later)
    kept = {}
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        for record in _records(file.read_bytes()):
            event = event_pb2.Event.FromString(record)
            if event.HasField("session_log"):  # what TensorBoard drops of what it has read
                kept = {name: [s for s in steps if s < event.step] for name, steps in kept.items()}
            for value in event.summary.value:
                kept.setdefault(value.tag, []).append(event.step)
    assert kept == {"loss": [*range(1, 21)], "learning_rate": [*range(1, 21)]}


@pytest.mark.parametrize("offline", [True, False])
def test_wandb_is_told_every_step_once_however_often_a_run_is_killed(
    offline, tmp_path, monkeypatch
):
    """Whether what was not told before the kill lies behind the checkpoint or before."""
    stand_in, server = fake_wandb.module(offline)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run, directory = small_run(training={"wandb": "tests"}), RunDirectory(tmp_path)
    seen = []
    for first, last in ((1, 16), (9, 18), (18, 18), (17, 20)):
        directory.rewind_metrics(first - 1)
        (sink,) = sinks.opened(run, directory)
        seen.append((tmp_path / "wandb_id").read_text())
        for step in range(first, last + 1):
            directory.metrics_writer().append([_row(step)])
            sink.write([_row(step)])
    sink.end({"status": "done", "loss": 2.0, "mfu": None, "gradient": float("inf")})
    assert len(set(seen)) == 1
    files = [*tmp_path.glob("wandb/*/*.wandb")]
    if offline:
        (file,) = files  # one run, of which `wandb sync` sends one
        history, summary, exit_code = json.loads(file.read_text())
        assert (summary, exit_code) == ({"result/status": "done", "result/loss": 2.0}, 0)
    else:
        ((place, history),) = server.items()
        assert place == ("tests", seen[0]) and not files
    assert [step for step, _ in history] == [*range(1, 21)]
    for step, row in history:
        wanted = ("tokens", "loss", "learning_rate", "seconds")
        assert row == {name: _row(step)[name] for name in wanted}


@pytest.fixture
def offline(monkeypatch):
    wandb = pytest.importorskip("wandb", reason="no wandb: pip install chinchilla_jax[wandb]")
    wandb.teardown()  # it reads the environment once
    monkeypatch.setenv("WANDB_MODE", "offline")
    return wandb


def _of_wandb(folder):
    """id, [{column: value}] of every step, and the summary of the offline runs in a folder.

    The log of a run is LevelDB's: blocks of 32 kB with pieces of records, behind a head of 7 bytes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, pieces, steps, summary, names = file.read_bytes(), 7, b"", [], {}, set()
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            _, size, kind = struct.unpack("<IHB", data[at : at + 7])
            pieces += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # whole, or the last piece
                record, pieces = Record.FromString(pieces), b""
                names |= {record.run.run_id} - {""}
                if record.history.item:
                    items = {"/".join(i.nested_key) or i.key: i.value_json
                             for i in record.history.item}  # fmt: skip
                    steps.append({name: float(text) for name, text in items.items()
                                  if not name.startswith("_") or name == "_step"})  # fmt: skip
                summary |= {i.key or "/".join(i.nested_key): i.value_json
                            for i in record.summary.update}  # fmt: skip
        found.append((names, steps, summary))
    ((names, steps, summary),) = found  # one run, whatever was killed
    (identity,) = names
    return identity, steps, summary


KILLED = """
import os, signal, sys
from pathlib import Path
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import sinks
from tests.training.helpers import small_run

directory, first, last = RunDirectory(Path(sys.argv[1])), *map(int, sys.argv[2:])
directory.rewind_metrics(first - 1)
(sink,) = sinks.opened(small_run(training={"wandb": "tests"}), directory)
rows = [{"step": step, "tokens": 128 * step, "loss": 2.0 + 1 / step, "grad_norm": None}
        for step in range(first, last + 1)]
directory.metrics_writer().append(rows)
sink.write(rows)
sink.flush()
if last < 20:
    os.kill(os.getpid(), signal.SIGKILL)
sink.end({"status": "done", "loss": 2.0})
"""


def test_wandb_has_every_step_once(tmp_path, offline):
    """A process each: W&B's own ends with it, and writes what it has after `finish` returned."""
    inspect.signature(offline.init).bind(
        **dict.fromkeys(inspect.signature(fake_wandb.module(True)[0].init).parameters)
    )
    seen = []
    for first, last in ((1, 16), (13, 20)):
        command = [sys.executable, "-c", KILLED, tmp_path, str(first), str(last)]
        ended = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        assert ended.returncode == (-signal.SIGKILL if last < 20 else 0)
        seen.append((tmp_path / "wandb_id").read_text())
    identity, steps, summary = _of_wandb(tmp_path)
    assert seen == [identity] * 2
    assert [int(row["_step"]) for row in steps] == [*range(1, 21)]
    for row in steps:
        assert row["loss"] == pytest.approx(2.0 + 1 / row["_step"])
        assert "grad_norm" not in row and row["tokens"] == 128 * row["_step"]
    assert summary["result/status"] == '"done"' and float(summary["result/loss"]) == 2.0


@pytest.mark.slow
def test_wandb_on_a_server_has_every_step_once(tmp_path, offline):
    """Whether a kill came before it was sent or behind; and `wandb sync` sends what is offline."""
    waits = KILLED.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True), sys.stdin.read()"
    )
    with wandb_server.served() as (address, runs):
        kept = os.environ | {
            "JAX_PLATFORMS": "cpu", "WANDB_BASE_URL": address, "WANDB_API_KEY": wandb_server.KEY,
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1", "HOME": str(tmp_path),
        }  # fmt: skip
        sent = kept | {"WANDB_MODE": "online"}
        for first, last, sends in (("1", "16", True), ("9", "18", False), ("18", "19", True)):
            command = [sys.executable, "-c", waits, tmp_path / "run", first, last]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(command, env=sent, **pipes) as process:
                assert process.stdout.readline() == b"\n"
                had = sum(map(len, runs.values()))
                until = time.monotonic() + 60
                while sends and sum(map(len, runs.values())) == had and time.monotonic() < until:
                    time.sleep(0.1)
                process.kill()
        command = [sys.executable, "-c", KILLED, tmp_path / "run", "19", "20"]
        subprocess.run(command, env=sent, check=True)
        assert _steps(runs) == {(tmp_path / "run" / "wandb_id").read_text(): [*range(1, 21)]}
        runs.clear()
        for first, last in (("1", "16"), ("13", "20")):
            command = [sys.executable, "-c", KILLED, tmp_path / "other", first, last]
            subprocess.run(command, env=kept)
        (folder,) = tmp_path.glob("other/wandb/offline-run-*")
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", folder], env=sent, cwd=tmp_path, check=True
        )
        assert _steps(runs) == {(tmp_path / "other" / "wandb_id").read_text(): [*range(1, 21)]}


def _steps(runs):
    return {name: [rows[i]["_step"] for i in range(len(rows))] for name, rows in runs.items()}


RUN = """
import sys
from pathlib import Path
from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training.loop import train
from tests.training import fake_wandb, wandb_server
from tests.training.helpers import small_run

text, cache, folder = map(Path, sys.argv[1:])
data = DataConfig(builder="local_text", path=str(text), validation_fraction=0.2)
run = small_run(steps=4000, training={
    "wandb": "tests", "data_parallel": 1, "steps_per_dispatch": 20, "checkpoint_seconds": 0.3,
    "log_every": 10})
train(run, open_corpus(data, cache), RunDirectory(folder))
"""


@pytest.mark.slow
def test_wandb_of_a_run_that_is_killed_is_its_metrics(tmp_path, offline):
    from tests.conftest import write_sentences

    write_sentences_to = tmp_path / "text"
    write_sentences_to.mkdir()
    write_sentences(write_sentences_to)
    directory = RunDirectory(tmp_path / "run")
    command = [sys.executable, "-c", RUN, write_sentences_to, tmp_path / "cache", directory.path]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    for _ in range(2):
        process = subprocess.Popen(command, env=environment)
        logged = len(directory.metrics())
        while process.poll() is None:
            time.sleep(0.02)
            saved = list(directory.path.glob("checkpoints/*/*"))
            if saved and len(directory.metrics()) > logged + 5:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True)
    identity, steps, summary = _of_wandb(directory.path)
    metrics = directory.metrics()
    assert identity == (directory.path / "wandb_id").read_text()
    assert [int(row["_step"]) for row in steps] == [row["step"] for row in metrics]
    assert [row["loss"] for row in steps] == [row["loss"] for row in metrics]
    assert float(summary["result/loss"]) == directory.result()["loss"]


@pytest.mark.parametrize("name,asked", [("tensorboard", True), ("wandb", "ours")])
def test_a_package_that_lacks_is_told_before_anything_else(name, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda package: None)
    sinks.check(small_run(), RunDirectory(tmp_path))
    with pytest.raises(UserError, match=rf"execution\.{name} = .*chinchilla_jax\[{name}\]"):
        sinks.check(small_run(training={name: asked}), RunDirectory(tmp_path))


def test_a_folder_that_is_called_like_a_package_is_none(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sinks.SINKS, "wandb", ("folder_of_runs", sinks.WandB))
    (tmp_path / "folder_of_runs").mkdir()
    run = small_run(training={"wandb": "ours"})
    with pytest.raises(UserError, match=r"needs folder_of_runs"):
        sinks.check(run, RunDirectory(tmp_path))
    (tmp_path / "folder_of_runs" / "__init__.py").touch()
    sinks.importlib.invalidate_caches()
    sinks.check(run, RunDirectory(tmp_path))


def test_of_a_run_in_a_bucket_wandb_keeps_its_files_where_it_is_told(gcs, tmp_path, monkeypatch):
    """And not in whatever folder the program was called in."""
    monkeypatch.setattr(sinks, "_is_installed", lambda package: package == "wandb")
    directory = RunDirectory(storage.path("gs://bucket/runs/small"))
    run = small_run(training={"wandb": "ours"})
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with pytest.raises(
        UserError, match=r"wandb = ours: .*gs://bucket/runs/small is in .*WANDB_DIR"
    ):
        train(run, None, directory)
    assert not [name for name in gcs.objects if name.startswith("runs/small")]
    sinks.check(small_run(), directory)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    sinks.check(run, directory)


def test_a_project_that_wandb_refuses(tmp_path):
    with pytest.raises(UserError, match=r"execution.wandb = 'a/b'.*name of a project"):
        Execution(wandb="a/b")
    (tmp_path / "wandb_id").write_text("no id")
    with pytest.raises(UserError, match=r"wandb_id: 'no id'.*remove this file"):
        sinks._identity(tmp_path / "wandb_id")


def test_without_a_key_it_is_said_what_helps(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="no wandb: pip install chinchilla_jax[wandb]")
    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        contextlib.chdir(tmp_path),
        Path(os.devnull).open() as nothing,
        monkeypatch.context() as patched,
        pytest.raises(UserError, match="WANDB_MODE=offline") as told,
    ):
        patched.setattr(sys, "stdin", nothing)
        sinks.opened(small_run(training={"wandb": "ours"}), RunDirectory(tmp_path))
    assert "\n" not in str(told.value)
