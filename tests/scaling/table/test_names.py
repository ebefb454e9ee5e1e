"""Other people's names, units and shapes of tables, as they come out of their tools."""

import json

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table import units
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, BUDGET = grid([1e18, 1e19, 1e20], 6, 4.0)
LOSS = TRUE.loss(PARAMS, TOKENS)


def table(**columns):
    """Columns by name; an underscore pair stands for a slash."""
    return {name.replace("__", "/"): list(column) for name, column in columns.items()}


@pytest.mark.parametrize("name", ["eval_loss", "val_loss", "eval/loss", "Validation Loss",
                                  "summary.eval/loss", "test_loss", "val_bpb", "loss_val",
                                  "metrics.val.nll", "mean_val_loss", "held_out_loss", "dev_loss",
                                  "val_bits_per_byte", "val_nll_per_token"])  # fmt: skip
@pytest.mark.parametrize("beside", ["loss", "train_loss", "train/loss", "final_loss"])
def test_held_out_loss_comes_before_any_other(name, beside):
    columns = {beside: 0.9 * LOSS**2, name: LOSS}
    for order in (list(columns), list(columns)[::-1]):
        runs = read_runs(table(params=PARAMS, tokens=TOKENS, **{n: columns[n] for n in order}))
        np.testing.assert_array_equal(runs.loss, LOSS)
        said = [note for note in runs.notes if f"'{name}' is taken as loss" in note]
        assert len(said) == ("train" not in beside)
        assert all(f"'{beside}'" in note for note in said)


def test_a_loss_of_some_held_out_text_is_told_beside_one_that_says_nothing():
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, loss=LOSS, loss_c4_val=2 * LOSS))
    np.testing.assert_array_equal(runs.loss, LOSS)
    assert "column 'loss' is taken as loss; there is also 'loss_c4_val'" in runs.notes


@pytest.mark.parametrize(
    ("beside", "told"),
    [("best_val_loss", True), ("val_loss_c4", True), ("val_ppl", False), ("val_loss_std", False)],
)
def test_another_loss_of_held_out_text_is_told(beside, told):
    other = np.exp(LOSS) if beside == "val_ppl" else 0.9 * LOSS
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, last_val_loss=LOSS, **{beside: other}))
    np.testing.assert_array_equal(runs.loss, LOSS)
    said = f"column 'last_val_loss' is taken as loss; there is also '{beside}'"
    assert (said in runs.notes) == told
    alone = read_runs(table(params=PARAMS, tokens=TOKENS, val_ppl=np.exp(LOSS)))
    assert not any("there is also" in note for note in alone.notes)


def test_no_column_is_near_to_what_another_one_says():
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, train_loss=LOSS / 2, val_loss=LOSS))
    assert not any("--columns=flops" in note for note in runs.notes)
    small = read_runs(table(N=PARAMS / 1e6, D=TOKENS / 1e9, loss=LOSS))
    assert any("in millions? --columns='params=1e6*N'" in doubt for doubt in small.doubts)
    same = read_runs(table(params=PARAMS, tokens=TOKENS, loss=2.5 + 0 * LOSS))
    assert "all 18 runs have a loss of 2.5: is it their loss?" in same.doubts


def test_the_loss_of_training_is_asked_for():
    runs = table(params=PARAMS, tokens=TOKENS, train_loss=LOSS)
    with pytest.raises(UserError, match=r"--columns=loss=train_loss\?"):
        read_runs(runs)
    np.testing.assert_array_equal(read_runs(runs, {"loss": "train_loss"}).loss, LOSS)


def test_two_of_one_meaning_are_told_unless_they_hold_the_same():
    same = read_runs(table(params=PARAMS, n_params=PARAMS, tokens=TOKENS, loss=LOSS))
    assert not any("there is also" in note for note in same.notes)
    told = read_runs(table(params=PARAMS, n_params=2 * PARAMS, tokens=TOKENS, loss=LOSS))
    assert "column 'params' is taken as params; there is also 'n_params'" in told.notes


def test_a_column_that_is_mostly_empty_does_not_stand_for_the_full_one():
    few = [x if i < 4 else "" for i, x in enumerate(LOSS)]
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, loss=LOSS, eval_loss=few))
    np.testing.assert_array_equal(runs.loss, LOSS)
    runs = read_runs(table(params=PARAMS, tokens=[""] * len(LOSS), flops=BUDGET, loss=LOSS))
    np.testing.assert_allclose(runs.tokens, TOKENS)


