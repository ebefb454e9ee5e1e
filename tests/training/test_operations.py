"""What a person who runs this wants: a first page of facts, signs of life, traces, clear faults."""

import dataclasses
import errno
import gzip
import json
import logging
import math
import os
import shutil
import subprocess
import threading

import jax
import pytest

from chinchilla_jax.experiment import faults, lines, lock, plans, results, status, storage
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.counting import count_params, flops_per_step
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.training import announce, heartbeat
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.heartbeat import Heartbeat
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import Interrupted, train
from chinchilla_jax.training.profiling import steps_named
from tests.training.helpers import small_run, with_training

ONE = {"data_parallel": 1}


class TestFirstLines:
    """Devices, mesh, shapes, bytes, FLOPs, code version, corpus."""

    @pytest.mark.parametrize("mesh", [{}, {"data_parallel": 2, "fsdp": 2, "tensor": 2}])
    def test_each_fact_is_there_and_true(self, mesh):
        run = with_training(small_run(), **mesh)
        compiled = compiled_for(run)
        text = "\n".join(
            announce.lines(
                run, compiled.mesh, compiled.abstract_state, "1.2+abc", {"corpus": "feed"}, 4
            )
        )
        axes = [mesh.get("data_parallel", 8), mesh.get("fsdp", 1), mesh.get("tensor", 1)]
        assert (
            "devices: 8 x cpu, 4 processes; mesh: data {} x fsdp {} x tensor {}".format(*axes)
            in text
        )
        assert "width 32, depth 2, heads 8 x 4" in text and "vocabulary 256" in text
        assert "8 sequences of 16 tokens; 12 steps" in text
        step = flops_per_step(run.model, 8, 16, "matmul")
        a_step, in_all = (f"{n:.3e}".replace("e+0", "e") for n in (step, 12 * step))
        assert f"FLOPs: {a_step} a step, {in_all} in all (matmul convention)" in text
        assert f"parameters: {count_params(run.model).total / 1e3:.3g}k" in text
        assert "code: 1.2+abc; corpus feed" in text
        assert len(text.splitlines()) <= 8 and max(map(len, text.splitlines())) < 160

    @pytest.mark.parametrize("mesh", [{}, {"data_parallel": 1, "fsdp": 4, "tensor": 2}])
    def test_bytes_per_device_are_those_of_the_arrays(self, mesh):
        compiled = compiled_for(with_training(small_run(), **mesh))
        with jax.set_mesh(compiled.mesh):
            state = initial_state(compiled.method, compiled.shardings, 0)
        device = compiled.mesh.devices.flat[0]
        there = sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(state)
            for shard in leaf.addressable_shards
            if shard.device == device
        )
        assert announce.bytes_per_device(compiled.abstract_state) == there

    def test_a_run_logs_them_before_its_first_step(self, text_corpus, tmp_path, caplog):
        caplog.set_level(logging.INFO, "chinchilla_jax")
        seen = []
        train(
            small_run(steps=3, training=ONE),
            text_corpus,
            RunDirectory(tmp_path),
            on_progress=lambda step, loss: seen.append(caplog.text),
        )
        for word in (
            "devices: 1 x cpu, 1 process",
            "mesh: ",
            "FLOPs: ",
            "code: ",
            text_corpus.data_fingerprint,
        ):
            assert word in seen[0]


class TestProfile:
    """--profile_steps."""

    @pytest.mark.parametrize("text", ["10", "13:10", "5:5", "a:b", "-1:3", "1:2:3", "10:13.5"])
    def test_a_bad_value_is_one_line(self, text):
        with pytest.raises(UserError, match=r"is FIRST:LAST with FIRST < LAST, as 10:13"):
            steps_named(text, 100)

    def test_beyond_the_end_is_one_line(self):
        with pytest.raises(UserError, match="the run has 12 steps"):
            steps_named("10:13", 12)
        assert steps_named("10:13", 13) == range(10, 13) and not steps_named("", 12)

    def test_exactly_these_updates_are_traced(self, text_corpus, tmp_path, monkeypatch):
        """Whatever a dispatch holds: the state has done 4 updates at the start and 7 at the end."""
        run = small_run(training=ONE | {"steps_per_dispatch": 8})
        done, at = [0], {}
        compiled = compiled_for(run)
        kept = compiled.train

        def counted(state, *rest):
            out = kept(state, *rest)
            done[0] = int(out[0].step)
            return out

        monkeypatch.setattr(
            "chinchilla_jax.training.loop.compiled_for",
            lambda _: dataclasses.replace(compiled, train=counted),
        )
        begin, end = jax.profiler.start_trace, jax.profiler.stop_trace
        monkeypatch.setattr(
            jax.profiler, "start_trace", lambda *a: (at.update(begin=done[0]), begin(*a))
        )
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (at.update(end=done[0]), end()))
        plain = train(run, text_corpus, RunDirectory(tmp_path / "plain"))
        row = train(run, text_corpus, RunDirectory(tmp_path / "traced"), profiled=range(4, 7))
        assert at == {"begin": 4, "end": 7}
        assert row["loss"] == plain["loss"]
        traces = list((tmp_path / "traced" / "profile").rglob("*.trace.json.gz"))
        assert len(traces) == 1
        assert json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"]
        assert list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))

    def test_a_run_that_is_past_them_says_so(self, text_corpus, tmp_path, caplog):
        run, directory = small_run(training=ONE), RunDirectory(tmp_path)
        steps = []
        with pytest.raises(Interrupted):
            train(run, text_corpus, directory, lambda: len(steps) > 1, lambda *a: steps.append(a))
        train(run, text_corpus, directory, profiled=range(1))
        assert "no profile of steps 0:1: the run is at step" in caplog.text
        assert not (tmp_path / "profile").exists()

    def test_a_trace_in_an_object_store(self, text_corpus, gcs, tmp_path):
        directory = RunDirectory(storage.path(f"gs://bucket/{tmp_path.name}"))
        train(small_run(3, training=ONE), text_corpus, directory, profiled=range(1, 2))
        assert [name for name in gcs.objects if name.startswith(f"{tmp_path.name}/profile/")]


