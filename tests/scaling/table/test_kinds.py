"""What a column is taken for: by its name, by what it does, and whatever the order of the table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.scaling.table.conditions import by, conditions
from chinchilla_jax.scaling.table.kinds import OTHER_LOSS, words
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import three_optimizers
from tests.scaling.known import DATA, TRUE, grid
from tests.training.helpers import small_run

PARAMS, TOKENS, FLOPS = grid([1e18, 1e19, 1e20], 6, 4.0)
RNG = np.random.default_rng(0)


def table(**columns):
    """Rows on one grid of cells, each once for every entry of `columns`, a sequence of values."""
    repeats = max((len(values) for values in columns.values()), default=1)
    return [
        {"params": n, "tokens": d, "flops": c, "loss": TRUE.loss(n, d) * RNG.uniform(0.99, 1.01)}
        | {name: values[i] for name, values in columns.items()}
        for n, d, c in zip(PARAMS.tolist(), TOKENS.tolist(), FLOPS.tolist(), strict=True)
        for i in range(repeats)
    ]


def kinds(rows, **asked):
    return {name: column.kind for name, column in read_runs(rows, kinds=asked).kinds.items()}


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("optimizer", ["adamw", "muon"], "condition"),
        ("decode_seconds_per_token", [0.1, 0.2], "outcome"),  # what `generate --measure` adds
        ("prefill_seconds_per_token", [0.1, 0.2], "outcome"),
        ("first_token_seconds", [0.1, 0.2], "outcome"),
        ("decode_memory_bytes", [1, 2], "outcome"),
        ("decode_hardware", ["cpu, 2 threads", "H100"], "outcome"),
        ("joules_per_token", [0.1, 0.2], "outcome"),
        ("inference_bytes_decode", [1, 2], "count"),
        ("inference_bytes_ledger", [1, 2], "count"),
        ("bits", [4, 16], "condition"),
        ("model.quantization", ["int4", ""], "condition"),
        ("techniques.sparsity.level", [0.0, 0.75], "condition"),
        ("techniques.distillation.loss_weight", [0.5, 0.9], "condition"),
        ("corpus", ["web", "code"], "condition"),
        ("data_fingerprint", ["8bb9", "01fe"], "condition"),
        ("metric", ["c4", "pile"], "condition"),
        ("corpus_id", [1, 2], "condition"),
        ("optimizer_id", ["a", "b"], "condition"),
        ("job_id", ["a", "b"], "identifier"),
        ("eval_set", ["c4", "wikitext"], "condition"),  # on what a loss was measured
        ("loss_type", ["train", "val"], "condition"),
        ("uniq_toks", [2e6, 4e6], "condition"),
        ("vocab_size", [256, 32000], "condition"),
        ("experiment", ["a", "b"], "condition"),
        ("something", ["p", "q"], "condition"),
        ("something", [0.1, 0.2], "condition"),
        ("sequence_length", [512, 2048], "condition"),
        ("eval/downstream/hellaswag_len_norm", [0.25, 0.5], "outcome"),
        ("eval_dataset", ["c4", "pile"], "condition"),
        ("lr", [1e-3, 2e-3], "setting"),
        ("config.optimizer.learningRate", [1e-3, 2e-3], "setting"),
        ("warmup_steps", [100, 400], "setting"),
        ("global_batch_size", [64, 128], "setting"),
        ("weight_decay", [0.1, 0.2], "setting"),
        ("lr_schedule", ["cosine", "wsd"], "setting"),
        ("adam_beta2", [0.95, 0.99], "setting"),
        ("optimizer.b2", [0.95, 0.99], "setting"),
        ("global_bsz", [64, 128], "setting"),
        ("depth", [4, 8], "setting"),  # two shapes of one size
        ("n_steps", [100, 200], "setting"),  # two batches
        ("seed", [0, 1], "seed"),
        ("data_seed", ["a", "b"], "seed"),
        ("data_order", [1, 2], "seed"),
        ("wall_seconds", [1, 2], "outcome"),
        ("text_left_out", ["nothing", "3 blank documents"], "outcome"),
        ("metrics_lost", [0, 3], "outcome"),
        ("tokens_per_second", [1, 2], "outcome"),
        ("val_loss_paloma", [2, 1], "outcome"),
        ("arc_acc", [0.25, 0.5], "outcome"),
        ("device_kind", ["a100", "h100"], "outcome"),
        ("n_gpus", [8, 16], "outcome"),
        ("config_fingerprint", ["x", "y"], "identifier"),
        ("params_all", [5e9, 7e9], "condition"),  # a technique that nobody named
        ("something", ["p", "p"], "constant"),
    ],
)
def test_two_values_in_every_cell(name, values, kind):
    assert kinds(table(**{name: values}))[name] == kind


@pytest.mark.parametrize(
    ("name", "value_of", "kind"),
    [
        ("width", lambda r: round(r["params"] ** 0.5), "count"),
        ("params_embedding", lambda r: r["params"] / 3, "count"),
        ("label", lambda r: "small" if r["params"] < 3e8 else "large", "count"),
        ("length", lambda r: "short" if r["tokens"] < 3e9 else "long", "count"),
        ("budget_name", lambda r: f"{r['flops']:.0e}", "count"),
        ("learning_rate", lambda r: 10 / r["params"] ** 0.5, "setting"),
        ("unique_tokens", lambda r: min(r["tokens"], 5e9), "count"),
        ("unique_tokens", lambda r: 2 * r["tokens"], "count"),
        ("whatever", lambda r: RNG.uniform(), "outcome"),
        ("data_ratio", lambda r: r["tokens"] / r["params"], "outcome"),
        ("who", lambda r: f"run {RNG.uniform()}", "identifier"),
    ],
)
def test_one_run_a_cell(name, value_of, kind):
    assert kinds([row | {name: value_of(row)} for row in table()])[name] == kind


@pytest.mark.parametrize("name", ["data_ratio", "n_datasets", "bits"])
def test_a_condition_in_numbers_that_names_no_text_compares_without_a_caution(name):
    found = by(read_runs(table(**{name: [1, 2]})), [name]).kinds[name]
    assert found.kind == "condition" and OTHER_LOSS not in found.reason


@pytest.mark.parametrize("name", ["dataset", "corpus_id", "eval_set", "val_set", "loss_type"])
def test_losses_of_other_text_compare_with_a_caution(name):
    assert OTHER_LOSS in read_runs(table(**{name: ["c4", "pile"]})).kinds[name].reason
    numbered = by(read_runs(table(**{name: [1, 2]})), [name])
    assert OTHER_LOSS in numbered.kinds[name].reason
    errors = [row | {name: f"{RNG.uniform()}: out"} for row in table()]
    assert name in ("dataset", "corpus_id") or read_runs(errors).kinds[name].kind == "identifier"


def test_a_corpus_is_a_condition_even_where_no_cell_holds_two():
    rows = table()
    for i, row in enumerate(rows):
        row |= {"dataset": "web" if i % 2 else "code", "flavour": "sweet" if i % 3 else "sour"}
    found = kinds(rows)
    assert found["dataset"] == "condition"
    assert found["flavour"] == "condition"  # few values, and neither size nor budget tells them


def test_what_a_run_holds_and_costs_makes_no_condition():
    """All columns of the ledger, of a taught run and of a pruned one beside it in each cell."""
    rows = []
    for width in (8, 16, 24, 32, 48):
        model = {"definition": "chinchilla", "width": width}
        for steps in (100, 200, 400):
            dense = ledger(small_run(steps=steps, model=model)).add("teacher", 1000 * steps)
            pruned = dense.change("hidden", lambda w: w.pruned(w.stored // 2))
            for level, found in ((0, dense), (50, pruned)):
                rows.append(found.columns() | {"tokens": 128 * steps, "sparsity": level})
    n, d = (np.array([row[name] for row in rows]) for name in ("params_total", "tokens"))
    for row, loss in zip(rows, TRUE.loss(n, d), strict=True):
        row["loss"] = loss + 0.1 * row["sparsity"]
    assert {name: kind for name, kind in kinds(rows).items() if kind == "condition"} == {
        "sparsity": "condition"
    }


def test_who_branches_off_whom_makes_no_condition():
    """Of two seeds that have trunks of other lengths, so that all of it differs in a cell."""
    rows = table(seed=[0, 1])
    for row in rows:
        further = {"parent_run": f"trunk-s{row['seed']}", "parent_step": 90 + row["seed"]}
        row |= further | {"marginal_flops": row["params"] * (3 + row["seed"])}
    found = kinds(rows)
    assert {found[name] for name in ("parent_run", "parent_step", "marginal_flops")} == {
        "identifier"
    }


@pytest.mark.parametrize("name", ["bytes_at_rest", "params_nonzero", "inference_flops_decode"])
def test_a_ledger_with_an_empty_or_an_odd_cell_makes_no_condition(name):
    for odd in (None, 7.0):
        rows = [row | {name: 4 * row["params"]} for row in table(seed=[0, 1])]
        rows[3][name] = odd
        assert kinds(rows)[name] == "count"
    rows = [row | {"params_active": row["params"] / 2} for row in table(seed=[0, 1])]
    rows[3]["params_active"] = None
    assert kinds(rows)["params_active"] == "count"


def test_tokens_of_one_number_of_epochs_make_no_condition():
    rows = [row | {"unique_tokens": row["tokens"] / 2} for row in table(seed=[0, 1])]
    assert kinds(rows)["unique_tokens"] == "count"


def test_an_outcome_that_was_rounded_is_no_condition():
    """An accuracy of two digits under a name that says nothing recurs in many runs."""
    rows = [row | {"arc": round(RNG.uniform(0.2, 0.8), 2)} for row in table(seed=list(range(20)))]
    assert 12 < len({row["arc"] for row in rows}) < len(rows) / 3
    assert kinds(rows)["arc"] == "outcome"


def test_repetition_is_a_condition_and_once_is_once():
    rows = [row | {"unique_tokens": u} for row in table() for u in (1e8, row["tokens"])]
    runs = read_runs(rows)
    assert runs.kinds["unique_tokens"].kind == "condition"
    found = conditions(runs)
    assert [c.values["unique_tokens"] for c in found] == ["100000000", "once"]
    assert [len(c.runs) for c in found] == [len(PARAMS), len(PARAMS)]


def test_what_is_asked_for_wins():
    rows = table(batch=[8, 16], foo=[1, 2])
    assert kinds(rows)["batch"] == "setting" and kinds(rows)["foo"] == "condition"
    found = kinds(rows, batch="condition", foo="outcome")
    assert found["batch"] == "condition" and found["foo"] == "outcome"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bach": "setting"}, "no column 'bach'; did you mean batch"),
        ({"batch": "settings"}, "did you mean setting"),
        ({"batch": "fitted"}, "a column is condition, setting"),
        ({"params": "condition"}, "'params' is fitted as params"),
    ],
)
def test_a_wrong_kind_is_told_in_one_line(asked, message):
    with pytest.raises(UserError, match=message) as told:
        kinds(table(batch=[8, 16]), **asked)
    assert "\n" not in str(told.value)


def test_a_name_is_read_by_its_words():
    assert words("config.peakLR") == "config peak lr"
    assert words("throughput/total_tokens") == "throughput total tokens"
    assert words("AdamW beta2") == "adam w beta2"


def partition(rows):
    """The kinds, and which rows share a condition: pairs of row numbers."""
    runs = read_runs(rows)
    condition = dict(zip(runs.row_R.tolist(), runs.condition_R().tolist(), strict=True))
    return {name: column.kind for name, column in runs.kinds.items()}, condition


MIXED = [
    row | {"lr": lr, "note": f"{i}-{lr}", "host": "a" if i % 2 else "b", "width": row["params"] / 7}
    for i, row in enumerate(three_optimizers(seeds=2, sizes=4, budgets=(1e18, 1e19)))
    for lr in (1e-3, 2e-3)
]


def together(condition, rows):
    """Sets of the rows' own numbers that share a condition."""
    sets = {}
    for line, code in condition.items():
        sets.setdefault(code, set()).add(rows[line - 1]["note"])
    return sorted(map(sorted, sets.values()))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_order_of_rows_and_columns_the_words_of_a_text_and_a_constant_change_nothing(data):
    expected, condition = partition(MIXED)
    rows = data.draw(st.permutations(MIXED))
    names = data.draw(st.permutations(list(MIXED[0])))
    letters = data.draw(st.permutations(["x", "y", "z"]))
    words_of = dict(zip(("adamw", "muon", "sgd"), letters, strict=True))
    rows = [
        {name: words_of.get(row[name], row[name]) for name in names} | {"constant": 3}
        for row in rows
    ]
    found, permuted = partition(rows)
    assert found == expected | {"constant": "constant"}
    assert together(permuted, rows) == together(condition, MIXED)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 0.75]), min_size=len(MIXED), max_size=len(MIXED)),
    name=st.sampled_from(["sparsity", "techniques.sparsity.level", "precision"]),
)
def test_a_technique_that_differs_splits_cells(values, name):
    rows = [row | {name: value} for row, value in zip(MIXED, values, strict=True)]
    runs, before = read_runs(rows), read_runs(MIXED)
    cell_R, old_R = runs.cell_R(), before.cell_R()
    for i in range(len(rows)):
        same = (cell_R == cell_R[i]).nonzero()[0]
        expected = [j for j in (old_R == old_R[i]).nonzero()[0] if values[j] == values[i]]
        assert same.tolist() == expected