@pytest.mark.parametrize("name", ["flops_budget", "target_flops", "IsoFLOP", "C_target"])
def test_a_stated_budget_is_what_was_spent(name):
    runs = read_runs(table(params=1.7 * PARAMS, tokens=TOKENS, loss=LOSS, **{name: BUDGET}))
    np.testing.assert_array_equal(runs.flops, BUDGET)
    assert "flops" in runs.given and runs.budgets_from == "column"
    assert any(f"'{name}' are taken as spent" in note for note in runs.notes)
    runs = read_runs(
        table(params=PARAMS, tokens=TOKENS, flops_budget=BUDGET, loss=LOSS), {"budget": "none"}
    )
    np.testing.assert_allclose(runs.flops, 6 * PARAMS * TOKENS)
    assert runs.budgets_from == "grouped"


PROFILE = np.searchsorted(np.unique(BUDGET), BUDGET)


@pytest.mark.parametrize("flops", [{}, {"flops": BUDGET}])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("budget", PROFILE + 1),
        ("isoflop", PROFILE),
        ("isoflop", ["true"] * len(BUDGET)),
        ("isoflop", ["ABC"[i] for i in PROFILE]),
        ("target_flops", [1e24] * len(BUDGET)),
        ("target_flops", [1e19] * len(BUDGET)),  # the middle of the grid
    ],
)
def test_what_the_runs_did_not_spend_is_no_budget(name, values, flops):
    columns = {"params": PARAMS, "tokens": TOKENS, "loss": LOSS, name: values} | flops
    runs = read_runs(table(**columns))
    np.testing.assert_allclose(runs.flops, 6 * PARAMS * TOKENS)
    assert runs.budgets_from == "grouped" and len(runs.budget_G) == 3
    (note,) = [x for x in runs.notes if f"column '{name}' is not taken for budgets" in x]
    assert (f"--columns=budget={name} takes" in note) != isinstance(values[0], str)
    assert runs.kinds[name].kind in ("count", "constant")
    runs = read_runs(table(**columns, C_target=1.5 * BUDGET))
    assert runs.title["budget"] == "C_target" and runs.budgets_from == "column"
    if name == "budget":
        asked = read_runs(table(**columns), {"budget": name})
        assert asked.budget_G.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "base", "factor"),
    [
        ("params_M", "params", 1e6), ("params (B)", "params", 1e9), ("paramsM", "params", 1e6),
        ("million_params", "params", 1e6), ("params_millions", "params", 1e6),
        ("tokens_B", "tokens", 1e9), ("tokens [bn]", "tokens", 1e9), ("tokens_T", "tokens", 1e12),
        ("tokens_1e9", "tokens", 1e9), ("total_gflops", "total flops", 1e9),
        ("GFLOPs", "flops", 1e9), ("train exaFLOPs", "train flops", 1e18),
        ("zflop", "flops", 1e21), ("PF-days", "flops", 8.64e19), ("pflops_days", "flops", 8.64e19),
        ("params", "params", 1.0), ("model", "model", 1.0), ("tflops_per_s", "tflops_per_s", 1.0),
        ("m", "m", 1.0), ("gflops/s", "gflops/s", 1.0), ("params_in_millions", "params", 1e6),
    ],
)  # fmt: skip
def test_a_unit_in_a_name(name, base, factor):
    assert units.of_name(name) == (base, pytest.approx(factor))


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("val_ppl", np.exp, "the logarithms of 'val_ppl'"),
        ("eval/perplexity", np.exp, "the logarithms of 'eval/perplexity'"),
        ("Val Loss (bits)", lambda x: x / np.log(2), "those of 'Val Loss (bits)' times ln 2"),
        ("val_bits_per_token", lambda x: x / np.log(2), "times ln 2"),
        ("val_loss_nats", lambda x: x, ""),
        ("val_bpb", lambda x: x, "in bits per byte and not nats per token"),
        ("log2_ppl", lambda x: x / np.log(2), "those of 'log2_ppl' times ln 2, in nats per token"),
        ("val/ppl_log2", lambda x: x / np.log(2), "times ln 2, in nats per token"),
        ("log_val_ppl", lambda x: x, ""),
    ],
)
def test_a_loss_in_another_unit_by_its_name(name, count, words):
    """Alone, beside a loss of training, and where a person names it; as it stands by a factor."""
    columns = {"params": PARAMS, "tokens": TOKENS, name: count(LOSS)}
    for more, asked in (({}, {}), ({"train_loss": LOSS / 2}, {}), ({}, {"loss": name})):
        runs = read_runs(table(**more) | {n: list(c) for n, c in columns.items()}, asked)
        np.testing.assert_allclose(runs.loss, LOSS, rtol=1e-12)
        assert any(words in note for note in runs.notes) or not words
    if words:
        runs = read_runs({n: list(c) for n, c in columns.items()}, {"loss": f"1*{name}"})
        np.testing.assert_array_equal(runs.loss, count(LOSS))


