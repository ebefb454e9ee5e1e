"""Two and four real processes on one machine, eight CPU devices in all, joined by gloo."""

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

import numpy as np
import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.experiment.results import collect
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.techniques import Techniques, trained_shape
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.training import cluster, distributed, loop, peers
from chinchilla_jax.training.ballot import Ballot
from chinchilla_jax.training.loop import train
from tests.conftest import write_sentences
from tests.training.child import Once
from tests.training.helpers import small_run, with_training

CHILD = Path(__file__).with_name("child.py")
STEPS = 20
ON = {"data_parallel": 8, "fsdp": 1, "tensor": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text").mkdir()
    write_sentences(folder / "text")
    return DataConfig(
        builder="local_text",
        path=str(folder / "text"),
        validation_fraction=0.2,
        cache=str(folder / "cache"),
    )


@pytest.fixture(scope="module")
def corpus(data):
    return open_corpus(data, Path(data.cache))


@pytest.fixture(scope="module")
def the_run(data):
    return dataclasses.replace(small_run(steps=STEPS), data=data)


@pytest.fixture(scope="module")
def alone(the_run, corpus, tmp_path_factory):
    """What a single process with eight devices computes."""
    directory = RunDirectory(tmp_path_factory.mktemp("alone"))
    return train(the_run, corpus, directory), curve(directory)


def curve(directory):
    return np.array([row["loss"] for row in directory.metrics()])


def _ours(output):
    """The lines that are not gloo's, whose threads write pieces of lines into each other."""
    gloo = {
        "Gloo", "Rank", "is", "connected", "to", "peer", "ranks", "Expected", "number", "of",
    }  # fmt: skip
    lines = output.splitlines(keepends=True)
    return [line for line in lines if not set(re.findall(r"[^\W\d]+", line)) <= gloo]


class Job:
    """The processes of one job, each with its part of eight devices."""

    def __init__(
        self, count, workdir, notes, *arguments,
        program="train", timeout=10, pause=0.0, last=(),
    ):  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(8 // count)}
        notes.mkdir(parents=True, exist_ok=True)
        self.notes = [notes / f"{i}" for i in range(count)]
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable, str(CHILD), program, str(self.notes[i]), str(pause),
                    f"--workdir={workdir}", f"--coordinator=127.0.0.1:{port}",
                    f"--num_processes={count}", f"--process_id={i}",
                    f"--peer_timeout={timeout}", *(last if last and i == count - 1 else arguments),
                ],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for i in range(count)
        ]  # fmt: skip

    def end(self):
        """(exit status, output without gloo's, errors) of each process."""
        texts = [process.communicate(timeout=400) for process in self.processes]
        return [
            (p.returncode, "".join(_ours(out)), err)
            for p, (out, err) in zip(self.processes, texts, strict=True)
        ]

    def examples(self):
        """The numbers of the examples that each process read."""
        return [
            [number for line in notes.read_text().splitlines() for number in json.loads(line)]
            for notes in self.notes
        ]

    def await_step(self, directory, step):
        while not any(row["step"] >= step for row in directory.metrics()):
            assert all(process.poll() is None for process in self.processes), self.end()
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def resolved(run, folder):
    """The arguments that train `run`, and its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(to_json(run)))
    return f"--run={folder / 'run.json'}", run_directory(folder, run.run_id)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "processes,mesh",
    [
        (2, (4, 2, 1)),
        pytest.param(2, (1, 8, 1), marks=pytest.mark.slow),
        pytest.param(2, (1, 1, 8), marks=pytest.mark.slow),
        pytest.param(4, (2, 2, 2), marks=pytest.mark.slow),
        pytest.param(4, (1, 4, 2), marks=pytest.mark.slow),
        pytest.param(4, (2, 1, 4), marks=pytest.mark.slow),
    ],
)
def test_processes_train_as_one(processes, mesh, the_run, alone, tmp_path):
    """The same curve; each reads the rows of its own devices; one of them writes."""
    run = with_training(the_run, **dict(zip(ON, mesh, strict=True)))
    argument, directory = resolved(run, tmp_path / "work")
    with Job(processes, tmp_path / "work", tmp_path / "notes", argument) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [0] * processes, ends
    row, losses = alone
    np.testing.assert_allclose(curve(directory), losses, rtol=1e-5)
    result = directory.result()
    assert result["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert result["loss_se"] == pytest.approx(row["loss_se"], rel=1e-5)
    assert result["device_count"] == 8
    assert result["joules_cpu"] == 1.5 * processes and result["joules_gpu"] is None
    # Rows: devices of a process that share a row, along the tensor axis, read it once.
    batch_parts, tensor = mesh[0] * mesh[1], mesh[2]
    devices = np.arange(8).reshape(batch_parts, tensor)
    for number, read in enumerate(job.examples()):
        own = np.flatnonzero((devices // (8 // processes) == number).any(axis=1))
        rows = np.arange(run.batch_size).reshape(batch_parts, -1)[own].ravel()
        expected = [step * run.batch_size + row for step in range(STEPS) for row in rows]
        assert sorted(read) == expected
    together = sorted(n for read in job.examples() for n in set(read))
    if tensor <= 8 // processes:
        assert together == list(range(run.tokens // run.sequence_length))
    # One voice, one writer: each line of the curve once, and nothing of the others anywhere.
    assert [row["step"] for row in directory.metrics()] == list(range(1, STEPS + 1))
    assert "done" in ends[0][1] and not any(out for _, out, _ in ends[1:])
    shards = {name for name in files(directory.path) if name.startswith("checkpoints/")}
    assert files(directory.path) - shards == {"config.json", "metrics.jsonl", "result.json", "lock"}
    written = {name.split("/")[3] for name in shards if "/ocdbt.process_" in name}
    assert written == {f"ocdbt.process_{i}" for i in range(processes)}


@pytest.fixture(scope="module")
def mixed(data, tmp_path_factory):
    """Experts on two texts, one of them in capitals: (its run, its corpus)."""
    folder = tmp_path_factory.mktemp("second")
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"{number} QUITE ANOTHER TEXT. " * 9)
    both = dataclasses.replace(data, mixed_with=(str(folder),), weights=(3.0, 1.0))
    asked = Techniques(experts=Experts(routed=8, per_token=2))
    run = dataclasses.replace(small_run(steps=4), data=both, techniques=asked)
    run = dataclasses.replace(run, model=trained_shape(run.model, asked))
    return run, open_corpus(both, Path(data.cache))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 2, 2), (1, 1, 8)])
def test_two_processes_train_experts_on_a_mixture_as_one(mesh, mixed, tmp_path):
    """The same picks of the same text, of which a quarter is the second text.

    On the first mesh each process has all experts and half of the text, on the other the reverse.
    """
    run, corpus = mixed
    run = with_training(run, **dict(zip(ON, mesh, strict=True)))
    alone = RunDirectory(tmp_path / "alone")
    row = train(run, corpus, alone)
    argument, directory = resolved(run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument, timeout=60) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [0, 0], ends
    result = directory.result()
    for key in ("loss", "loss_se", "experts_largest_load"):
        assert result[key] == pytest.approx(row[key], rel=1e-5), key
    assert result["experts_dropped"] == 0 and result["data_weights"] == [3.0, 1.0]
    for line, other in zip(directory.metrics(), alone.metrics(), strict=True):
        for key in ("loss", "grad_norm", "experts_largest_load"):
            assert line[key] == pytest.approx(other[key], rel=1e-4), key
    read = job.examples()
    assert sorted({n for own in read for n in own}) == list(range(run.steps * run.batch_size))
    assert (set(read[0]) == set(read[1])) == (mesh == (1, 1, 8))
    text = corpus.examples(run.seed, np.unique(np.concatenate(read)), run.sequence_length)
    second = np.isin(text, np.frombuffer(b"QUITE", np.uint8)).any(axis=1)
    assert second.sum() == run.steps * run.batch_size // 4


@pytest.fixture(scope="module")
def stopped(the_run, tmp_path_factory):
    """A job of two processes that SIGTERM to one has ended: (its run, its folder)."""
    folder = tmp_path_factory.mktemp("stopped")
    run = with_training(
        the_run, data_parallel=2, fsdp=2, tensor=2, steps_per_dispatch=1, async_checkpoints="on"
    )
    argument, directory = resolved(run, folder / "work")
    with Job(2, folder / "work", folder / "notes", argument, pause=0.2) as job:
        job.await_step(directory, 3)
        job.processes[1].send_signal(signal.SIGTERM)
        ends = job.end()
    assert [status for status, _, _ in ends] == [130, 130], ends
    assert all("interrupted; the same command continues" in err for _, _, err in ends)
    (saved,) = [int(path.name) for path in directory.checkpoints.iterdir()]
    assert saved < STEPS and directory.result() is None
    # Both had read the same steps.
    first, second = (len(read) for read in job.examples())
    assert first == second == saved * run.batch_size // 2
    return run, folder / "work"


def test_after_sigterm_to_one_of_two_a_single_process_continues(
    stopped, the_run, alone, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "counters", lambda mesh: [Once()])
    run, folder = stopped
    shutil.copytree(folder, tmp_path / "work")
    directory = run_directory(tmp_path / "work", run.run_id)
    row = train(the_run, corpus, directory)
    assert row["status"] == "done" and row["joules_cpu"] == 3 * 1.5
    np.testing.assert_allclose(curve(directory), alone[1], rtol=1e-4)


@pytest.mark.slow
def test_after_sigterm_to_one_of_two_four_processes_continue(stopped, alone, tmp_path):
    run, folder = stopped
    shutil.copytree(folder, tmp_path / "work")
    with Job(
        4, tmp_path / "work", tmp_path / "notes", *resolved(run, tmp_path / "work")[:1]
    ) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [0] * 4, ends
    directory = run_directory(tmp_path / "work", run.run_id)
    assert directory.result()["joules_cpu"] == 6 * 1.5
    np.testing.assert_allclose(curve(directory), alone[1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dies", [1, 0])
def test_a_process_that_dies_ends_the_others_with_a_message(dies, the_run, tmp_path):
    run = with_training(the_run, steps_per_dispatch=1)
    argument, directory = resolved(run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument, pause=0.2, timeout=3) as job:
        job.await_step(directory, 3)
        job.processes[dies].kill()
        ends = job.end()
    status, _, errors = ends[1 - dies]
    assert status == peers.EXIT_PEER_LOST and ends[dies][0] == -signal.SIGKILL
    words = "no sign of life for 3 seconds" if dies else "process 0 (127.0.0.1:"
    assert f"process {dies} (" in errors.splitlines()[-1] and words in errors.splitlines()[-1]
    assert "the same command continues" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert directory.result() is None


def test_an_error_of_one_process_is_the_error_of_all(the_run, tmp_path):
    """Process 1 has another corpus."""
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text", 50)
    data = dataclasses.replace(the_run.data, path=str(tmp_path / "text"))
    other, _ = resolved(dataclasses.replace(the_run, data=data), tmp_path / "other")
    argument, directory = resolved(the_run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument, last=[other]) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [2, 2], ends
    (line,) = {err.splitlines()[-1] for _, _, err in ends}
    assert "data fingerprint of process 1" in line
    assert not (directory.path / "config.json").exists()


def test_a_coordinator_that_cannot_be_reached_is_one_line():
    with socket.socket() as taken, pytest.raises(UserError) as error:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        peers.await_coordinator(address, 3, 0.1)
    assert f"process 3 cannot reach process 0 at {address}" in str(error.value)


SLURM = {
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "4", "SLURM_JOB_ID": "70000",
    "SLURM_STEP_ID": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[007-009],login", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}  # fmt: skip


@pytest.mark.parametrize(
    "changes,coordinator,devices",
    [
        ({}, "gpu007", (1,)),
        ({"SLURM_STEP_NODELIST": "a1,b[2-3]"}, "a1", (1,)),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "gpu007", None),  # one task a node: all its devices
        ({"CUDA_VISIBLE_DEVICES": "0"}, "gpu007", None),  # SLURM gave each task its own
    ],
)
def test_a_slurm_step_of_several_tasks_is_found(changes, coordinator, devices):
    found = cluster.find("", None, None, SLURM | changes)
    host, _, port = found.coordinator.rpartition(":")
    assert (host, found.process_id, found.local_device_ids) == (coordinator, 5, devices)
    assert 1024 < int(port) < 65536
    other_step = cluster.find("", None, None, SLURM | changes | {"SLURM_STEP_ID": "3"})
    assert other_step.coordinator != found.coordinator


@pytest.mark.parametrize("environment", [{}, SLURM | {"SLURM_STEP_NUM_TASKS": "1"}])
def test_one_process_is_alone(environment):
    assert cluster.find("", None, None, environment) is None
    assert cluster.find("", 1, 0, environment) is None
    assert distributed.agree(3) == 3 and distributed.gather(3) == [3]
    assert distributed.on_writer(lambda: 3) == distributed.in_all_processes(lambda: 3) == 3
    assert distributed.is_writer() and distributed.part([1, 2]) == [1, 2]
    assert Ballot(None)(1, 2) == (1, 2)


@pytest.mark.parametrize(
    "flags,words",
    [
        (("host:1", None, None), "give all three"),
        (("", 4, 0), "give all three"),
        (("host", 4, 0), "HOST:PORT"),
        (("host:1", 4, 4), "0 .. 3"),
    ],
)
def test_wrong_flags(flags, words):
    with pytest.raises(UserError, match=words):
        cluster.find(*flags, {})


CONFIG = """
from chinchilla_jax.experiment.config import *
def shape(heads):
    return ModelConfig(
        width=16, depth=1, heads=heads, kv_heads=heads, head_size=16 // heads, ff_size=32
    )
