"""What the rule of threads costs a sweep on a CPU, and what it costs a wide cell that is alone.

    python tests/benchmarks/sweep_threads.py [--turns=3] [--seconds=2] [--config.budgets=1e11,3e11]

First the quickstart's sweep in turns, with one thread a cell (`training/threads.py`) and with as
many as XLA takes by itself on the cores that a worker is pinned to, as before there was a rule; the
text is there, compiled programs are not. Then a step of wide models in one process on all cores,
by a pool of one thread and of all: seconds, and whether the losses of the first steps are the same
to the last digit. What is written after `--config.` is the sweep's.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import JaxTraining, Peer, usable_cores

from chinchilla_jax.experiment import config, recipe
from chinchilla_jax.training import threads

BY_ITSELF = """
import runpy, sys
from chinchilla_jax.training import threads
threads.environment = lambda count: {}
sys.argv[0] = "chinchilla_jax.sweep"
runpy.run_module("chinchilla_jax.sweep", run_name="__main__", alter_sys=True)
"""
PROGRAMS = {"one thread": ["-m", "chinchilla_jax.sweep"], "by itself": ["-c", BY_ITSELF]}


def sweep(program: list[str], arguments: list[str], cache: Path) -> float:
    """Seconds of one."""
    for compiled in cache.glob("compiled*"):
        shutil.rmtree(compiled)
    with tempfile.TemporaryDirectory() as workdir:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, *program, f"--workdir={workdir}", *arguments],
            env=os.environ | {"CHINCHILLA_JAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"},
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begun


def sweeps(turns: int, arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        sweep(PROGRAMS["one thread"], [*arguments, "--cells=0"], cache)  # builds the text
        seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for turn in range(turns):
            for name in list(PROGRAMS)[:: 1 if turn % 2 else -1]:
                seconds[name].append(sweep(PROGRAMS[name], arguments, cache))
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    ours, before = (statistics.median(seconds[name]) for name in PROGRAMS)
    print(f"one thread a cell over as before: {ours / before:.3f} (bar 1.03)")


def step(width: int, count: int, cores: list[int], seconds: float) -> tuple[float, list[float]]:
    """(seconds of a step, losses of the first ones) by a pool of `count` threads on `cores`."""
    shape, batch = recipe.shape_for_width(width, config.RecipeConfig(), 256), 384 // width
    os.environ |= threads.environment(count)  # which the peer's process inherits
    peer = Peer(JaxTraining, cores)
    peer.call("build", shape, batch, 64)
    _, losses = peer.call("train", 8)
    taken, _ = peer.call("train", 16)
    steps = max(16, int(seconds / 3 * 16 / taken))
    best = min(peer.call("train", steps)[0] / steps for _ in range(3))
    peer.close()
    return best, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="of the sweeps; 0: none")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps of each width")
    parser.add_argument("--widths", type=int, nargs="*", default=[32, 48, 64, 96, 128])
    parser.add_argument("--sweep", default="configs/quickstart.py")
    known, overrides = parser.parse_known_args()
    cores = usable_cores(len(os.sched_getaffinity(0)))
    if known.turns:
        small = overrides or ["--config.budgets=1e11,3e11,1e12"]
        sweeps(known.turns, [f"--config={known.sweep}", *small])
    if known.widths:
        print(f" width   ms a step: one thread   {len(cores)} threads   ratio   same digits")
    for width in known.widths:
        (one, losses), (all_of_them, others) = (
            step(width, count, cores, known.seconds) for count in (1, len(cores))
        )
        print(
            f"{width:6d} {1e3 * one:22.2f} {1e3 * all_of_them:11.2f} {one / all_of_them:7.2f}x   "
            f"{losses == others}",
            flush=True,
        )


if __name__ == "__main__":
    main()
