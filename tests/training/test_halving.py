"""The runs of a search by successive halving are made rung by rung."""

import random
import time

import pytest

from chinchilla_jax.experiment import halving
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.results import collect
from chinchilla_jax.training.halving import run
from tests.conftest import write_sentences
from tests.experiment.test_halving import SHAPES, planned, quality
from tests.training import test_sweep
from tests.training.test_sweep import kill_all, start


def test_only_the_runs_of_the_search_are_made_and_a_failed_one_ends_it(monkeypatch, tmp_path):
    cells, rows, asked = [c for c in planned() if c.run.model in SHAPES[:9]], {}, []
    monkeypatch.setattr(halving, "over", lambda workdir: rows)

    def make(chosen):
        asked.append(len(chosen))
        for cell in chosen:
            name = cell.run.run_id
            rows[name] = {"run_id": name, "status": "done", "loss": quality(cell.run)}
        return [rows[cell.run.run_id] for cell in chosen]

    made, said = run(tmp_path, cells, make, 3)
    assert asked == [9, 3, 1] and len(made) == sum(asked) and "picked" in said
    assert not [
        c for c in cells if c.run.run_id not in {*rows, *halving.left_out(tmp_path, cells, rows)}
    ]
    again, said_again = run(tmp_path, cells, make, 3)
    assert len(asked) == 3 and said_again == said
    assert {row["run_id"] for row in again} == {row["run_id"] for row in made}

    asked.clear()
    rows.clear()

    def taken_back(chosen):  # by a sweep of all cells that begins meanwhile
        halving.end(tmp_path)
        return make(chosen)

    run(tmp_path, cells, taken_back, 3)
    assert len(asked) == 3 and not halving.left_out(tmp_path, cells, rows)
    rows.clear()

    def fails(chosen):
        return [row | {"status": "failed"} if not i else row for i, row in enumerate(make(chosen))]

    left, said = run(tmp_path, cells, fails, 3)
    assert len(left) == 9 and said == "" and left[0]["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_search_killed_again_and_again_picks_the_same(tmp_path, seed):
    """kill -9 of the sweep and its workers at any moment, also between two rungs."""
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text")
    text = test_sweep.CONFIG.format(path=str(tmp_path / "text"))
    text = text.replace("budgets=(3e9, 1e10)", "budgets=(1e9, 3e9)")
    text = text.replace("widths=(8, 12)", "widths=(8, 10, 12), sizes_per_budget=(0,)")
    (tmp_path / "config.py").write_text(text)
    asked = f"--config={tmp_path / 'config.py'}", "--halving=3"

    def outcome(workdir):
        """Results without times, what the search says, and what became of each cell."""
        process = start(tmp_path, workdir, *asked)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        rows = test_sweep.results(workdir)
        marked = [dict(row) for row in collect(workdir)]
        halving.mark(workdir, read_plan(workdir)[1], marked)
        marks = {row["run_id"]: (row["status"], row["reason"]) for row in marked}
        return rows, out[out.index("candidates") :], marks

    begun = time.monotonic()
    whole = outcome(tmp_path / "whole")
    seconds = time.monotonic() - begun
    statuses = [status for status, _ in whole[2].values()]
    assert statuses.count("done") == 4 and statuses.count(halving.LEFT_OUT) == 2
    assert "picked 3e09-" in whole[1]
    rng, killed = random.Random(seed), tmp_path / "killed"
    for _ in range(5):
        process = start(tmp_path, killed, *asked)
        time.sleep(rng.uniform(0.1, 0.5) * seconds)
        kill_all(killed, process)
    assert outcome(killed) == whole
