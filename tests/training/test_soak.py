"""A sweep that is started, killed, stopped, extended, moved and continued at random.

    python -m pytest -m slow -s tests/training/test_soak.py
    SOAK_SEED=1,2,3 SOAK_MINUTES=20 python -m pytest -m slow -s tests/training/test_soak.py

An undisturbed sweep is made once, for all seeds; with SOAK_COMMON=FOLDER it is kept there for
others of the same code, side by side or later. What must hold in the end: every run that is over is
in the plan and as without a disturbance, to the last digit; no process stays; every program that
ended by itself said why in a line.
"""

import contextlib
import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chinchilla_jax.experiment import lock
from tests.conftest import QUICK_TO_COMPILE, write_sentences

pytestmark = pytest.mark.slow

TIMES = {"wall_seconds", "tokens_per_second", "input_share", "joules_cpu", "joules_memory"}
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
DISK = 192 << 20  # bytes: room for two checkpoints of each run, and little else

SEEDS = os.environ.get("SOAK_SEED", "").split(",")
GROWN = "--config.vary.seed=0,1"  # twice the cells

# The quickstart's cells, their sizes and batches, with a fortieth of its tokens.
CONFIG = """
from dataclasses import replace
from chinchilla_jax.experiment.config import *
from configs.quickstart import get_config as quickstart

def get_config():
    whole, part = quickstart(), 40
    return replace(
        whole,
        budgets=tuple(budget / part for budget in whole.budgets),
        ladder=replace(
            whole.ladder,
            tokens_per_param=20 / part,
            min_tokens_per_param=0.7 / part,
            max_tokens_per_param=400 / part,
            replicates_up_to=(),  # which the grown grid, of other seeds, has not
            min_steps=1,
        ),
        recipe=RecipeConfig(batch_data_tokens=2e6 / part),
        data=DataConfig(builder="local_text", path={path!r}, max_epochs=1e6,
                        validation_fraction=0.2),
        measurement=Measurement(eval_windows=64),
        execution=Execution(checkpoint_seconds=0.5, log_every=10),
    )
"""