class TestHeartbeat:
    """Signs of life."""

    @pytest.fixture
    def quick(self, monkeypatch):
        monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
        monkeypatch.setattr(heartbeat, "STALL_SECONDS", 0.2)

    def test_it_tells_the_step_and_the_process_and_goes_when_the_run_ends(self, quick, tmp_path):
        directory = RunDirectory(tmp_path)
        with Heartbeat(small_run(), directory) as beat:
            beat.beat(1, loss=2.0)
            beat.beat(7, loss=1.5)
            found = _wait(directory.last_heartbeat, lambda state: state and state["step"] == 7)
            assert found["owner"] == lock.myself() and found["loss"] == 1.5
            assert not found["stalled"]
            count = found["count"]
            assert _wait(directory.last_heartbeat, lambda state: state["count"] > count)
        assert directory.last_heartbeat() is None

    def test_a_stall_is_one_warning_and_so_is_its_end(self, quick, tmp_path, caplog):
        caplog.set_level(logging.WARNING, "chinchilla_jax")
        directory = RunDirectory(tmp_path)
        with Heartbeat(small_run(), directory) as beat:
            for step in range(4):
                beat.beat(step)
            assert _wait(directory.last_heartbeat, lambda state: state and state["stalled"])
            assert _wait(lambda: caplog.text, lambda text: "no step has ended for" in text)
            beat.beat(4)
            assert not beat.state()["stalled"]
        assert caplog.text.count("no step has ended") == 1
        assert "goes on at step 4" in caplog.text

    def test_saving_and_evaluating_are_no_stall(self, quick, tmp_path):
        with Heartbeat(small_run(), None) as beat:
            for step in range(4):
                beat.beat(step)
            beat.doing("saving")
            state = beat.state() | {"seconds_since_step": 1e6}
            assert not beat._stalled(1e6) and state["doing"] == "saving"
            beat.beat(5)
            assert beat._stalled(1e6)

    def test_a_disk_that_is_full_does_not_end_the_run(self, quick, tmp_path, monkeypatch, caplog):
        def full(*_):
            raise StorageError("heartbeat.json: cannot be written: No space left on device")

        monkeypatch.setattr(RunDirectory, "heartbeat", full)
        with Heartbeat(small_run(), RunDirectory(tmp_path)) as beat:
            assert _wait(lambda: caplog.text, lambda text: "No space left" in text)
            assert beat._thread.is_alive()


def _wait(look, wanted, seconds=20.0):
    """What `look` returns once it is `wanted`; the deadline only ends a test that fails."""
    ended = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if wanted(found := look()):
            return found
        ended.wait(0.01)
    return None