@pytest.mark.parametrize(
    ("name", "unit", "count"),
    [
        ("byte_perplexity", "the logarithms of 'byte_perplexity', in nats per byte", np.exp),
        ("c4_word_ppl", "the logarithms of 'c4_word_ppl', in nats per word", np.exp),
        ("ppl_per_char", "the logarithms of 'ppl_per_char', in nats per character", np.exp),
        ("log2_byte_ppl", "those of 'log2_byte_ppl', by its name in bits per byte", np.array),
        ("log10_ppl", "those of 'log10_ppl', by its name in decimal digits per token", np.array),
        ("log_c4_ppl", "those of 'log_c4_ppl', by its name in nats per token", np.array),
        ("c4_ppl_ln", "those of 'c4_ppl_ln', by its name in nats per token", np.array),
    ],
)  # fmt: skip
def test_a_logarithm_is_taken_once_and_of_what_it_is_said(name, unit, count):
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, **{name: count(LOSS)}), {"loss": name})
    np.testing.assert_allclose(runs.loss, LOSS)
    assert any(note.startswith(f"losses are {unit}") for note in runs.notes)


def test_bits_of_weights_are_no_unit_of_a_loss():
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, loss=LOSS, bits=[4] * len(LOSS)))
    np.testing.assert_array_equal(runs.loss, LOSS)
    same = read_runs(table(params=PARAMS, tokens=TOKENS, val_loss=LOSS, val_ppl=np.exp(LOSS)))
    np.testing.assert_array_equal(same.loss, LOSS)
    assert not any("there is also" in note for note in same.notes)


def test_units_by_name_or_by_a_factor_give_the_numbers():
    columns = {"params_M": PARAMS / 1e6, "tokens (B)": TOKENS / 1e9,
               "throughput/total_gflops": BUDGET / 1e9, "eval/loss": LOSS}  # fmt: skip
    runs = read_runs(table(**columns))
    asked = {"params": "1e6*params_M", "tokens": "1e9*tokens (B)",
             "flops": "1e9*throughput/total_gflops", "loss": "eval/loss"}  # fmt: skip
    for found in (runs, read_runs(table(**columns), asked)):
        np.testing.assert_allclose(found.params, PARAMS)
        np.testing.assert_allclose(found.tokens, TOKENS)
        np.testing.assert_allclose(found.flops, BUDGET)
        assert len(found.budget_G) == 3
    assert any("'params_M' counts params in units of 1e+06" in note for note in runs.notes)
    with pytest.raises(UserError, match="where training costs about 6"):
        read_runs(table(**columns), {"params": "1*params_M"})
    with pytest.raises(UserError, match="no column 'param_M' for params; did you mean params_M"):
        read_runs(table(**columns), {"params": "1e6*param_M"})


def test_a_capital_with_a_unit_is_ours_and_the_width_of_a_key_is_not():
    runs = read_runs(table(N_M=PARAMS / 1e6, D_B=TOKENS / 1e9, C_1e18=BUDGET / 1e18, loss=LOSS))
    np.testing.assert_allclose(runs.tokens, TOKENS)
    np.testing.assert_allclose(runs.flops, BUDGET)
    with pytest.raises(UserError, match="recognised: params is 'params'"):
        read_runs(table(params=PARAMS, d_k=TOKENS / 1e3, loss=LOSS))


def test_a_column_may_be_a_product_of_others():
    columns = {"params": PARAMS, "steps": TOKENS / 2048, "bsz": 2.0 + 0 * PARAMS, "loss": LOSS}
    runs = read_runs(table(**columns), {"tokens": "1024*steps*bsz"})
    np.testing.assert_allclose(runs.tokens, TOKENS)
    with pytest.raises(UserError, match="no column 'stps' for tokens; did you mean steps"):
        read_runs(table(**columns), {"tokens": "stps*bsz"})


