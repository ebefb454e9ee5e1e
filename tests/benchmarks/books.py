"""What a large grid's books cost: two checkouts side by side, in turns, on one made-up folder.

    python tests/benchmarks/books.py --before=../before [--after=.] [--cells=4000] [--repeats=3]

The folder has `--cells` cells, of which three in a hundred are rejected and all others done, with
200 lines of metrics each. Both checkouts run under this Python, in processes of their own; each
line tells processor seconds, their ratio and the peak of memory. A finished cell is told in a
process that has read the plan, as one does that has trained.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from chinchilla_jax.experiment import grid, plans, records
from chinchilla_jax.experiment.config import (
    DataConfig,
    Experiment,
    LadderConfig,
    Measurement,
    RecipeConfig,
)
from chinchilla_jax.experiment.schema import to_json

SEEDS = 5
WIDTHS = tuple(range(8, 168, 8))
LINES = 200  # of metrics of each run
REJECTED = 0.03

CONFIG = """
import json
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.schema import from_json
def get_config():
    return from_json(Experiment, json.loads({!r}), "books")
"""
# Whether a checkout tells one cell or writes the whole table anew when a cell is done.
FINISHED = """
import sys, time
from pathlib import Path
from chinchilla_jax.experiment import records
try:
    from chinchilla_jax.experiment import plans
except ImportError:
    plans = records
try:
    from chinchilla_jax.experiment.results import note
except ImportError:
    def note(workdir, runs):
        records.write_results(workdir)
workdir, run_ids = Path(sys.argv[1]), sys.argv[2:]
planned = {cell.run.run_id: cell.run for cell in plans.read_plan(workdir)[1]}
for run_id in run_ids:
    directory = records.run_directory(workdir, run_id)
    measured = {**directory.result(), "loss": 2.0 + time.time() % 1}
    directory.finish(planned[run_id], "done", "", measured)
    begun = time.process_time()
    note(workdir, [planned[run_id]])
    print(time.process_time() - begun)
"""


def experiment(folder: Path, cells: int) -> Experiment:
    """A grid of just so many cells, of which REJECTED have too many tokens per parameter."""
    budgets = cells // (SEEDS * len(WIDTHS))
    source = Experiment(
        name="books",
        budgets=tuple(float(f"{10 ** (10.3 + i / 20):.4g}") for i in range(budgets)),
        ladder=LadderConfig(
            widths=WIDTHS, sizes_per_budget=(0,), min_tokens_per_param=1e-9,
            max_tokens_per_param=1e9, min_steps=1,
        ),
        vary={"seed": tuple(range(SEEDS))},
        data=DataConfig(
            builder="local_text", path=str(folder / "text"), cache=str(folder / "cache"),
            validation_fraction=0.2, max_epochs=1e9,
        ),
        recipe=RecipeConfig(sequence_length=16, base_batch_tokens=16),
        measurement=Measurement(eval_windows=64),
    )  # fmt: skip
    planned = [cell for cell in grid.plan(source) if cell.status == "planned"]
    ratios = sorted(cell.tokens / cell.params for cell in planned)
    limit = ratios[int((1 - REJECTED) * cells) - 1]
    ladder = dataclasses.replace(source.ladder, max_tokens_per_param=limit * (1 + 1e-9))
    return dataclasses.replace(source, ladder=ladder)


def make(folder: Path, cells: int) -> Path:
    """The work folder in `folder`, and `config.py` beside it."""
    (folder / "text").mkdir(parents=True)
    for number in range(200):
        text = f"{number}: a model of {number % 7} tokens learns from {number % 11} more. " * 20
        (folder / "text" / f"{number}.txt").write_text(text)
    source = experiment(folder, cells)
    (folder / "config.py").write_text(CONFIG.format(json.dumps(to_json(source))))
    run("plan", Path.cwd(), f"--config={folder / 'config.py'}", f"--workdir={folder / 'work'}")
    for cell in plans.read_plan(folder / "work")[1]:
        if cell.status != "planned":
            continue
        directory = records.run_directory(folder / "work", cell.run.run_id)
        directory.start(cell.run)
        loss = 1.5 + (cell.params / 1e3) ** -0.3 + (cell.tokens / 1e4) ** -0.3
        loss *= 1 + 0.002 * math.sin(7.0 * cell.index)
        rows = []
        for i in range(1, LINES + 1):
            step, done = cell.run.steps * i / LINES, i / LINES
            rows.append(
                {
                    "step": step, "tokens": cell.tokens * done, "flops": cell.flops * done,
                    "loss": loss / done**0.1, "smoothed_loss": loss / done**0.1,
                    "learning_rate": 0.006 * (1 - done), "grad_norm": 0.7123456789 + done,
                    "tokens_per_second": 123456.789, "seconds": 12.3456789 * done,
                }
            )  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (directory.path / "metrics.jsonl").write_text(lines)
        measured = {"loss": loss, "loss_se": 0.01, "bits_per_byte": loss / math.log(2),
                    "train_loss": loss, "wall_seconds": 12.0, "tokens_per_second": 1e5,
                    "device_kind": "cpu", "device_count": 1, "unique_tokens": 60_000}  # fmt: skip
        directory.finish(cell.run, "done", "", measured)
    return folder / "work"


def run(program: str, checkout: Path, *arguments: str) -> tuple[float, float]:
    """(processor seconds, peak memory in MB) of a program of a checkout; "-c": of Python code."""
    place = [program] if program == "-c" else ["-m", f"chinchilla_jax.{program}"]
    environment = os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *place, *arguments], cwd=checkout, env=environment,
            stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = usage.ru_utime + usage.ru_stime
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{program} of {checkout}: {text[-2000:]}")
    if program == "-c":
        seconds = float(text.split()[-1])  # the first may build the table that another version left
    return seconds, usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout")
    parser.add_argument("--after", type=Path, default=Path(), help="another")
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept, and used again if it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        workdir = folder / "work"
        if not (workdir / "plan.json").exists():
            make(folder, given.cells)
        names = [c.run.run_id for c in plans.read_plan(workdir)[1] if c.status == "planned"]
        config = f"--config={folder / 'config.py'}"
        commands = {
            "plan": ("plan", config, f"--workdir={workdir}"),
            "status": ("sweep", f"--workdir={workdir}", "--status"),
            "nothing to do": ("sweep", config, f"--workdir={workdir}"),
            "finished cell": ("-c", FINISHED, str(workdir), names[len(names) // 2], names[0]),
            "evaluate": ("evaluate", f"--runs={workdir}", f"--out={folder / 'out'}", "--nofigures"),
        }
        print(f"{len(names)} runs; load {os.getloadavg()[0]:.1f}")
        for name, (program, *arguments) in commands.items():
            pairs = [
                [run(program, place.resolve(), *arguments) for place in (given.before, given.after)]
                for _ in range(given.repeats)
            ]
            seconds, memory = (
                [statistics.median(pair[k][i] for pair in pairs) for k in (0, 1)] for i in (0, 1)
            )
            ratio = statistics.median(after[0] / before[0] for before, after in pairs)
            print(
                f"{name:14s} {seconds[0]:7.3f} -> {seconds[1]:7.3f} s, median of ratios "
                f"{ratio:.3f}; {memory[0]:.0f} -> {memory[1]:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