class TestStatus:
    """`sweep --status`: running, stalled?, silent."""

    @pytest.fixture
    def workdir(self, tmp_path):
        experiment = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16, 24)))
        plans.write_plan(tmp_path, experiment, plan(experiment), {})
        return tmp_path

    def test_what_changes_is_alive_and_what_does_not_is_not(self, workdir, monkeypatch):
        """The hosts' clocks do not matter: nothing in the file is a time of day."""
        monkeypatch.setattr(status, "HEARTBEAT_SECONDS", 0.2)
        names = [row["run_id"] for row in results.collect(workdir)]
        beats = {
            name: {"owner": f"host{i} 12", "step": 5, "doing": "training", "stalled": i == 1,
                   "seconds_since_step": 90.0, "usual_seconds": 0.5, "count": 1, "loss": 2.25}
            for i, name in enumerate(names)
        }  # fmt: skip
        for name, beat in beats.items():
            run_directory(workdir, name).heartbeat(beat)

        def others_go_on(_):
            for name in names[:2]:
                beats[name]["count"] += 1
                run_directory(workdir, name).heartbeat(beats[name])
            threading.Event().wait(0.02)

        found = {row["run_id"]: row for row in status.rows(workdir, others_go_on)}
        assert [found[name]["status"] for name in names] == ["running", "stalled?", "silent"]
        assert (
            "at step 5 of" in found[names[0]]["reason"] and "host0 12" in found[names[0]]["reason"]
        )
        assert "90 s, usually 0.5 s" in found[names[1]]["reason"]
        assert "no sign of life" in found[names[2]]["reason"]

    def test_without_a_run_under_way_nobody_waits(self, workdir):
        def sleep(_):
            raise AssertionError("waited")

        assert {row["status"] for row in status.rows(workdir, sleep)} == {"missing"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A folder that root cannot write either, with what `fill` put there before."""
    place = tmp_path / "read_only"
    place.mkdir()
    mounts = []

    def freeze():
        for command in (
            ["mount", "--bind", str(place), str(place)],
            ["mount", "-o", "remount,ro,bind", str(place)],
        ):
            if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("a read-only mount needs root")
            mounts[:] = [place]
        return place

    yield freeze
    for mount in mounts:
        subprocess.run(["umount", "-l", str(mount)], check=True)


# TensorStore's futures call back into the event loop that Orbax has closed by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestFaults:
    """One line that names the path; not done, nothing half-written; the run goes on later."""

    def test_a_full_disk(self, small_disk, text_corpus, tmp_path):
        run = small_run(6, training=ONE | {"checkpoint_seconds": 1e-6})
        whole = train(run, text_corpus, RunDirectory(tmp_path / "whole"))
        directory = RunDirectory(small_disk / "run")
        ballast = small_disk / "ballast"

        def fill(step, loss):
            """When a checkpoint is there already."""
            if any(directory.checkpoints.glob("*/record.json")) and not ballast.exists():
                ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 16384))

        with pytest.raises(UserError, match="No space left on device") as error:
            train(run, text_corpus, directory, on_progress=fill)
        assert str(small_disk) in str(error.value) and "\n" not in str(error.value)
        assert directory.result() is None
        lines = (directory.path / "metrics.jsonl").read_text()
        assert not lines or lines.endswith("\n")
        for line in lines.splitlines():
            json.loads(line)
        assert not list(directory.path.rglob(".*.tmp"))
        assert list(directory.checkpoints.glob("*/record.json"))  # the one before is as it was
        ballast.unlink()
        again = train(run, text_corpus, directory)
        assert again["status"] == "done" and again["loss"] == whole["loss"]
        steps = [row["step"] for row in directory.metrics()]
        assert steps == sorted(set(steps)) == list(range(1, run.steps + 1))

    def test_a_line_that_does_not_fit_leaves_no_part_of_itself(self, small_disk):
        file = lines.LineFile(small_disk / "lines")
        line = "x" * 100_000 + "\n"
        with pytest.raises(StorageError, match="lines: cannot be written: No space left on device"):
            for _ in range(100):
                file.append(line)
        assert (small_disk / "lines").stat().st_size % len(line) == 0

    def test_a_read_only_folder(self, read_only, text_corpus):
        place = read_only()
        message = "cannot be written: Read-only file system"
        with (
            pytest.raises(UserError, match=message) as error,
            RunDirectory(place / "run").lock(),
        ):
            pass
        assert str(place) in str(error.value)
        with pytest.raises(UserError, match="cannot be written: Read-only file system"):
            train(small_run(training=ONE), text_corpus, RunDirectory(place / "run"))

    @pytest.mark.slow
    def test_a_quota_in_an_object_store(self, gcs, text_corpus, tmp_path):
        """Of the checkpoints too, which go to the store by another library."""
        run = small_run(6, training=ONE | {"checkpoint_seconds": 1e-6})
        directory = RunDirectory(storage.path(f"gs://bucket/{tmp_path.name}"))
        gcs.fail(403, times=10**9, method="POST", part="/checkpoints/")
        gcs.fail(403, times=10**9, method="POST", part="checkpoints%2F")
        with pytest.raises(UserError, match=f"gs://bucket/{tmp_path.name}.*cannot be written"):
            train(run, text_corpus, directory)
        assert directory.result() is None
        gcs.faults.clear()
        assert train(run, text_corpus, directory)["status"] == "done"

    def test_errno_words(self):
        assert (
            faults.reason(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))) == "Disk quota exceeded"
        )


def test_a_run_in_an_object_store_is_interrupted_and_ends_as_if_not(gcs, text_corpus, tmp_path):
    """Its metrics too: flushed before the checkpoint that they lead to."""
    run = small_run(6, training=ONE)
    whole = RunDirectory(tmp_path / "whole")
    train(run, text_corpus, whole)
    directory = RunDirectory(storage.path(f"gs://bucket/{tmp_path.name}"))
    steps = []
    with pytest.raises(Interrupted):
        train(run, text_corpus, directory, lambda: len(steps) > 1, lambda *a: steps.append(a))
    assert directory.result() is None and directory.last_heartbeat() is None
    train(run, text_corpus, directory)

    def told(folder):
        return [(row["step"], row["loss"]) for row in folder.metrics()]

    assert told(directory) == told(whole) and len(told(whole)) == run.steps
    assert math.isfinite(directory.result()["loss"])
    assert directory.result()["loss"] == whole.result()["loss"]
