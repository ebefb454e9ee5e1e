"""Laws of hyper-parameters as a person asks for them: tables, figure, recipe, and mistakes."""

import csv
import json

import pytest

from chinchilla_jax.experiment import fitted_recipe, grid
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.scaling.report.plots import tuning as figure
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.tuning.laws import fit_tuning
from tests.command import call

from .known import TRUE, best_batch, best_rate, tuning_table

OURS = {
    "data_tokenizer": "bytes", "data_vocab_size": 256, "optimizer": "adamw", "definition": "modern",
    "optimizer_parametrization": "mup", "optimizer_base_width": 64, "width": 64,
    "optimizer_schedule": "linear",
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "table.csv"
    rows = [row | OURS for row in tuning_table(0.003)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_tuning_table_becomes_laws_and_a_recipe_that_a_config_uses(table, tmp_path):
    asked = ("--laws=learning_rate,batch", "--bootstrap=0", "--nofigures")
    done = call("evaluate", f"--runs={table}", f"--out={tmp_path}", *asked)
    assert done.returncode == 0, done.stderr
    assert "at the best batch" in done.stdout and "Step Law" in done.stdout
    file = tmp_path / "recipe.json"
    assert f"--config.recipe.source={file}" in done.stdout
    recipe = fitted_recipe.read(str(file))
    assert (
        recipe.evidence.runs == json.loads((tmp_path / "fits.json").read_text())["tuning"]["runs"]
    )
    experiment = Experiment(
        name="tuned", budgets=(6e10,), recipe=RecipeConfig(source=str(file)),
        ladder=LadderConfig(widths=(16, 24)),
    )  # fmt: skip
    for cell in grid.plan(experiment):
        batch = 64 * cell.run.batch_size
        assert 0.7 < batch / best_batch(cell.tokens) < 1.4
        rate = best_rate(cell.params, cell.tokens, batch)
        assert cell.run.optimizer.learning_rate == pytest.approx(rate, rel=0.1)
    asked = call("forecast", f"--fits={tmp_path}", "--params=3e4", "--tokens=1e6")
    assert "hyper-parameters, fitted to" in asked.stdout


def test_a_recipe_of_too_few_runs_is_said_to_be_open(tmp_path):
    """Of two sizes at two budgets: four cells of twelve runs."""
    rows = [row | OURS for row in tuning_table(0.003)]
    few = [row for i, row in enumerate(rows) if i // 12 in (0, 1, 3, 4)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    asked = ("--laws=learning_rate,batch", "--nofigures", f"--out={tmp_path}")
    done = call("evaluate", f"--runs={tmp_path}/t.jsonl", *asked)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("recipe: "))
    assert "not one to use yet: its runs do not determine" in line and "--config" not in line
    assert fitted_recipe.undetermined(fitted_recipe.read(f"{tmp_path}/recipe.json")) in line


def test_a_table_that_does_not_say_what_it_is_of_gives_no_recipe(tmp_path):
    rows = tuning_table(0.003)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.json").write_text("{}")  # of a report before
    done = call("evaluate", f"--runs={tmp_path}/t.jsonl", f"--out={tmp_path}", "--laws=batch",
                "--bootstrap=0", "--nofigures")  # fmt: skip
    assert done.returncode == 0 and "no recipe.json is written: the table does not" in done.stdout
    assert not (tmp_path / "recipe.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--laws=bach",), ("--laws=bach: no such law; did you mean batch?",)),
        (("--laws=batch,batch",), ("batch is given twice",)),
        (("--laws=batch", "--by=technique"), ("--laws=batch", "no league")),
        (("--laws=weight_decay",), ("weight decay",)),
    ],
)
def test_a_mistake_is_one_line(table, arguments, words):
    done = call("evaluate", f"--runs={table}", "--bootstrap=0", "--nofigures", *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_the_figure_has_a_panel_of_costs_and_one_for_each_setting():
    found = fit_tuning(("learning_rate", "batch"), read_runs(tuning_table(0.003)), 0, 0)
    costs, batch, rate = figure.tuning(found).axes
    assert [line.get_label() for line in costs.lines] == ["batch", "learning rate"]
    (x, y) = costs.lines[1].get_data()
    at_2 = float(y[abs(x - 2).argmin()])
    assert at_2 == pytest.approx(100 * TRUE["rate_curvature"] * 0.48, rel=0.1)
    assert batch.get_ylabel() == "best batch (tokens)" and rate.get_ylabel() == "best learning rate"
    labels = {text.get_text() for text in rate.get_legend().get_texts()}
    assert labels == {"N = 6k", "N = 14k", "N = 33k", "N = 55k"}
    assert figure.drawers(None) == {}
