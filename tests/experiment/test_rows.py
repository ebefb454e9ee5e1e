"""A row has the configuration, the costs and the measurements of a run, each once."""

import dataclasses

import pytest

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import leaves
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.rows import COLUMNS, column, columns, row_of
from chinchilla_jax.scaling.table.names import ALIASES

# Of version 1, whose tables people have: (column, how its value follows from the run).
OF_VERSION_1 = {
    "run_id": lambda run: run.run_id,
    "experiment": lambda run: run.experiment,
    "budget": lambda run: run.budget,
    "flops_convention": lambda run: run.flops_convention,
    "tokens": lambda run: run.steps * run.batch_size * run.sequence_length,
    "steps": lambda run: run.steps,
    "batch": lambda run: run.batch_size,
    "sequence": lambda run: run.sequence_length,
    "learning_rate": lambda run: run.optimizer.learning_rate,
    "weight_decay": lambda run: run.optimizer.weight_decay,
    "seed": lambda run: run.seed,
    "lr_multiplier": lambda run: run.lr_multiplier,
    "definition": lambda run: run.model.definition,
    "width": lambda run: run.model.width,
    "depth": lambda run: run.model.depth,
    "heads": lambda run: run.model.heads,
    "kv_heads": lambda run: run.model.kv_heads,
    "head_size": lambda run: run.model.head_size,
    "ff_size": lambda run: run.model.ff_size,
}
MEASURED = (
    "loss", "loss_se", "bits_per_byte", "train_loss", "wall_seconds", "tokens_per_second", "mfu",
    "input_share", "joules_gpu", "joules_cpu", "joules_memory", "joules_estimated",
    "energy_source", "grams_co2e_per_kwh", "device_kind", "device_count", "unique_tokens",
    "data_fingerprint", "tokenizer_fingerprint", "status", "reason",
)  # fmt: skip


@pytest.fixture
def cell():
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16)), seed=5)
    return plan(source)[0]


def test_every_column_that_tables_have_had_keeps_its_name_and_value(cell):
    row = row_of(cell.run)
    assert {name: row[name] for name in OF_VERSION_1} == {
        name: value(cell.run) for name, value in OF_VERSION_1.items()
    }
    assert all(row[name] is None for name in MEASURED)


def test_the_costs_add_up(cell):
    row = row_of(cell.run)
    assert row["flops"] == row["flops_matmul"] == cell.flops
    assert row["flops_six_nd"] == 6 * row["params_total"] * row["tokens"]
    assert (
        row["params_total"]
        == cell.params
        == (row["params_embedding"] + row["params_readout"] + row["params_non_embedding"])
    )


def test_every_figure_of_the_ledger_is_a_column(cell):
    row, costs = row_of(cell.run), ledger(cell.run).columns()
    assert {name: row[name] for name in costs} == costs
    assert not set(costs) & {column(leaf.path) for leaf in leaves(cell.run)}


def test_every_field_of_a_run_is_a_column_of_its_own_but_how_it_is_carried_out(cell):
    paths = [leaf.path for leaf in leaves(cell.run)]
    names = [column(path) for path in paths]
    assert len(set(names)) == len(names) and set(names) <= set(row_of(cell.run))
    assert set(COLUMNS) <= set(paths)  # no name of a field that is gone
    assert column("optimizer.beta1") == "optimizer_beta1"
    assert not any("cache" in name or "execution" in name for name in row_of(cell.run))
    elsewhere = dataclasses.replace(cell.run, execution=Execution(fsdp=4, log_every=3))
    assert row_of(elsewhere) == row_of(cell.run)


def test_no_column_is_taken_by_the_evaluator_for_another(cell):
    """An optimizer in a column `name` would be read as the name of a run."""

    def key(name):
        return "".join(c for c in name.lower() if c.isalnum())

    meant = {name: name for name in ALIASES} | {"params": "params_total"}
    for ours, names in ALIASES.items():
        taken = [c for n in names for c in row_of(cell.run) if key(c) == key(n)]
        assert set(taken) <= {meant[ours]}, (ours, taken)


def test_columns_of_mixed_rows_are_all_there_in_order():
    assert columns([{"a": 1, "b": 2}, {"b": 3, "c": 4}]) == ["a", "b", "c"]