def get_config():
    return Experiment(
        name="tiny", budgets=(1e9,),
        ladder=LadderConfig(shapes=(shape(1), shape(2)), min_tokens_per_param=0.01, min_steps=1),
        data={data},
        recipe=RecipeConfig(sequence_length=16, base_batch_tokens=128, batch_exponent=0.0),
        measurement=Measurement(eval_windows=64), execution=Execution(tensor=2, log_every=10),
    )
"""


@pytest.mark.slow
def test_a_sweep_of_two_processes_walks_over_the_cells_as_one_worker(data, tmp_path):
    """Two devices cannot share one head: that cell fails, in both processes, and the next one
    is trained."""
    (tmp_path / "config.py").write_text(CONFIG.format(data=data))
    config = f"--config={tmp_path / 'config.py'}"
    with Job(2, tmp_path / "work", tmp_path / "notes", config, program="sweep") as job:
        ends = job.end()
    rows = collect(tmp_path / "work")
    assert [status for status, _, _ in ends] == [1, 1], ends
    assert sorted(row["status"] for row in rows) == ["done", "failed"]
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert "execution.tensor = 2: does not divide 1" in failed["reason"]
    assert "execution.tensor = 2: does not divide 1" in ends[0][2]
    assert not ends[1][1] and not ends[1][2]
    assert (tmp_path / "work" / "results.csv").exists()
    first, second = job.examples()
    assert first and not set(first) & set(second)
