"""`evaluate` of two checkouts side by side, each run a fresh process, in turns.

    python -m tests.benchmarks.evaluate --before=../before --after=. --runs=table.csv [--repeats=7]

Each checkout needs its .venv. Medians of ratios, since neighbours on the machine slow both: of
seconds, and of processor seconds, which neighbours change less.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from absl import app, flags

_BEFORE = flags.DEFINE_string("before", None, "A checkout.", required=True)
_AFTER = flags.DEFINE_string("after", ".", "Another.")
_RUNS = flags.DEFINE_string("runs", None, "Table of runs.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Runs of each.")


def _spent() -> tuple[float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), children.ru_utime + children.ru_stime


def _seconds(checkout: Path, out: str, *further: str) -> tuple[float, float]:
    """(seconds, processor seconds) of one process."""
    command = [
        checkout / ".venv/bin/python", "-m", "chinchilla_jax.evaluate",
        f"--runs={Path(_RUNS.value).resolve()}", f"--out={out}", *further,
    ]  # fmt: skip
    begin = _spent()
    subprocess.run(list(map(str, command)), cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return tuple(b - a for a, b in zip(begin, _spent(), strict=True))


def main(_: list[str]) -> None:
    before, after = (Path(flag.value).resolve() for flag in (_BEFORE, _AFTER))
    with tempfile.TemporaryDirectory() as out:
        for further in ((), ("--nofigures",)):
            pairs = [
                (_seconds(before, out, *further), _seconds(after, out, *further))
                for _ in range(_REPEATS.value)
            ]
            for i, name in enumerate(("seconds", "processor seconds")):
                each = [statistics.median(pair[k][i] for pair in pairs) for k in (0, 1)]
                ratio = statistics.median(b[i] / a[i] for a, b in pairs)
                print(
                    f"{' '.join(further) or 'with figures':14s} {name:18s} "
                    f"{each[0]:6.2f} -> {each[1]:6.2f}, median of ratios {ratio:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
