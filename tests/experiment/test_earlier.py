"""Work folders of version 1 of the plan, made here as that version wrote them."""

import dataclasses
import json
import shutil

import pytest

from chinchilla_jax.experiment import earlier, plans, records, results, status
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.experiment.version import MODEL_VERSION

# What the group `training` of version 1 had.
TRAINING = (
    "data_parallel", "fsdp", "tensor", "dtype", "layers", "remat", "loss_chunk_tokens",
    "microbatch", "steps_per_dispatch", "log_every", "eval_windows", "checkpoint_seconds",
    "keep_checkpoints", "async_checkpoints", "save_final", "divergence_factor", "tensorboard",
)  # fmt: skip


def moved_back(config):
    """JSON of this version as version 1 had it: what `earlier.upgraded` undoes."""
    for name in TRAINING:
        group = next(g for g in ("training", "measurement", "execution") if name in config[g])
        config["training"][name] = config[group].pop(name)
    if "vary" in config:  # an experiment
        vary, seed = config.pop("vary"), config.pop("seed")
        multiplier = config["recipe"].pop("lr_multiplier")
        config["seeds"] = vary.get("seed", [seed])
        config["lr_multipliers"] = vary.get("recipe.lr_multiplier", [multiplier])
    return {name: value for name, value in config.items() if value != {}}


@pytest.fixture(params=[{}, {"recipe.lr_multiplier": (0.5, 1.0), "seed": (0, 3)}])
def old(tmp_path, request):
    """(its experiment, its folder): one run done, one begun, the others missing."""
    source = Experiment(
        name="t",
        budgets=(1e11,),
        ladder=LadderConfig(widths=(8, 16, 24, 96)),
        vary=request.param,
    )
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
    text = {"train_tokens": 69_000_000, "data_fingerprint": "8bb985637522e08e"}
    facts = {"corpora": {fingerprint(source.data): text}}
    assert plans.read_plan(folder) == (source, plan(source), facts)
    assert list(plans.read_plan(folder)[0].vary) == list(source.vary)
    ids = [cell.run.run_id for cell in plan(source)]
    assert ids[:2] == (
        ["1e11-8x2-lr0.5-s0", "1e11-8x2-lr0.5-s3"]
        if source.vary
        else ["1e11-8x2-s0", "1e11-16x2-s0"]
    )


def test_its_rows_are_those_that_were_written(old):
    rows = results.collect(old[1])
    assert rows[0]["loss"] == 2.5 and rows[0]["config_fingerprint"] == "f264bef600e9f396"
    statuses = [row["status"] for row in rows]
    assert statuses[:2] == ["done", "missing"] and statuses.count("done") == 1
    assert "1 done" in status.text(old[1])


def finish(source, folder, but=0):
    """All its runs but the last few are over."""
    cells = [cell for cell in plan(source) if cell.status == "planned"]
    for cell in cells[: len(cells) - but]:
        records.run_directory(folder, cell.run.run_id).finish(cell.run, "done", "", {"loss": 2.0})


def frozen(folder):
    """(version of the plan, of the model that its runs are trained as)"""
    content = json.loads((folder / "plan.json").read_text())
    return content["version"], content.get("model_version")


def test_half_done_it_is_refused_in_one_line(old):
    """Its runs and new ones start from other weights: they would make no one sweep."""
    source, folder = old
    finish(source, folder, but=1)
    refused = f"begun by an earlier version .*model_version 2, here {MODEL_VERSION}: .*--workdir"
    with pytest.raises(UserError, match=refused):
        plans.write_plan(folder, source, plan(source), {})
    with pytest.raises(UserError, match=refused):
        plans.continued_plan(folder)
    assert frozen(folder) == (1, None) and "missing" in status.text(folder)


def test_finished_it_becomes_a_plan_of_this_version_and_keeps_its_model(old):
    source, folder = old
    finish(source, folder)
    plans.write_plan(folder, source, plan(source), {})
    assert frozen(folder) == (plans.PLAN_VERSION, 2)
    assert plans.continued_plan(folder)[0] == source
    wider = dataclasses.replace(source, budgets=(1e11, 3e11))
    with pytest.raises(UserError, match="model_version 2"):
        plans.write_plan(folder, wider, plan(wider), {})


def test_of_which_nothing_was_begun_it_goes_on_as_any_other(old):
    source, folder = old
    shutil.rmtree(folder / "runs")
    plans.write_plan(folder, source, plan(source), {})
    assert frozen(folder) == (plans.PLAN_VERSION, MODEL_VERSION)


def test_another_plan_in_its_folder_is_refused_as_such(old):
    source, folder = old
    text = {"data_fingerprint": "8bb985637522e08e"}
    facts = {"corpora": {fingerprint(source.data): text}}
    begun = plan(source)[1].run
    records.run_directory(folder, begun.run_id).start(begun)
    other = dataclasses.replace(source, budgets=(1e12,))
    with pytest.raises(UserError, match=r"was begun under another plan \(dropped\)"):
        plans.write_plan(folder, other, plan(other), facts)
    text["data_fingerprint"] = "another"
    with pytest.raises(UserError, match="fingerprint 8bb985637522e08e, and here it is another"):
        plans.write_plan(folder, source, plan(source), facts)


def test_one_value_of_an_old_axis_names_no_run():
    old = {"seeds": [3], "lr_multipliers": [0.5], "recipe": {"base_lr": 0.006}}
    assert earlier.upgraded(old) == {
        "seed": 3, "vary": {}, "recipe": {"base_lr": 0.006, "lr_multiplier": 0.5}
    }  # fmt: skip


@pytest.mark.parametrize("content", ["{}", '{"cells": [3]}', '{"experiment": {"data": {}}}'])
def test_what_is_no_plan_of_version_1_is_one_line(tmp_path, content):
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, **json.loads(content)}))
    with pytest.raises(UserError, match=r"plan\.json"):
        plans.read_plan(tmp_path)
