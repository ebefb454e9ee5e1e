"""Work folders of version 1 of the plan, made here as that version wrote them."""

import json

import pytest

from chinchilla_jax.experiment import earlier, records, status
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.schema import to_json


def moved_back(config):
    """JSON of this version as version 1 had it: what `earlier.upgraded` undoes."""
    for old, now in earlier.MOVED.items():
        (group, name), (target, field) = old.split("."), now.split(".")
        config[group][name] = config[target].pop(field)
    return {name: value for name, value in config.items() if value != {}}


@pytest.fixture
def old(tmp_path):
    """(its experiment, its folder): one run done, one begun, the others missing."""
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16, 24, 96)))
    cells = plan(source)
    frozen = {
        "version": 1,
        "train_tokens": 69_000_000,
        "data_fingerprint": "8bb985637522e08e",
        "experiment": moved_back(to_json(source)),
        "cells": [{**to_json(cell), "run": moved_back(to_json(cell.run))} for cell in cells],
    }
    (tmp_path / "plan.json").write_text(json.dumps(frozen))
    for cell in cells[:2]:
        folder = tmp_path / "runs" / cell.run.run_id
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(moved_back(to_json(cell.run))))
    result = {"run_id": cells[0].run.run_id, "status": "done", "reason": "", "loss": 2.5,
              "params_total": 5832, "tokens": 2893312, "config_fingerprint": "f264bef600e9f396",
              "loss_se": None, "bits_per_byte": 3.6, "tokens_per_second": 1e5,
              "wall_seconds": 6.0}  # fmt: skip
    (tmp_path / "runs" / cells[0].run.run_id / "result.json").write_text(json.dumps(result))
    return source, tmp_path


def test_it_is_read_as_the_same_experiment_and_cells(old):
    source, folder = old
    facts = {"train_tokens": 69_000_000, "data_fingerprint": "8bb985637522e08e"}
    assert records.read_plan(folder) == (source, plan(source), facts)


def test_its_rows_are_those_that_were_written(old):
    rows = records.collect(old[1])
    assert rows[0]["loss"] == 2.5 and rows[0]["config_fingerprint"] == "f264bef600e9f396"
    assert [row["status"] for row in rows] == ["done", "missing", "missing", "rejected"]
    assert "1 done" in status.text(old[1])


def test_a_sweep_goes_on_with_it(old):
    """Planned again it becomes a plan of this version, and a run begun under it continues."""
    source, folder = old
    facts = {"data_fingerprint": "8bb985637522e08e"}
    records.write_plan(folder, source, plan(source), facts)
    assert json.loads((folder / "plan.json").read_text())["version"] == records.PLAN_VERSION
    assert records.collect(folder)[0]["loss"] == 2.5
    begun = plan(source)[1].run
    records.run_directory(folder, begun.run_id).start(begun)
    other = Experiment(**{**vars(source), "budgets": (1e12,)})
    with pytest.raises(UserError, match=r"was begun under another plan \(dropped\)"):
        records.write_plan(folder, other, plan(other), facts)
