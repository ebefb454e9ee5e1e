"""Any table of runs: formats, names, and a hundred ways to be wrong."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.experiment import plans, results
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid
from tests.scaling.sweeps import write_sweep

PARAMS, TOKENS, BUDGET = grid([1e18, 1e19, 1e20], 6, 4.0)
ROWS = [
    {"params": n, "tokens": d, "flops": c, "loss": loss}
    for n, d, c, loss in zip(
        PARAMS.tolist(), TOKENS.tolist(), BUDGET.tolist(),
        TRUE.loss(PARAMS, TOKENS).tolist(), strict=True,
    )
]  # fmt: skip


def _csv(path, rows, delimiter=","):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _write(path, rows):
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        _csv(path, rows, {".csv": ",", ".tsv": "\t", ".txt": ";"}[path.suffix])
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_numbers(tmp_path, suffix):
    runs = read_runs(_write(tmp_path / f"runs.{suffix}", ROWS))
    np.testing.assert_array_equal(runs.params, PARAMS)
    np.testing.assert_array_equal(runs.tokens, TOKENS)
    np.testing.assert_array_equal(runs.flops, BUDGET)
    assert list(runs.group_R) == [0] * 6 + [1] * 6 + [2] * 6
    assert runs.loss.dtype == np.float64


def test_lists_of_a_sweep_are_texts_as_in_its_table(tmp_path, monkeypatch):
    rows = [row | {"data_mixed_with": ["b"], "n": i} for i, row in enumerate(ROWS)]
    monkeypatch.setattr(plans, "has_plan", lambda folder: True)
    monkeypatch.setattr(results, "collect", lambda folder: rows)
    assert set(read_runs(tmp_path).labels["data_mixed_with"]) == {"['b']"}


def test_names_are_found_or_given(tmp_path):
    usual = {"params": "Model Size", "tokens": "Training Tokens", "flops": "Training FLOP"}
    rows = [{usual.get(k, k): v for k, v in row.items()} for row in ROWS]
    np.testing.assert_array_equal(read_runs(_csv(tmp_path / "a.csv", rows)).params, PARAMS)
    rows = [{"x": r["params"], "y": r["tokens"], "z": r["loss"]} for r in ROWS]
    path = _csv(tmp_path / "b.csv", rows)
    runs = read_runs(path, {"params": "x", "tokens": "y", "loss": "z"})
    np.testing.assert_allclose(runs.flops, 6 * PARAMS * TOKENS)
    with pytest.raises(UserError, match=r"no column 'q' for loss \(there are x, y, z\)$"):
        read_runs(path, {"params": "x", "tokens": "y", "loss": "q"})
    with pytest.raises(UserError, match=r"no column for loss and two of .* among x, y, z; .*--col"):
        read_runs(path)
    with pytest.raises(UserError, match=r"no column 'parms'; did you mean params"):
        read_runs(path, {"parms": "x", "tokens": "y", "loss": "z"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"optimizer": "loss"}, "--columns=optimizer=loss: we have no column 'optimizer'.*params"),
        ({"los": "loss"}, "did you mean loss"),
        ({"loss": "params"}, "column 'params' cannot be both params and loss.*there are"),
        ({"tokens": "flops"}, "column 'flops' cannot be both"),
        ({"params": "loss", "tokens": "loss"}, "column 'loss' cannot be both params and"),
        ({"loss": "lss"}, "no column 'lss' for loss; did you mean loss.*there are params"),
    ],
)
def test_a_column_that_means_nothing_or_two_things_is_refused(columns, message):
    with pytest.raises(UserError, match=message) as told:
        read_runs(ROWS, columns)
    assert "\n" not in str(told.value)


def test_a_usual_name_gives_way_to_what_was_said_of_the_column():
    rows = [{"N": row["tokens"], "C": row["flops"], "loss": row["loss"]} for row in ROWS]
    runs = read_runs(rows, {"tokens": "N"})
    assert runs.tokens.tolist() == [float(row["tokens"]) for row in ROWS]
    np.testing.assert_allclose(runs.params, BUDGET / 6 / TOKENS)
    assert read_runs(ROWS, {"budget": "flops"}).budgets_from == "column"


@pytest.mark.parametrize("left_out", ["params", "tokens", "flops"])
def test_two_of_three_suffice_and_the_convention_is_named(tmp_path, left_out):
    rows = [{k: v for k, v in row.items() if k != left_out} for row in ROWS]
    runs = read_runs(_csv(tmp_path / "runs.csv", rows))
    expected = {"params": PARAMS, "tokens": TOKENS, "flops": BUDGET}[left_out]
    np.testing.assert_allclose(getattr(runs, left_out), expected)
    assert any("6 params tokens" in warning for warning in runs.warnings)


def test_unfinished_rows_are_shown_and_not_fitted(tmp_path):
    extra = [
        {"run_id": "d", "status": "diverged", "reason": "nan at step 7", "params": 1e6},
        {"run_id": "m", "status": "missing", "params": 1e6, "loss": ""},
        {"run_id": "n", "status": "done", **ROWS[0], "loss": "nan"},
        {"run_id": "i", "status": "done", **ROWS[0], "loss": "inf"},
        {"run_id": "e", "status": "done", **ROWS[0], "loss": "N/A"},
    ]
    rows = [{"run_id": f"r{i}", "status": "done", **row} for i, row in enumerate(ROWS)]
    runs = read_runs(_csv(tmp_path / "runs.csv", [rows[0] | {"reason": ""}, *rows[1:], *extra]))
    np.testing.assert_array_equal(runs.loss, [row["loss"] for row in ROWS])
    assert [(a.row, a.run_id, a.status) for a in runs.aside] == [
        (20, "d", "diverged"), (21, "m", "missing"), (22, "n", "diverged"), (23, "i", "diverged"),
        (24, "e", "missing"),
    ]  # fmt: skip
    assert runs.aside[0].reason == "nan at step 7"


def test_text_in_rows_that_are_left_out_makes_no_text_of_a_column():
    left = ROWS[0] | {"loss": "diverged", "x": "oom"}
    runs = read_runs([*(row | {"x": i} for i, row in enumerate(ROWS)), left], {"loss_se": "x"})
    assert runs.columns["x"].tolist() == [*range(len(ROWS))]
    assert not any("read as text" in note for note in runs.notes)
    name = next(name for law in LAWS.values() for name in law.columns if name not in ROWS[0])
    odd = [row | {name: "oom" if i == 4 else i} for i, row in enumerate(ROWS)]
    assert any("is read as text: 'oom' in row 5" in note for note in read_runs(odd).notes)
    assert not read_runs([*(row | {name: 1.0} for row in ROWS), left | {name: "oom"}]).notes[1:]


def test_steps_in_words_cost_no_table_that_needs_none():
    rows = [row | {"run": f"r{i}", "step": "last"} for i, row in enumerate(ROWS)]
    assert read_runs(rows).loss.tolist() == [row["loss"] for row in ROWS]
    with pytest.raises(UserError, match="row 2, column 'step': 'last' is not a number"):
        read_runs([ROWS[0] | {"run": "a", "step": step} for step in (1, "last")])


@pytest.mark.parametrize("name", ["nan", "has_crashed", "diverged"])
def test_a_flag_can_be_overruled(name):
    rows = [row | {name: i % 3 == 0} for i, row in enumerate(ROWS)]
    runs = read_runs(rows)
    assert len(runs) == len(ROWS) * 2 // 3
    assert any(f"--kinds={name}=outcome keeps those" in note for note in runs.notes)
    assert len(read_runs(rows, {"status": "none"})) == len(ROWS)
    asked = read_runs(rows, kinds={name: "outcome"})
    assert len(asked) == len(ROWS) and asked.kinds[name].kind == "outcome"


def test_a_flag_that_leaves_nothing_is_none():
    runs = read_runs([row | {"done": False} for row in ROWS])
    assert len(runs) == len(ROWS)
    assert "column 'done' is False in all rows: none is left out by it" in runs.notes


def test_the_best_learning_rate_of_a_cell_is_taken(tmp_path):
    rows = []
    for i, row in enumerate(ROWS):
        for rate, worse in ((1e-3, 1.02), (2e-3, 1.0), (4e-3, 1.01)):
            for seed, luck in ((0, 0.97 if rate == 4e-3 and i == 0 else 1.0), (1, 1.02)):
                rows.append(row | {"lr": rate, "seed": seed, "loss": row["loss"] * worse * luck})
    runs = read_runs(_csv(tmp_path / "runs.csv", rows))
    assert len(runs) == 6 * len(ROWS) and not runs.aside
    # Rates are compared by their mean over seeds; the best rate keeps all of its seeds.
    best = runs.best()
    assert len(best) == 2 * len(ROWS)
    chosen = best.columns["learning_rate"]
    assert set(chosen[best.params != ROWS[0]["params"]]) == {2e-3}
    said = f"{4 * len(ROWS)} runs at worse settings of their cell (lr)"
    assert any(said in warning for warning in runs.warnings)


def test_a_long_table_becomes_curves_and_their_ends(tmp_path):
    rows = [
        {"run": f"r{i}", "step": s, "params": row["params"], "tokens": row["tokens"] * s / 20,
         "loss": row["loss"] * (20 / s) ** 0.1}
        for i, row in enumerate(ROWS)
        for s in range(1, 21)
    ]  # fmt: skip
    np.random.default_rng(0).shuffle(rows)
    runs = read_runs(_csv(tmp_path / "long.csv", rows))
    assert sorted(runs.loss) == pytest.approx(sorted(row["loss"] for row in ROWS))
    assert len(runs.curves) == len(ROWS)
    assert all(np.all(np.diff(curve.tokens_S) > 0) for curve in runs.curves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "abc"}, r"runs\.csv, row 5, column 'loss': 'abc' is not a number"),
        ({"params": "7B"}, r"row 5, column 'params': '7B' is not a number; write 7e9 for 7B"),
        ({"params": "1,000"}, r"row 5, column 'params'"),
        ({"tokens": "1_000"}, r"row 5, column 'tokens'"),
        ({"params": -1.0}, r"row 5, column 'params': -1, a positive number is needed"),
        ({"tokens": 0.0}, r"row 5, column 'tokens': 0, a positive"),
        ({"flops": "inf"}, r"row 5, column 'flops': inf, a positive"),
        ({"loss": -2.0}, r"row 5, column 'loss': -2, a positive"),
        ({"loss": "-inf"}, r"row 5, column 'loss': -inf, a positive"),
        ({"loss": 3e-300}, r"row 5, column 'loss': 3e-300, and no run has a loss outside"),
        ({"loss": 3e200}, r"row 5, column 'loss': 3e\+200, and no run has a loss outside"),
        ({"params": 1e250}, r"row 5, column 'params': 1e\+250, and no run has a params outside"),
        ({"flops": 1e30}, r"row 5, columns params, tokens, flops: .* is a unit wrong"),
    ],
)
def test_a_bad_cell_is_told_with_file_row_and_column(tmp_path, change, message):
    rows = [dict(row) for row in ROWS]
    rows[3] |= change
    with pytest.raises(UserError, match=message) as told:
        read_runs(_csv(tmp_path / "runs.csv", rows))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "empty|no rows"),
        ("a.csv", "params,tokens,loss\n", "no rows"),
        ("a.csv", "params,params,loss\n1,2,3\n", "'params' stands twice"),
        ("a.csv", "params,tokens,loss\n1,2\n", "row 2: 2 cells, the header has 3"),
        ("a.csv", "params,tokens,loss\n1e9,2e10,nan\n", "none of 1 rows is a finished run"),
        ("a.csv", 'params,tokens,loss\n"1e9,2e10,3\n', "not a CSV table|cells"),
        ("a.jsonl", '{"params": 1}\nnot json\n{"params": 2}\n', "row 2: not JSON"),
        ("a.jsonl", '{"params": 1}\n{"params": 2, "lo', "row 2: not JSON; the last line is cut"),
        ("a.ndjson", '{"params": 1}\n{"params": 2', "row 2: not JSON; the last line is cut"),
        ("a.jsonl", "[1, 2]\n", "row 1: a JSON object"),
        ("a.jsonl", '{"params": [1, 2], "tokens": 1, "loss": 2}\n', "row 1, column 'params'"),
        ("a.json", '{"params": 1}', "a list of objects"),
        ("a.parquet", "nothing of the kind", "not a Parquet table"),
        ("a.xlsx", "x", "cannot tell the format"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=message) as told:
        read_runs(path)
    assert "\n" not in str(told.value)
    assert str(path) in str(told.value)


def test_other_bad_paths(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_runs(tmp_path / "none.csv")
    with pytest.raises(UserError, match="neither a sweep's folder"):
        read_runs(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"params,tokens,loss\n1,2,\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_runs(tmp_path / "latin.csv")


@pytest.mark.parametrize("column", ["params", "tokens", "flops"])
@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e6, 1e9])
def test_a_unit_off_by_a_million_is_refused(tmp_path, column, factor):
    rows = [row | {column: row[column] * factor} for row in ROWS]
    with pytest.raises(UserError, match="where training costs about 6"):
        read_runs(_csv(tmp_path / "runs.csv", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], None),
        (lambda rows: [r | {"loss": 100 * r["loss"]} for r in rows], "perplexity"),
        (lambda rows: [r | {"flops": r["flops"] * (1 + i % 3)} for i, r in enumerate(rows)], "6ND"),
        (
            lambda rows: [
                r | {"flops_convention": "matmul" if i % 2 else "six_nd"}
                for i, r in enumerate(rows)
            ],
            "mixes matmul, six_nd",
        ),
        (
            lambda rows: [
                {k: v for k, v in r.items() if k != "flops"} | {"tokens": r["tokens"] * 1e-9}
                for r in rows
            ],
            "are the units right",
        ),
        (lambda rows: [r | {"train_loss": 1.0, "lr": ""} for r in rows], None),
        (lambda rows: [r | {"held_out_in_training": 0.09} for r in rows], None),
        (lambda rows: [r | {"model_size": 2} for r in rows], "there is also 'model_size'"),
        (lambda rows: [r | {"budget": 2 * r["flops"]} for r in rows], "another convention"),
        (
            lambda rows: [
                r | {"held_out_in_training": 0.05 + 0.1 * (i < 3)} for i, r in enumerate(rows)
            ],
            "up to 15 % of the held-out passages occur word for word in the training text of 3",
        ),
        (lambda rows: [r | {"run_id": f"r{i // 2}"} for i, r in enumerate(rows)], "more than once"),
    ],
)
def test_doubts_are_carried_as_warnings(tmp_path, change, message):
    runs = read_runs(_csv(tmp_path / "runs.csv", change(ROWS)))
    if message is None:
        assert runs.loss.tolist() == [row["loss"] for row in ROWS]
        assert not any("held-out" in warning for warning in runs.warnings)
    else:
        assert any(message in warning for warning in runs.warnings)


def test_duplicated_rows_count_once(tmp_path):
    runs = read_runs(_csv(tmp_path / "runs.csv", [*ROWS, ROWS[2], ROWS[2]]))
    assert len(runs) == len(ROWS)
    assert [(a.status, a.reason) for a in runs.aside] == [("duplicate", "the same as row 4")] * 2


CELLS = st.one_of(
    st.text(max_size=8),
    st.floats(),
    st.sampled_from(["", " ", "nan", "-inf", "1e400", "0x10", "١٢", "True", "1e9 ", "=1+1", "7B"]),
)


@settings(max_examples=90, deadline=None)
@given(
    row=st.integers(0, len(ROWS) - 1), column=st.sampled_from(list(ROWS[0])), cell=CELLS,
)  # fmt: skip
def test_no_cell_ever_becomes_a_silent_number(tmp_path_factory, row, column, cell):
    """One line with file, row, column; or the row aside; or a positive number that was there."""
    rows = [dict(r) for r in ROWS]
    rows[row][column] = cell
    path = tmp_path_factory.mktemp("cells") / "runs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    try:
        runs = read_runs(path)
    except UserError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        assert f"row {row + 1}" in str(error) and column in str(error)
        return
    fitted = row + 1 in runs.row_R
    assert fitted or row + 1 in [aside.row for aside in runs.aside]
    if fitted:
        value = getattr(runs, column)[list(runs.row_R).index(row + 1)]
        assert value == float(cell) and 0 < value < np.inf


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200), suffix=st.sampled_from(["csv", "jsonl", "json", "tsv"]))
def test_no_text_ends_in_a_traceback(tmp_path_factory, text, suffix):
    path = tmp_path_factory.mktemp("text") / f"runs.{suffix}"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UserError) as told:
        read_runs(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"step": 3, "loss": "low"}', "\0", "[" * 9999])
def test_damaged_lines_of_a_curve_are_left_out_and_said(tmp_path, line):
    whole = read_runs(write_sweep(tmp_path))
    first, second = (tmp_path / "runs" / name / "metrics.jsonl" for name in whole.run_id_R[:2])
    for file, text in ((first, f"{line}\n" + first.read_text()), (second, f"{line}\n" * 3)):
        file.write_text(text)
    runs = read_runs(tmp_path)
    said = [note for note in runs.notes if note not in whole.notes]
    assert said == [
        "4 damaged lines in metrics.jsonl of 2 runs are left out of the curves "
        f"('{whole.run_id_R[0]}' first)"
    ]
    assert [curve.run_id for curve in runs.curves] == [
        curve.run_id for curve in whole.curves if curve.run_id != whole.run_id_R[1]
    ]
    assert np.array_equal(runs.curves[0].loss_S, whole.curves[0].loss_S)


def test_a_name_in_results_leads_to_no_file_outside_the_sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    name = read_runs(write_sweep(folder)).run_id_R[0]
    (folder / "runs" / name).rename(tmp_path / "elsewhere")
    results = folder / "results.csv"
    results.write_text(results.read_text().replace(f"{name},", "../../elsewhere,"))
    runs = read_runs(folder)
    assert runs.run_id_R[0] == "../../elsewhere"
    assert "../../elsewhere" not in [curve.run_id for curve in runs.curves]
    assert any(note.startswith("1 finished runs have no metrics") for note in runs.notes)


def test_every_column_of_a_law_can_be_named():
    for law in LAWS.values():
        read_runs(ROWS, {name: "loss" for name in law.columns if name not in ROWS[0]})


def test_derived_rows_lack_no_curves(tmp_path):
    write_sweep(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = [row | {"loss_after_b8": row["loss"]} for row in csv.DictReader(file)]
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plain, both = read_runs(tmp_path), read_runs(tmp_path, derived=True)
    assert len(both) == 2 * len(plain)
    assert not any("metrics.jsonl" in note for note in both.notes)
    assert len(both.curves) == len(plain.curves) == len(plain)