class Place:
    """A work folder that may be moved, of a configuration and a cache that all have."""

    def __init__(self, folder, common, random):
        self.folder, self.random = folder, random
        self.workdir = folder / "disk" / "work0"
        (folder / "disk").mkdir()
        self.config, self.cache = common / "config.py", common / "cache"
        self.log = []

    def start(self, program="sweep", *arguments, cores=(), memory=0):
        """A program of ours in a session of its own."""

        def limits():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
            if cores:
                os.sched_setaffinity(0, cores)
            if memory:
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

        environment = {k: v for k, v in os.environ.items() if k not in QUICK_TO_COMPILE}
        command = [sys.executable, "-m", f"chinchilla_jax.{program}"]
        command += [f"--workdir={self.workdir}", f"--config={self.config}", *arguments]
        self.log.append(f"{time.monotonic():.1f} {' '.join(command[2:])} {list(cores)}")
        out = (self.folder / f"out{len(self.log)}").open("w+")
        process = subprocess.Popen(
            command,
            env=environment | {"CHINCHILLA_JAX_CACHE": str(self.cache), "JAX_PLATFORMS": "cpu"},
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=limits,
        )
        process.out = out
        return process

    def pids(self, word=""):
        """Processes that work here, workers too; of those whose command has a word."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                command = (
                    (entry / "cmdline").read_text(errors="replace")
                    if entry.name.isdecimal()
                    else ""
                )
                if str(self.folder) in command and word in command:
                    state = (entry / "stat").read_text().rpartition(") ")[2][0]
                    found += [int(entry.name)] * (state != "Z")
        return found

    def ends(self, process, how):
        """Ends a sweep as `how` says, and sees that nothing of it stays."""
        workers = [pid for pid in self.pids() if pid != process.pid]
        if how == "kill all":
            for pid in (process.pid, *workers):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif how == "stopped":  # a worker that does not answer
            # Not one that is being made, for which the sweep waits in the kernel.
            for pid in self.pids("--worker\0")[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
        else:
            process.send_signal(
                {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}[how]
            )
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.pids()} go on after {how}: {self.log[-3:]}") from None
        self.says_one_line(process)
        end = time.monotonic() + 10
        while self.pids() and time.monotonic() < end:
            time.sleep(0.1)
        assert not self.pids(), f"{self.pids()} stay after {how}: {self.log[-3:]}"

    def says_one_line(self, process):
        if process.returncode in (-signal.SIGINT, -signal.SIGTERM):
            return  # while Python was importing, before a word could be said
        process.out.seek(0)
        said = process.out.read()
        assert "Traceback" not in said, said
        assert process.returncode in (0, 1, 2, 130, -signal.SIGKILL), said
        if process.returncode == 2:
            assert said.count("error: ") == 1, said

    def choices(self):
        """Arguments of a sweep that decide no digit."""
        pick = self.random.choice
        cells = pick(["", "", "0/2", "1/2", "1/3", str(self.random.randrange(24)), "23,5,11"])
        arguments = [f"--cells={cells}", f"--workers={pick([0, 0, 1, 2])}"]
        arguments += [f"--config.order={pick(['smallest', 'largest', 'planned'])}"]
        return arguments, pick([CORES, CORES[:1], CORES[-1:]])

    def results(self):
        with (self.workdir / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {r["run_id"]: {k: v for k, v in r.items() if k not in TIMES} for r in rows}

    def planned(self):
        cells = json.loads((self.workdir / "plan.json").read_text())["cells"]
        return {cell["run"]["run_id"] for cell in cells if cell["status"] == "planned"}

    def finish(self, *arguments):
        for _ in range(3):  # what failed for want of memory or room is tried again
            process = self.start("sweep", *arguments)
            process.wait(3600)
            self.says_one_line(process)
            if process.returncode == 0:
                return
        raise AssertionError(process.out.seek(0) or process.out.read())


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """A folder with text, a configuration and a cache, and the lock of who is making them."""
    folder = Path(os.environ.get("SOAK_COMMON") or tmp_path_factory.mktemp("common")).absolute()
    (folder / "text").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / "config.py").exists():
            write_sentences(folder / "text")
            (folder / "config.py").write_text(CONFIG.format(path=str(folder / "text")))
    return folder


@pytest.fixture(scope="module")
def whole(common, tmp_path_factory):
    """What nothing disturbed: rows by run id."""
    file = common / "whole.json"
    with locked(common):
        if not file.exists():
            place = Place(tmp_path_factory.mktemp("whole"), common, random.Random(0))
            place.finish(GROWN)
            file.write_text(json.dumps(place.results()))
    return json.loads(file.read_text())


@contextlib.contextmanager
def locked(folder):
    with (folder / "lock").open("a") as file:
        lock.flock(file, wait=True)
        yield


@pytest.fixture(params=range(len(SEEDS)), ids=lambda number: f"seed{number}")
def place(request, whole, common, tmp_path):
    seed = int(SEEDS[request.param] or random.SystemRandom().randrange(10**6))
    print(f"\nSOAK_SEED={seed}", flush=True)
    place = Place(tmp_path, common, random.Random(seed))
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(tmp_path / "disk")],
            capture_output=True,
        ).returncode
    )
    print("small disk" if mounted else "no small disk: only root can mount one", flush=True)
    place.small = mounted
    yield place
    for pid in place.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if mounted:
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_forty_interruptions_change_no_digit(place, whole):
    """By signal, moment, choice of cells, number of workers, pinning and order."""
    longest = float(os.environ.get("SOAK_SECONDS", "10"))
    for _ in range(40):
        arguments, cores = place.choices()
        process = place.start("sweep", *arguments, cores=cores)
        moment = place.random.uniform(0, longest)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        place.ends(process, place.random.choice(["INT", "TERM", "KILL", "kill all", "stopped"]))
    place.finish("--config.order=smallest")
    assert place.results().items() <= whole.items()
    assert {place.results()[run_id]["status"] for run_id in place.planned()} == {"done"}


def test_soak(place, whole):
    """Twenty minutes of everything at once, on a small disk, at times with little memory."""
    end = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", "20"))
    done = {}
    while time.monotonic() < end:
        arguments, cores = place.choices()
        more = [GROWN] if place.random.random() < 0.3 or done.get("grown") else []
        done["grown"] = bool(more) or done.get("grown")
        memory = place.random.choice([0, 0, 0, 250 << 20, 400 << 20])  # too little, and enough
        process = place.start("sweep", *arguments, *more, cores=cores, memory=memory)
        for _ in range(place.random.randrange(4)):
            what = place.random.choice(["another", "smaller", "plan", "fill", "train", "wait"])
            done[what] = done.get(what, 0) + 1
            time.sleep(place.random.uniform(0, 4))
            _beside(place, what, more)
        how = place.random.choice(["INT", "TERM", "KILL", "kill all", "stopped", "let"])
        done[how] = done.get(how, 0) + 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60 if how == "let" else place.random.uniform(0, 12))
        place.ends(process, "TERM" if how == "let" else how)
        (place.workdir.parent / "filling").unlink(missing_ok=True)
        if place.random.random() < 0.2 and place.workdir.exists():
            moved = place.workdir.with_name(f"work{len(place.log)}")
            place.workdir = place.workdir.rename(moved)
            done["moved"] = done.get("moved", 0) + 1
    print(done, flush=True)
    place.finish(GROWN)
    over = {path.parent.name for path in place.workdir.glob("runs/*/result.json")}
    assert over == place.planned() == {path.name for path in place.workdir.glob("runs/*")}
    assert place.results() == whole
    assert not place.pids()


def _beside(place, what, more):
    """Something that comes while a sweep runs, and ends before it is disturbed."""
    if what == "fill" and place.small:
        with contextlib.suppress(OSError), (place.workdir.parent / "filling").open("wb") as file:
            for _ in range(DISK >> 20):
                file.write(bytes(1 << 20))
        return
    (place.workdir.parent / "filling").unlink(missing_ok=True)
    if what == "another":
        process = place.start("sweep", "--cells=1/2", "--workers=1", *more)
    elif what == "smaller":
        process = place.start("plan", "--config.ladder.widths=8,12")
    elif what == "plan":
        process = place.start("plan", *more)
    elif what == "train":
        process = place.start("train", "--cell=0", *more)
    else:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait(120)
    place.says_one_line(process)
    if what == "smaller" and place.workdir.exists():
        begun = {path.parent.name for path in place.workdir.glob("runs/*/config.json")}
        assert begun <= place.planned(), "a run was lost"
