"""What every file in configs/ resolves to is a text in tests/golden: a change shows in its diff.

Where the change is meant, renew them and look at what the diff says:

    python -m tests.test_golden
"""

import difflib
import json
from pathlib import Path

import pytest

from chinchilla_jax.experiment import grid
from chinchilla_jax.experiment.fingerprint import canonical, fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.schema import to_json

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "golden"
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def resolved(config, overrides=()):
    """A line for each cell, and the first run that is planned, whole."""
    cells = grid.plan(load_experiment(str(config), overrides))
    lines = ["run  N  D  batch x sequence x steps  rate  decay  fingerprint"]
    for cell in cells:
        run = cell.run
        if cell.status == "rejected":
            lines.append(f"{run.run_id}  -  {cell.reason}")
            continue
        size = f"{run.batch_size} x {run.sequence_length} x {run.steps}"
        rates = f"{run.optimizer.learning_rate:.6g}  {run.optimizer.weight_decay:.6g}"
        lines.append(
            f"{run.run_id}  {cell.params}  {cell.tokens}  {size}  {rates}  {fingerprint(run)}"
        )
    first = next(cell.run for cell in cells if cell.status == "planned")
    return "\n".join(lines) + "\n\n" + json.dumps(canonical(to_json(first)), indent=1) + "\n"


def difference(old, new):
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "golden", "now", "", "", 0)
    return "\n".join(line.strip() for line in lines)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_resolves_to_what_it_did(config):
    golden = FOLDER / f"{config.stem}.txt"
    assert golden.exists(), "renew with: python -m tests.test_golden"
    changed = difference(golden.read_text(), resolved(config))
    assert not changed, f"{changed}\nmeant? renew with: python -m tests.test_golden"


def test_no_golden_file_is_left_of_a_config_that_is_gone():
    assert [path.stem for path in sorted(FOLDER.glob("*"))] == [path.stem for path in CONFIGS]


def test_a_rate_that_is_one_percent_off_shows_in_the_line_of_its_run():
    changed = difference(
        resolved(ROOT / "configs/quickstart.py"),
        resolved(ROOT / "configs/quickstart.py", [("recipe.base_lr", "0.00606")]),
    )
    old, new = (
        next(line for line in changed.splitlines() if line.startswith(f"{sign}3e11-16x2-s0"))
        for sign in "-+"
    )
    assert "  0.006  " in old and "  0.00606  " in new
    assert old.split("  ")[:4] == ["-3e11-16x2-s0", "14192", "3551232", "8 x 64 x 6936"]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path in CONFIGS:
        (FOLDER / f"{path.stem}.txt").write_text(resolved(path))