@pytest.mark.parametrize(
    ("name", "columns", "condition"),
    [
        ("t5_c4_sparsity", {}, {"sparsity"}),
        ("gadre_overtraining", {"loss": "loss_c4_val"}, {"train"}),
        ("gemstones_hot", {}, set()),
        ("olmo_ladder", {"loss": "c4_loss"}, set()),
        ("repetition_runs", {}, {"unique_tokens"}),
        (
            "clark_routing",
            {"params": "dense_params", "tokens": "step"},
            {"router", "experts", "k", "routing_frequency", "flop_increase"},
        ),
    ],
)
def test_other_peoples_tables(name, columns, condition):
    path = DATA / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{name} is other people's data and not part of the repository")
    assert set(read_runs(path, columns).names("condition")) == condition


def test_unique_tokens_of_as_many_epochs_are_one_condition():
    rows = [
        {"params": n, "tokens": d, "loss": TRUE.loss(n, d), "uniq_toks": round(d / epochs)}
        for n, d in zip(PARAMS.tolist(), TOKENS.tolist(), strict=True)
        for epochs in (1, 4, 16)
    ]
    found = read_runs(rows)
    assert set(found.condition_labels("uniq_toks")) == {"once", "4 epochs", "16 epochs"}
    assert len(conditions(found)) == 3