SIZE = {"params": PARAMS, "params_M": PARAMS / 1e6, "tokens": TOKENS, "loss": LOSS}
STEP = {"steps": TOKENS / 64, "B": 8.0 + 0 * PARAMS, "T": 8.0 + 0 * PARAMS}
STEP |= {"seq_k": STEP["T"] / 1e3, "seq_T": STEP["T"], "tpp": TOKENS / PARAMS}
STEP |= {"batch_tokens_M": 64e-6 + 0 * PARAMS, "64K": ["64K"] * 18, "1,024": ["1,024"] * 18}


@pytest.mark.parametrize(
    ("product", "unit", "size"),
    [
        ("steps*B*T", 1.0, 1.0), ("steps*T*B", 1.0, 1.0), ("steps*B*seq_T", 1.0, 1.0),
        ("steps*seq_k*B", 1e3, 1.0), ("params_M*tpp", 1e6, 1.0), ("steps*batch_tokens_M", 1e6, 1.0),
        ("steps*64K", 1.0, 1e3), ("steps*1,024", 1.0, 16.0),
    ],
)  # fmt: skip
def test_the_unit_of_a_product_is_that_of_its_parts(product, unit, size):
    columns = {n: SIZE[n] for n in ("params_M", "loss")} | STEP
    runs = read_runs(table(**columns), {"tokens": product})
    np.testing.assert_allclose(runs.tokens, size * TOKENS)
    said = [note for note in runs.notes if note.startswith(f"column '{product}' counts tokens in")]
    assert any("from the name of 'seq_T'" in n for n in runs.notes) == ("seq_T" in product)
    assert len(said) == (unit != 1.0) and all(f"units of {unit:g} by" in note for note in said)
    with pytest.raises(UserError, match="'64Q' is not a number"):
        read_runs(table(**columns | {"B": ["64Q"] * 18}), {"tokens": "steps*B*T"})


def millions(unit):
    return [f"{n / 1e6:.4f}{unit}" for n in PARAMS]


@pytest.mark.parametrize(
    ("name", "cells", "close"),
    [
        ("params_M", millions("M"), 1e-4), ("params (B)", millions("M"), 1e-4),
        ("params_K", [f"{n / 1e3:,.0f}" for n in PARAMS], 1e-4),
        ("params_M", ["20", *(f"{n / 1e6:,.0f}" for n in PARAMS[1:])], 0.02),
        ("params", [f"{PARAMS[0]:.0f}", *millions("M")[1:]], 1e-4),
        ("params", [text.replace(".", ",") for text in millions("M")], 1e-4),
        ("params_M", [millions("")[0], *millions("M")[1:]], None),
        ("params", ["7", *millions("M")[1:]], None),
        ("params_M", ["0,125", *millions("")[1:]], None),
        ("params_B", ["0,125"] * 18, None),
        ("params", ["1e8", "x", *PARAMS[2:]], None),
    ],
)  # fmt: skip
def test_a_unit_stands_in_the_name_or_in_the_cells(name, cells, close):
    columns = {name: cells, "tokens": TOKENS, "loss": LOSS}
    if close is None:
        with pytest.raises(UserError, match=rf"column '{name}': '.*' is not a number"):
            read_runs(columns)
        return
    runs = read_runs(columns)
    np.testing.assert_allclose(runs.params, PARAMS, rtol=close)
    assert any("and the like in column" in note for note in runs.notes)
    assert any("in units of" in note for note in runs.notes) == (cells[1][-1] != "M")


@pytest.mark.parametrize("name", ["note", "version", "context", "test_loss"])
def test_a_column_that_nobody_asked_for_may_begin_with_a_number(name):
    odd = {name: [1, *"x" * 17], "experts": [1, "x", *[2] * 16]}
    runs = read_runs(table(params=PARAMS, tokens=TOKENS, val_loss=LOSS, **odd))
    np.testing.assert_array_equal(runs.loss, LOSS)
    assert not {*odd} & {*runs.columns}
    assert "column 'experts' is read as text: 'x' in row 2 is no number" in runs.notes


def test_a_flag_of_yes_and_no_says_which_runs_are_over():
    for name, bad in (("diverged", "True"), ("is_finished", 0)):
        good = {"True": "False", 0: 1}[bad]
        runs = read_runs([row | {name: bad if i in (1, 5) else good} for i, row in enumerate(ROWS)])
        assert len(runs) == len(ROWS) - 2 and not runs.names("condition")
        assert any(f"{name} is {bad} (row 2, row 6)" in note for note in runs.notes)


