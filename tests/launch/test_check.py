"""launch/check.sh for real, on tiny budgets: grid, forecast, its runs, and the verdict."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = """
from chinchilla_jax.experiment.config import *
def get_config():
    return Experiment(
        name="tiny", budgets=(3e9, 1e10, 3e10, 1e11),
        ladder=LadderConfig(widths=(8, 12, 16, 24, 32, 40), min_tokens_per_param=0.3, min_steps=10,
                            max_tokens_per_param=5000.0),
        recipe=RecipeConfig(sequence_length=16),
        measurement=Measurement(eval_windows=8192),
    )
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose .venv is this Python."""
    shutil.copytree(REPOSITORY / "launch", tmp_path / "launch")
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    stamp = 'echo "$(cat setup.cfg pyproject.toml | cksum) $(pwd) []" >.venv/.installed'
    subprocess.run(["bash", "-c", stamp], cwd=tmp_path, check=True)
    (tmp_path / "tiny.py").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
def test_the_loop_is_closed(checkout):
    command = [checkout / "launch" / "check.sh", "--config=tiny.py", "--flops=3e11"]
    environment = os.environ | {"CHINCHILLA_JAX_CACHE": str(checkout / "cache")}
    environment.pop("WORKDIR", None)

    def called():
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = called()
    assert done.returncode == 0, done.stderr
    assert "Hit: of " in done.stdout or "Miss: of " in done.stdout
    assert "Choosing this size cost" in done.stdout
    verdict = json.loads((checkout / "runs" / "tiny_3e11" / "verdict.json").read_text())
    ledger = checkout / "forecasts" / "ledger.jsonl"
    assert [json.loads(line) for line in ledger.read_text().splitlines()] == [verdict]
    digest = json.loads((checkout / "forecasts" / "tiny_3e11.json").read_text())["digest"]
    results = list((checkout / "runs" / "tiny_3e11" / "runs").glob("*/result.json"))
    assert len(results) >= 3 and digest == verdict["digest"]
    assert all(json.loads(file.read_text())["forecast"] == digest for file in results)
    again = called()
    assert again.returncode == 0 and len(ledger.read_text().splitlines()) == 1
