"""The runs of a search by successive halving are made rung by rung."""

from chinchilla_jax.experiment import halving
from chinchilla_jax.training.halving import run
from tests.experiment.test_halving import SHAPES, planned, quality


def test_only_the_runs_of_the_search_are_made_and_a_failed_one_ends_it(monkeypatch, tmp_path):
    cells, rows, asked = planned(), {}, []
    monkeypatch.setattr(halving, "over", lambda workdir: rows)

    def make(chosen):
        asked.append(len(chosen))
        for cell in chosen:
            name = cell.run.run_id
            rows[name] = {"run_id": name, "status": "done", "loss": quality(cell.run)}
        return [rows[cell.run.run_id] for cell in chosen]

    made, said = run(tmp_path, cells, make, 3)
    n = len(SHAPES)
    assert asked == [n, n // 3, n // 9] and len(made) == sum(asked) and "picked" in said
    assert not [
        c for c in cells if c.run.run_id not in {*rows, *halving.left_out(tmp_path, cells, rows)}
    ]
    again, said_again = run(tmp_path, cells, make, 3)
    assert len(asked) == 3 and said_again == said
    assert {row["run_id"] for row in again} == {row["run_id"] for row in made}

    rows.clear()

    def fails(chosen):
        return [row | {"status": "failed"} if not i else row for i, row in enumerate(make(chosen))]

    left, said = run(tmp_path, cells, fails, 3)
    assert len(left) == n and said == "" and left[0]["status"] == "failed"