def test_one_message_says_all_that_lacks_what_was_found_and_what_may_be_meant():
    with pytest.raises(UserError) as told:
        read_runs(table(n_params=PARAMS, data_tokens=TOKENS, batch_tokens=TOKENS, depth=PARAMS,
                        paloma_c4_bpb=LOSS, bpb_se=LOSS))  # fmt: skip
    text = str(told.value)
    assert "no column for loss and two of params, tokens, flops" in text
    assert "recognised: params is 'n_params'" in text
    assert text.endswith("--columns=loss=paloma_c4_bpb,tokens=data_tokens?")
    wide = {f"column {i}": PARAMS for i in range(200)}
    with pytest.raises(UserError) as told:
        read_runs(wide)
    assert len(str(told.value)) < 800 and "and 170 more" in str(told.value)


def test_a_column_that_may_be_the_missing_one_is_named():
    runs = read_runs(table(params=PARAMS, flops=BUDGET, loss=LOSS, data_tokens=3 * TOKENS))
    assert any("--columns=tokens=data_tokens?" in note for note in runs.notes)


ROWS = [{"params": n, "tokens": d, "loss": x} for n, d, x in zip(PARAMS, TOKENS, LOSS, strict=True)]


@pytest.mark.parametrize("column", ["params", "tokens", "loss", "flops"])
def test_an_empty_cell_costs_its_row(column):
    few = [{"params": p, "tokens": "1B", "loss": 3.0} for p in ("", "125M", "1.3 B")]
    assert read_runs(few).params.tolist() == [1.25e8, 1.3e9]
    rows = [row | {"flops": c, "run_id": f"r{i}"} for i, (row, c) in
            enumerate(zip(ROWS, BUDGET, strict=True))]  # fmt: skip
    rows[4] = rows[4] | {column: ""}
    runs = read_runs(rows)
    assert len(runs) == len(ROWS) - 1
    assert [(a.run_id, a.status, a.reason) for a in runs.aside] == [
        ("r4", "missing", f"no {column}")
    ]
    assert f"1 of {len(ROWS)} rows are left out: 1 missing, no {column} (r4)" in runs.notes


def test_rows_left_out_are_counted_named_and_can_be_kept():
    rows = [
        row | {"Name": f"r{i}", "State": "crashed" if i in (1, 5, 7, 9) else "finished"}
        for i, row in enumerate(ROWS)
    ]
    rows[3]["loss"] = "nan"
    runs = read_runs(rows)
    assert len(runs) == len(ROWS) - 5
    said = (
        f"5 of {len(ROWS)} rows are left out: 4 crashed (r1, r5, r7 and 1 more), 1 diverged, loss "
        "is nan (r3); --columns=status=none keeps those that have a loss"
    )
    assert said in runs.notes
    assert len(read_runs(rows, {"status": "none"})) == len(ROWS) - 1
    with pytest.raises(UserError, match=r"are left out: .* crashed"):
        read_runs([row | {"State": "crashed"} for row in rows])


def test_values_that_differ_in_case_or_spaces_are_one():
    ways = ["AdamW", "adamw", " ADAMW "]
    rows = [row | {"optimizer": ways[i % 3]} for i, row in enumerate(ROWS)]
    runs = read_runs(rows)
    assert not runs.names("condition")
    rows += [row | {"optimizer": "Muon", "loss": 1.01 * row["loss"]} for row in ROWS]
    runs = read_runs(rows)
    assert set(runs.condition_labels("optimizer")) == {"AdamW", "Muon"}
    assert any("'ADAMW', 'AdamW', 'adamw' are one value" in note for note in runs.notes)


def nested(row):
    return {
        "config": {"trainer": {"batch": 64}, "model": {"params": row["params"]}},
        "summary": {"eval/loss": row["loss"], "tokens": row["tokens"]},
        "tags": ["a", "b"],
    }


