"""A run's digits are those of the threads that it began with, whatever cores it gets."""

import json
import os
import subprocess
import sys

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import placement, supervise, threads
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.placement import Host
from tests.conftest import QUICK_TO_COMPILE
from tests.training.helpers import small_run, with_training

# Sums over the batch of a shape that one thread and two cut differently.
DIGITS = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
from chinchilla_jax.training import threads
threads.use(int(sys.argv[1]))
import jax, numpy as np
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from tests.training.helpers import small_run
shape = {"width": 16, "depth": 1, "head_size": 16, "heads": 1, "kv_heads": 1, "ff_size": 48}
run = small_run(batch_size=16, sequence=64, model=shape, training={"data_parallel": 1})
compiled = compiled_for(run)
tokens = np.random.default_rng(0).integers(0, 256, (4, 16, 65)).astype(np.int32)
with jax.set_mesh(compiled.mesh):
    state = initial_state(compiled.method, compiled.shardings, 0)
    rates = np.full(4, 0.006, np.float32)
    state, _ = compiled.train(state, tokens, rates, np.float32(0.1), np.int32(4))
    print(*(np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(state.params)))
"""


def digits(count, cores):
    environment = {k: v for k, v in os.environ.items() if k not in QUICK_TO_COMPILE}
    done = subprocess.run(
        [sys.executable, "-c", DIGITS, str(count), str(cores)],
        env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(len(placement.usable_cores()) < 2, reason="one core is all there is")
def test_threads_decide_the_digits_and_cores_do_not():
    assert digits(1, 2) != digits(2, 2) == digits(2, 1)


def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: (0, 1, 2))
    directory, run = RunDirectory(tmp_path), small_run()
    wide = small_run(model={"width": 64, "head_size": 8})
    assert [threads.of_cell(r, directory) for r in (run, wide)] == [1, 1]
    assert [threads.alone(r, directory) for r in (run, wide)] == [1, 3]
    asked = with_training(run, threads=2)
    assert threads.of_cell(asked, directory) == threads.alone(asked, directory) == 2
    directory.start(with_training(run, threads=5))
    assert threads.of_cell(asked, directory) == threads.alone(asked, directory) == 5
    assert json.loads((tmp_path / "config.json").read_text())["execution"]["threads"] == 5


@pytest.mark.parametrize(
    "widths,cores,each",
    [((64,), 2, 2), ((64, 16), 9, 4), ((64, 16), 3, 0), ((16,), 8, 0), ((), 8, 0)],
)
def test_wide_cells_that_leave_cores_idle_are_told(widths, cores, each):
    runs = [small_run(model={"width": width, "head_size": width // 8}) for width in widths]
    line = threads.advice(runs, cores)
    assert (f"faster by --config.execution.threads={each}, and" in line) == bool(each) == bool(line)
    assert not threads.advice([with_training(run, threads=1) for run in runs], cores)


def test_other_threads_than_it_began_with_are_told(tmp_path, caplog):
    directory, run = RunDirectory(tmp_path), small_run()
    for count, said in ((0, False), (2, False), (2, False), (1, True)):
        directory.start(with_training(run, threads=count))
        assert ("begun on 2 threads, goes on on 1" in caplog.text) == said


def test_a_run_that_another_program_began_meanwhile_is_left_to_its_threads(
    tmp_path, monkeypatch, text_corpus
):
    """By `train` on all cores, after the sweep chose a worker for it."""
    run = small_run(training={"data_parallel": 1})
    directory = RunDirectory(tmp_path)
    directory.start(with_training(run, threads=2))
    monkeypatch.setenv("PJRT_NPROC", "1")
    with pytest.raises(UserError, match="begun meanwhile, on 2 threads and not on 1"):
        train(run, text_corpus, directory)
    for count in (0, 2):  # several devices have a pool of their own
        threads.check(with_training(run, threads=count), directory)


def test_workers_are_told_and_differ_by_them(tmp_path, monkeypatch):
    """Cells that were begun on two threads have workers of their own; devices have their pool."""
    from chinchilla_jax.experiment.config import Experiment, LadderConfig
    from chinchilla_jax.experiment.grid import plan
    from chinchilla_jax.experiment.plans import write_plan
    from chinchilla_jax.experiment.records import run_directory

    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 12, 16)))
    cells = plan(source)
    write_plan(tmp_path, source, cells, {})
    begun = with_training(cells[1].run, threads=2)
    run_directory(tmp_path, begun.run_id).start(begun)
    seen = []
    monkeypatch.setattr(supervise, "_supervise", lambda w, groups, *rest: seen.extend(groups) or "")
    monkeypatch.setattr(placement, "this_host", lambda: Host("cpu", ("0", "1"), (0, 1)))
    supervise.run(tmp_path, cells, lambda progress: None)
    told = [(g.place.environment["PJRT_NPROC"], [c.index for c in g.cells]) for g in seen]
    assert told == [("1", [0, 2]), ("1", [0, 2]), ("2", [1])]
    seen.clear()
    supervise.run(tmp_path, cells, lambda progress: None, devices_per_cell=2)
    assert seen and all(
        ("PJRT_NPROC" in g.place.environment) == (g.place.environment["JAX_NUM_CPU_DEVICES"] == "1")
        for g in seen
    )
