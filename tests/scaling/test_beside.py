"""Work in a copy of the process is the work, and is done here where there can be no copy."""

import subprocess
import sys
import threading

import pytest

from chinchilla_jax.scaling import beside
from tests.scaling.sweeps import write_sweep

# In a process of one thread: the suite's has those of JAX.
PROGRAM = """
import os, sys
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling import beside
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs

first, how = os.getpid(), sys.argv[1]
if how == "alone":
    beside._may_fork = lambda: False

def work():
    if os.getpid() != first and how == "lost":
        os._exit(9)
    if how == "wrong":
        raise ValueError("no work")
    return os.getpid() == first

with beside.beside(work) as result:
    print("here" if result() else "in a copy")
print(to_json(analyse(read_runs(sys.argv[2]), Settings(bootstrap=100))[0]))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    sweep = write_sweep(tmp_path_factory.mktemp("sweep"))
    return {
        how: subprocess.run(
            [sys.executable, "-c", PROGRAM, how, str(sweep)], capture_output=True, text=True
        )
        for how in ("alone", "forked", "lost", "wrong")
    }


def test_the_work_is_done_in_a_copy_or_here(ran):
    where = {how: each.stdout.split("\n")[0] for how, each in ran.items()}
    assert where == {"alone": "here", "forked": "in a copy", "lost": "here", "wrong": ""}
    assert not any(ran[how].stderr for how in ("alone", "forked", "lost"))
    # An error of the copy is the error of the first, once.
    assert ran["wrong"].returncode == 1
    assert ran["wrong"].stderr.count("ValueError: no work") == 1


def test_an_evaluation_has_the_same_digits_either_way(ran):
    alone, forked = (ran[how].stdout.split("\n", 1)[1] for how in ("alone", "forked"))
    assert len(alone) > 1000 and alone == forked


def test_a_process_of_several_threads_is_not_forked():
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        assert not beside._may_fork()
    finally:
        wait.set()
        thread.join()