@pytest.mark.parametrize(
    "data",
    [
        [nested(row) for row in ROWS],
        {f"run-{i}": nested(row) for i, row in enumerate(ROWS)},
        {"project": "x", "runs": [nested(row) for row in ROWS]},
        {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {"columns": [*ROWS[0]], "index": [*range(len(ROWS))],
         "data": [[*row.values()] for row in ROWS]},
        {"date": "today", "count": 18} | {f"run-{i}": row for i, row in enumerate(ROWS)},
        {"run-0": ROWS[0], "all": {f"run-{i}": row for i, row in enumerate(ROWS) if i}},
        {"a": {f"{i}": nested(row) for i, row in enumerate(ROWS) if i < 9},
         "b": {f"{i}": nested(row) for i, row in enumerate(ROWS) if i >= 9}},
    ],
    ids=["list", "by name", "inside", "pandas columns", "lists", "pandas split", "beside others",
         "some in a group", "in groups"],
)  # fmt: skip
def test_json_of_any_shape(data, tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(data))
    runs = read_runs(path)
    np.testing.assert_array_equal(runs.params, PARAMS)
    np.testing.assert_array_equal(runs.tokens, TOKENS)
    np.testing.assert_array_equal(runs.loss, LOSS)
    if "run-0" in data:
        assert runs.run_id_R[3] == ("all/run-3" if "all" in data else "run-3")


def test_what_is_nested_gives_way_to_what_is_flat():
    rows = [{"a": {"b": 7}, "a.b": i, "c": {"params": 3.0}} | row for i, row in enumerate(ROWS)]
    runs = read_runs(rows)
    np.testing.assert_array_equal(runs.params, PARAMS)
    assert [*runs.labels["a.b"][:3]] == ["0", "1", "2"]


def test_a_header_that_nobody_needs_may_stand_twice(tmp_path):
    lines = ["params,tokens,loss,note,note"]
    lines += [f"{n!r},{d!r},{x!r},a,b" for n, d, x in zip(
        PARAMS.tolist(), TOKENS.tolist(), LOSS.tolist(), strict=True)]  # fmt: skip
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    np.testing.assert_array_equal(read_runs(path).loss, LOSS)
    path.write_text("\n".join(lines).replace("note,note", "note,loss"))
    with pytest.raises(UserError, match="'loss' stands twice"):
        read_runs(path)


def steps(rows_a_run, **columns):
    return [
        row | {"name": f"m{i}", "step": s, "tokens": row["tokens"] * s / rows_a_run}
        | {name: of(i, s) for name, of in columns.items()}
        for i, row in enumerate(ROWS)
        for s in range(1, rows_a_run + 1)
    ]  # fmt: skip


def test_logs_and_finished_runs_are_told_apart_by_what_they_hold():
    assert len(read_runs(steps(12))) == len(ROWS)
    for finished in (steps(3), steps(12, seed=lambda _, s: s)):
        assert len(read_runs(finished)) == len(finished)
    assert len(read_runs(steps(3), rows="curves")) == len(ROWS)
    assert len(read_runs(steps(12), rows="runs")) == 12 * len(ROWS)
    with pytest.raises(UserError, match="--rows=curves needs a column of run_id"):
        read_runs(ROWS, rows="curves")


def test_a_column_that_is_a_step_by_a_longer_name_makes_a_log():
    rows = [
        {"checkpoint_step" if n == "step" else n: x for n, x in row.items()} for row in steps(9)
    ]
    assert len(read_runs(rows)) == len(ROWS)
    assert len(read_runs([row | {"checkpoint_step": "10k"} for row in rows])) == len(rows)


def test_the_result_of_a_log_is_the_last_loss_that_was_measured():
    rows = [row if row["step"] < 12 else row | {"loss": None} for row in steps(12)]
    runs = read_runs(rows)
    assert not runs.aside
    np.testing.assert_allclose(runs.tokens, TOKENS * 11 / 12)


@pytest.mark.parametrize("sizes", [3, 4])
def test_the_budgets_of_a_small_grid_are_found(sizes):
    params, tokens, _ = grid([1e18, 3e18, 1e19, 3e19], sizes, 3.0)
    tokens = np.round(tokens / 1e6) * 1e6
    runs = read_runs(table(params=params, tokens=tokens, loss=TRUE.loss(params, tokens)))
    assert list(runs.group_R) == [g for g in range(4) for _ in range(sizes)]
    scattered = 10 ** np.random.default_rng(0).uniform(18, 21, 60)
    tokens = scattered / (6 * 1e8)
    runs = read_runs(table(params=[1e8] * 60, tokens=tokens, loss=TRUE.loss(1e8, tokens)))
    assert len(runs.budget_G) == 0
