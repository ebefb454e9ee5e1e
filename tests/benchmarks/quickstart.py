"""The quickstart of two checkouts side by side, in turns: how long it takes and what it finds.

    python tests/benchmarks/quickstart.py --before=../before [--after=.] [--repeats=1] [--keep=out]

Each checkout needs its .venv. A turn is the sweep and its evaluation with nothing cached, neither
text nor compiled programs, as a newcomer has them; the machine should have nothing else to do.
Printed are seconds and processor seconds, the exponent a with its interval, and at which budgets
the lowest loss is that of the smallest or the largest size. The exit status is 1 where the second
checkout takes more than .7 of the time of the first, its interval is wider, or a minimum lies at an
edge.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RATIO = 0.7  # of seconds, at most


@dataclass(frozen=True)
class Turn:
    """What one quickstart took and found."""

    seconds: float
    processor_seconds: float
    runs: int
    exponent: float
    interval: tuple[float, float]
    edges: tuple[float, ...]  # budgets whose best size is the smallest or the largest

    @property
    def width(self) -> float:
        return self.interval[1] - self.interval[0]

    def __str__(self) -> str:
        low, high = self.interval
        edges = ", ".join(f"{budget:g}" for budget in self.edges) or "none"
        return (
            f"{self.seconds:6.1f} s, {self.processor_seconds:6.1f} of processors, "
            f"{self.runs} runs, a = {self.exponent:.3f} ({low:.3f} to {high:.3f}), "
            f"minima at an edge: {edges}"
        )


def at_edges(results: Path) -> tuple[int, tuple[float, ...]]:
    """How many runs are done, and the budgets whose lowest loss is at an edge of the sizes."""
    losses: dict[float, dict[float, list[float]]] = {}
    with results.open() as lines:
        for row in csv.DictReader(lines):
            if row["status"] == "done":
                of_size = losses.setdefault(float(row["budget"]), {})
                of_size.setdefault(float(row["params_total"]), []).append(float(row["loss"]))
    edges = []
    for budget, by_size in sorted(losses.items()):
        best = min(by_size, key=lambda size: statistics.mean(by_size[size]))
        if best in (min(by_size), max(by_size)):
            edges.append(budget)
    runs = sum(len(found) for by_size in losses.values() for found in by_size.values())
    return runs, tuple(edges)


def turn(checkout: Path, keep: Path | None) -> Turn:
    """One quickstart from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        workdir, report = Path(folder) / "quickstart", Path(folder) / "report"
        environment = os.environ | {"CHINCHILLA_JAX_CACHE": f"{folder}/cache"}
        commands = (
            ("sweep", "--config=configs/quickstart.py", f"--workdir={workdir}"),
            ("evaluate", f"--runs={workdir}", f"--out={report}"),
        )
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        for program, *flags in commands:
            command = [checkout / ".venv/bin/python", "-m", f"chinchilla_jax.{program}", *flags]
            subprocess.run(
                command, cwd=checkout, check=True, env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        if keep:
            shutil.copytree(folder, keep, ignore=shutil.ignore_patterns("cache", "checkpoints"))
        laws = json.loads((report / "fits.json").read_text())["isoflop"]
        laws = laws.get("chosen", laws)  # as versions until 0.3.0 had it
        low, high = laws["interval"]["a"]
        runs, edges = at_edges(workdir / "results.csv")
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Turn(seconds, spent, runs, laws["a"], (low, high), edges)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout")
    parser.add_argument("--after", type=Path, default=Path(), help="another")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each")
    parser.add_argument("--keep", type=Path, help="folder for tables and reports of each turn")
    arguments = parser.parse_args()
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"the machine is busy (load {load:.1f}): repeat when it is quiet")
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    turns: dict[str, list[Turn]] = {name: [] for name in checkouts}
    for number in range(arguments.repeats):
        for name, checkout in checkouts.items():
            keep = arguments.keep and arguments.keep / f"{name}-{number}"
            turns[name].append(turn(checkout, keep))
            print(f"{name:6s} {turns[name][-1]}", flush=True)
    before, after = turns["before"], turns["after"]
    pairs = list(zip(before, after, strict=True))
    ratio = statistics.median(b.seconds / a.seconds for a, b in pairs)
    work = statistics.median(b.processor_seconds / a.processor_seconds for a, b in pairs)
    widths = [statistics.median(t.width for t in found) for found in (before, after)]
    print(f"seconds {ratio:.2f}, processor seconds {work:.2f} (medians of ratios); "
          f"width of the interval of a {widths[0]:.3f} -> {widths[1]:.3f}")  # fmt: skip
    edges = any(found.edges for found in after)
    sys.exit(ratio > RATIO or widths[1] > widths[0] or edges)


if __name__ == "__main__":
    main()