@pytest.mark.parametrize("name", ["tags", "git_commit", "host", "run", "eval_set"])
def test_replicates_that_differ_the_same_way_in_every_cell_are_none(name):
    names = ("1", "2") if name == "eval_set" else ("new", "old")

    def rows(rise):
        return [row | {name: names[i % 2] + ("" if name != "run" else f"-{i}"),
                       "loss": row["loss"] * (1 + rise * (i % 2))}
                for i, row in enumerate(table(x=[1, 1]))]  # fmt: skip

    what = "a part of the runs' names" if name == "run" else f"column '{name}'"
    said = [doubt for doubt in read_runs(rows(0.05)).doubts if doubt.startswith(what)]
    assert len(said) == 1 and f"({', '.join(names)}) tells runs of one cell apart" in said[0]
    assert not any(what in doubt for doubt in read_runs(rows(0.0)).doubts)


def test_parameters_that_are_used_beside_all_tell_sparsities():
    """Those of one sparsity change slowly with the size."""
    rows = [
        {"total_params": n * e, "active_params": n + 1e6, "tokens": d, "loss": TRUE.loss(n, d)}
        for n, d in zip(PARAMS.tolist(), TOKENS.tolist(), strict=True)
        for e in (2, 8)
    ]
    said = "runs of several sparsities stand in one fit"
    assert any(said in doubt for doubt in read_runs(rows).doubts)
    assert not any(said in doubt for doubt in read_runs(rows[::2]).doubts)
