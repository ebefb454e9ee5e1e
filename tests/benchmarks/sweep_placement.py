"""A whole sweep of small models: each cell over all devices, or many cells at once with a few each.

    python tests/benchmarks/sweep_placement.py                       # eight logical CPU devices
    python tests/benchmarks/sweep_placement.py --platform=gpu --shares 1 2 4 8

Runs the same eight cells by `chinchilla_jax.sweep`, start and compilation included, once for every
arrangement: on the CPU's logical devices (which share its cores) by `--devices_per_cell`, on GPUs
by `--cells_per_device` too. Each arrangement has its own work folder and cache of compiled
programs; the corpus is built before. Wall-clock seconds of the whole sweep, in turns.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.execution import Execution

def get_config():
    return Experiment(
        name="placement",
        budgets=({budget!r},), vary={{"seed": (0, 1)}},
        ladder=LadderConfig(widths={widths!r}, sizes_per_budget=(0,), min_tokens_per_param=0.01,
                            max_tokens_per_param=1e6, min_steps=1),
        # 16 sequences a step in every cell, so that eight devices divide it.
        recipe=RecipeConfig(base_batch_tokens=1024.0, batch_exponent=0.0),
        execution=Execution(save_final=False),
    )
"""


def sweep(folder: Path, environment: dict[str, str], *flags: str) -> float:
    """Seconds of one sweep in a fresh work folder with a fresh cache of compiled programs."""
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "corpora").symlink_to(folder / "cache" / "corpora")
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "chinchilla_jax.sweep", f"--config={folder / 'config.py'}",
         f"--workdir={place / 'runs'}", *flags],
        env=environment | {"CHINCHILLA_JAX_CACHE": str(place)},
        check=True,
        capture_output=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    with (place / "runs" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"done"}
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--devices", type=int, default=8, help="logical devices of the CPU")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 4, 1], help="devices per cell")
    parser.add_argument("--shares", type=int, nargs="+", default=[1], help="cells per device")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 24, 32, 48])
    parser.add_argument("--budget", type=float, default=1e11, help="FLOPs of a cell")
    parser.add_argument("--turns", type=int, default=3, help="of which the median is taken")
    arguments = parser.parse_args()
    environment = dict(os.environ)
    arrangements = {f"--cells_per_device={n}": 1 for n in arguments.shares}
    if arguments.platform == "cpu":
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(arguments.devices)}
        arrangements = {f"--devices_per_cell={n}": n for n in arguments.sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = CONFIG.format(budget=arguments.budget, widths=tuple(arguments.widths))
        (folder / "config.py").write_text(text)
        subprocess.run(
            [sys.executable, "-m", "chinchilla_jax.plan", f"--config={folder / 'config.py'}",
             f"--workdir={folder / 'plan'}"],
            env=environment | {"CHINCHILLA_JAX_CACHE": str(folder / "cache")},
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds: dict[str, list[float]] = {flag: [] for flag in arrangements}
        for _ in range(arguments.turns):
            for flag in arrangements:
                seconds[flag].append(sweep(folder, environment, flag))
    devices = f"{arguments.devices} logical devices" if arguments.platform == "cpu" else "GPU"
    cells = f"{2 * len(arguments.widths)} cells of {arguments.budget:g} FLOPs"
    print(f"{cells}, {devices}, {os.cpu_count()} cores, {arguments.turns} turns")
    first = statistics.median(next(iter(seconds.values())))
    for flag, values in seconds.items():
        median = statistics.median(values)
        print(f"{flag:22s} {median:7.1f} s ({min(values):.1f} to {max(values):.1f})"
              f" {first / median:6.2f}x")  # fmt: skip


if __name__ == "__main__":
    main()
