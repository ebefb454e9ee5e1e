"""launch/slurm.sbatch under a real SLURM of two nodes on this machine.

    python -m pytest -m slow tests/launch/test_slurm.py

Needs root and `apt-get install slurm-wlm munge`; see slurm_cluster.py.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import run_directory
from tests.conftest import write_sentences
from tests.launch.slurm_cluster import cluster, missing
from tests.training.test_sweep import CONFIG, results, start

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
SHORT, LONG = (0, 1), (2, 3)  # cells, of seconds and of many


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text, a configuration and a cache."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "text").mkdir()
    write_sentences(folder / "text")
    config = CONFIG.format(path=str(folder / "text")).replace("(3e9, 1e10)", "(3e9, 1e11)")
    (folder / "config.py").write_text(config)
    return folder


class Slurm:
    """The commands of a cluster, for jobs of launch/slurm.sbatch in one work folder."""

    def __init__(self, environment, place, workdir):
        self._environment = environment | {
            "CHINCHILLA_PYTHON": sys.executable,
            "PYTHONPATH": str(REPOSITORY),
            "JAX_PLATFORMS": "cpu",
            "CHINCHILLA_JAX_CACHE": str(place / "cache"),
        }
        self._config = place / "config.py"
        self.workdir = workdir

    def call(self, *command):
        done = subprocess.run(
            command, env=self._environment, cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()

    def submit(self, *options, cells=()):
        return self.call(
            "sbatch", "--parsable", f"--output={self.workdir}/%A_%a.log", *options,
            "launch/slurm.sbatch", f"--config={self._config}", f"--workdir={self.workdir}", *cells,
        )  # fmt: skip

    def state(self, job):
        shown = self.call("scontrol", "show", "job", job)
        return dict(re.findall(r"(JobState|Restarts|ExitCode|NodeList)=(\S+)", shown))

    def log(self, job):
        return (self.workdir / f"{job}.log").read_text()

    def lines(self, cell):
        metrics = run_directory(self.workdir, cell.run.run_id).path / "metrics.jsonl"
        return metrics.read_text().splitlines()

    def begun(self, cell):
        """Whether a run has logged steps and saved a state."""
        directory = run_directory(self.workdir, cell.run.run_id)
        return directory.last_flops() > 0 and any(directory.checkpoints.glob("*"))

    def wait(self, what, seconds=600):
        for _ in range(2 * seconds):
            if what():
                return
            time.sleep(0.5)
        logs = "\n".join(f"{p.name}: {p.read_text()}" for p in self.workdir.rglob("*.log"))
        raise AssertionError(f"waited {seconds} s; {self.call('squeue')}\n{logs}")

    def wait_for_end(self, job):
        self.wait(lambda: self.state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"))

    def start_now(self, job):
        """Shortens the two minutes for which SLURM 22.05 holds a job that was queued again.

        Its nodes must have forgotten by then that they ended it.
        """
        self.wait(lambda: self.state(job)["JobState"] == "PENDING")
        time.sleep(5)
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.fixture
def slurm(environment, place, tmp_path):
    return Slurm(environment, place, tmp_path)


def test_an_array_loses_tasks_and_ends_as_if_it_had_not(slurm, place, tmp_path_factory):
    """One task is queued again by an operator, one asked to stop as before its time limit."""
    workdir = slurm.workdir
    job = slurm.submit("--array=0-3")
    slurm.wait((workdir / "plan.json").exists)
    cells = read_plan(workdir)[1]
    slurm.wait(lambda: all(slurm.begun(cells[index]) for index in LONG))
    slurm.call("scontrol", "requeue", f"{job}_3")
    slurm.call("scancel", "--signal=TERM", f"{job}_2")  # what --signal=TERM@120 does
    for task in (2, 3):
        slurm.start_now(f"{job}_{task}")
    for task in range(4):
        slurm.wait_for_end(f"{job}_{task}")
    states = [slurm.state(f"{job}_{task}") for task in range(4)]
    assert [(s["JobState"], s["Restarts"]) for s in states] == [
        ("COMPLETED", "0"), ("COMPLETED", "0"), ("COMPLETED", "1"), ("COMPLETED", "1"),
    ]  # fmt: skip
    assert "queued again" in slurm.log(f"{job}_2") and "queued again" not in slurm.log(f"{job}_3")
    for index in LONG:
        run_id = cells[index].run.run_id
        workers = "".join(path.read_text() for path in (workdir / "logs").iterdir())
        steps = [int(n) for n in re.findall(rf"{run_id}: resumed at step (\d+)", workers)]
        assert len(steps) == 1 and 0 < steps[0] < cells[index].run.steps
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    alone = start(place, undisturbed, f"--config={place / 'config.py'}")
    assert alone.wait(600) == 0
    assert len(results(workdir)) == 4 and {r["status"] for r in results(workdir)} == {"done"}
    assert [float(r["loss"]) for r in results(workdir)] == pytest.approx(
        [float(r["loss"]) for r in results(undisturbed)],
        rel=1e-2,  # other threads round otherwise
    )


def test_what_scancel_ends_is_not_queued_again_and_goes_on_when_submitted(slurm):
    job = slurm.submit("--array=7", cells=[f"--cells={LONG[0]}"])
    slurm.wait((slurm.workdir / "plan.json").exists)
    cell = read_plan(slurm.workdir)[1][LONG[0]]
    slurm.wait(lambda: slurm.begun(cell))
    slurm.call("scancel", job)
    slurm.wait_for_end(f"{job}_7")
    slurm.wait(lambda: "interrupted; the same command continues" in slurm.log(f"{job}_7"))
    assert slurm.state(f"{job}_7")["JobState"] == "CANCELLED"
    assert slurm.state(f"{job}_7")["Restarts"] == "0"
    again = slurm.submit("--array=7", cells=[f"--cells={LONG[0]}"])
    slurm.wait_for_end(f"{again}_7")
    assert results(slurm.workdir)[LONG[0]]["status"] == "done"
    assert "resumed at step" in "".join(p.read_text() for p in slurm.workdir.rglob("logs/*"))


def test_a_cell_on_two_nodes_is_saved_by_both_and_goes_on(slurm):
    cells = ["--config.budgets=3e9,1e10", f"--cells={LONG[0]}"]  # slow, on two cores in all
    job = slurm.submit("--nodes=2", cells=cells)
    slurm.wait((slurm.workdir / "plan.json").exists)
    cell = read_plan(slurm.workdir)[1][LONG[0]]
    slurm.wait(lambda: slurm.begun(cell))
    slurm.call("scancel", "--signal=TERM", job)
    slurm.start_now(job)
    slurm.wait_for_end(job)
    state = slurm.state(job)
    assert (state["JobState"], state["NodeList"]) == ("COMPLETED", "n[1-2]")
    assert state["Restarts"] == "1"
    row = results(slurm.workdir)[LONG[0]]
    assert (row["status"], row["device_count"]) == ("done", "2")
    steps = [json.loads(line)["step"] for line in slurm.lines(cell)]
    assert steps == sorted(set(steps)) and steps[-1] == cell.run.steps


def test_a_mistake_ends_the_task_with_its_line(slurm):
    job = slurm.submit("--array=0", cells=["--config.budget=1"])
    slurm.wait_for_end(f"{job}_0")
    assert slurm.state(f"{job}_0")["ExitCode"] == "2:0"
    assert "error: config.budget: no such field; did you mean budgets?" in slurm.log(f"{job}_0")


def test_outside_sbatch_the_script_says_so():
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run(
        ["bash", "launch/slurm.sbatch"],
        env=variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "give this script to sbatch" in done.stderr
