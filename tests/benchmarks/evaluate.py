"""`evaluate` of two checkouts side by side, each run a fresh process, in turns.

    python -m tests.benchmarks.evaluate --before=../before --after=. --runs=table.csv [--repeats=7]
    python -m tests.benchmarks.evaluate --before=../before --after=. --rows=100000 --repeats=1

Each checkout needs its .venv. `--rows` makes up a table of 17 budgets, which is evaluated without
figures; an early checkout takes many minutes for 100,000. Medians of ratios, for neighbours on the
machine slow both: of seconds, and of processor seconds, which neighbours change less.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

_BEFORE = flags.DEFINE_string("before", None, "A checkout.", required=True)
_AFTER = flags.DEFINE_string("after", ".", "Another.")
_RUNS = flags.DEFINE_string("runs", None, "Table of runs.")
_ROWS = flags.DEFINE_integer("rows", 0, "Rows of a made-up table, where there is no other.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Runs of each.")


def _spent() -> tuple[float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), children.ru_utime + children.ru_stime


def _made_up(path: Path, rows: int) -> Path:
    """Runs of Chinchilla's law with .5 % of noise."""
    rng = np.random.default_rng(0)
    flops = 10 ** rng.choice(np.linspace(17, 21, 17), rows)
    params = np.sqrt(flops / 120) * np.exp(rng.normal(0, 1, rows))
    tokens = flops / 6 / params
    loss = 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28
    loss *= np.exp(0.005 * rng.standard_normal(rows))
    columns = np.stack([params, tokens, flops, loss], axis=1)
    np.savetxt(path, columns, "%.8g", ",", header="params,tokens,flops,loss", comments="")
    return path


def _seconds(checkout: Path, runs: Path, out: str, *further: str) -> tuple[float, float]:
    """(seconds, processor seconds) of one process."""
    command = [
        checkout / ".venv/bin/python", "-m", "chinchilla_jax.evaluate",
        f"--runs={runs.resolve()}", f"--out={out}", *further,
    ]  # fmt: skip
    begin = _spent()
    subprocess.run(list(map(str, command)), cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return tuple(b - a for a, b in zip(begin, _spent(), strict=True))


def main(_: list[str]) -> None:
    before, after = (Path(flag.value).resolve() for flag in (_BEFORE, _AFTER))
    with tempfile.TemporaryDirectory() as out:
        made = _made_up(Path(out) / "runs.csv", _ROWS.value) if _ROWS.value else None
        runs = made or Path(_RUNS.value)
        for further in (("--nofigures",),) if made else ((), ("--nofigures",)):
            pairs = [
                (_seconds(before, runs, out, *further), _seconds(after, runs, out, *further))
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
