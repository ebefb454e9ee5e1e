"""Tables that are no files: what a notebook holds already reads like the file of the same rows."""

import gzip
import json

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.readers import in_memory
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, BUDGET = grid([1e18, 1e19, 1e20], 6, 4.0)
COLUMNS = {
    "N": PARAMS,
    "tokens": TOKENS,
    "loss": TRUE.loss(PARAMS, TOKENS),
    "seed": np.arange(len(PARAMS)),
    "run": [f"run {i}" for i in range(len(PARAMS))],
}
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


def _pandas():
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def _polars():
    return pytest.importorskip("polars").DataFrame(COLUMNS)


@pytest.mark.parametrize(
    "make",
    [lambda: COLUMNS, lambda: ROWS, _pandas, _polars],
    ids=["columns", "rows", "pandas", "polars"],
)
def test_a_table_in_memory_reads_like_the_file_of_its_rows(make, tmp_path):
    file = tmp_path / "runs.jsonl"
    plain = [{k: v if isinstance(v, str) else float(v) for k, v in row.items()} for row in ROWS]
    file.write_text("\n".join(map(json.dumps, plain)))
    expected, found = read_runs(file), read_runs(make())
    for name in ("params", "tokens", "flops", "loss", "group_R", "budget_G"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert found.run_id_R == expected.run_id_R
    assert found.row_R.tolist() == list(range(1, len(ROWS) + 1))


def test_what_a_frame_calls_missing_is_an_empty_cell():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    frame["loss"] = frame["loss"].astype("Float64")
    frame.loc[4, "loss"] = pandas.NA
    frame.loc[5, "loss"] = float("nan")
    found = read_runs(frame)
    assert [(aside.row, aside.status) for aside in found.aside] == [(5, "missing"), (6, "missing")]


def test_cells_of_numpy_become_those_of_python():
    raw = in_memory(
        {"a": np.array([1, 2]), "b": [np.float32(0.5), np.str_("x")], "c": [b"x", None]}
    )
    assert raw.columns == {"a": [1, 2], "b": [0.5, "x"], "c": ["b'x'", None]}
    assert [type(cell) for cell in raw.columns["a"]] == [int, int]


def test_texts_of_parquet_in_bytes_are_texts(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [b"a", "é".encode(), b"\xff"] * 6
    columns = {name: COLUMNS[name] for name in ("N", "tokens", "loss")}
    parquet.write_table(pyarrow.table(columns | {"optimizer": names}), tmp_path / "t.parquet")
    runs = read_runs(tmp_path / "t.parquet")
    assert set(runs.labels["optimizer"]) == {"a", "é", "b'\\xff'"}


@pytest.mark.parametrize(
    "table,says",
    [
        (3, "not a int"),
        ([1, 2], "not a list"),
        ({}, "no rows"),
        ([], "no rows"),
        ({"params": [1.0, 2.0], "loss": [1.0]}, "column 'loss' has 1 rows and 'params' 2"),
        ({"params": [1e6], "tokens": [1e8]}, "no column for loss"),
    ],
)
def test_what_is_no_table_is_one_line(table, says):
    with pytest.raises(UserError, match=says) as error:
        read_runs(table)
    assert "\n" not in str(error.value)


TWO = [{"N": 1e8, "D": 2e9, "loss": 3.1}, {"N": 2e8, "D": 1e9, "loss": 3.2}]


@pytest.mark.parametrize(
    "data",
    [
        {"results": {"small": TWO[0], "large": TWO[1]}},
        {"version": 1, "runs": {"small": TWO[0], "large": TWO[1]}},
        {"small": TWO[0], "large": TWO[1]},
    ],
)
def test_an_object_of_runs_by_name_lies_where_it_lies(data, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(data))
    runs = read_runs(tmp_path / "x.json")
    assert runs.run_id_R == ("small", "large")
    assert runs.params.tolist() == [1e8, 2e8]


def test_what_excel_and_pandas_put_around_a_table(tmp_path):
    text = "N;D;loss\n1e8;2e9;3.1\n2e8;1e9;bad\n"
    (tmp_path / "x.csv").write_text(f"sep=;\n{text.replace('bad', '3.2')}")
    assert read_runs(tmp_path / "x.csv").loss.tolist() == [3.1, 3.2]
    (tmp_path / "bad.csv").write_text(f"sep=;\n{text}")
    with pytest.raises(UserError, match=r"bad\.csv, row 4, column 'loss': 'bad' is not a number"):
        read_runs(tmp_path / "bad.csv")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    assert read_runs(tmp_path / "x.csv.gz").loss.tolist() == [3.1, 3.2]
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "x.csv.gz").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cut\.csv\.gz: cannot be decompressed"):
        read_runs(tmp_path / "cut.csv.gz")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("N;D;loss\n1e8;2e9;3,1\n2,0e8;1e9;3,2\n", "commas are read as decimal points: 3,1 as 3.1"),
        ("N\tD\tloss\tx\n1e8\t2e9\t3,1\t1,234\n2,0e8\t1e9\t3,2\t2\n",
         "commas are read as decimal points: 3,1 as 3.1, 1,234 as 1.234"),
        ("N;D;loss\n100,000,000;2e9;3.1\n200,000,000;1e9;3.2\n", "'100,000,000' and the like"),
        ("# of May\n# by me\nN,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n", ""),
        ("# of May\n#N,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n", ""),
        ("N,D,loss\n1e8,2e9,3.1\nN,D,loss\n2e8,1e9,3.2\n", "left out as repeats of the header: 1"),
        ("N,D,loss\n100M,2B,3.1\n.2 B,1b,3.2\n", "'100M' and the like in column 'N'"),
        ('N,D,loss\n"100,000,000",2e9,3.1\n"200,000,000",1e9,3.2\n', "'100,000,000' and the like"),
        ("N,D,loss\n10^8,2B tokens,3.1\n2 \u00d7 10^8,1e9 tokens,3.2\n", "'10^8' and the like"),
        ("N|D|loss\n1e8|2e9|3.1\n2e8|1e9|3.2\n", ""),
        ("N  D loss\n1e8 2e9  3.1\n2e8 1e9 3.2\n", ""),
        ("| N | D | loss |\n|---|:-:|---|\n| 1e8 | 2e9 | 3.1 |\n| 2e8 | 1e9 | 3.2 |\n", ""),
        ("# of May\n\nOf May,,\n,,\nN,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n",
         "left out above the header: 'Of May'"),
        ("My runs # of May\nN,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n",
         "left out above the header: 'My runs # of May'"),
        ("Runs, # of May\nby me\nN,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n",
         "left out above the header: 'Runs, # of May'"),
        ("Runs of May,by me,draft\nN,D,loss\n1e8,2e9,3.1\n2e8,1e9,3.2\n",
         "left out above the header: 'Runs of May,by me,draft'"),
        ("Here they are:\n\n| N | D | loss |\n|---|---|---|\n| 1e8 | 2e9 | 3.1 |\n"
         "| 2e8 | 1e9 | 3.2 |\n\nMay, by me\n", "left out as no rows: 1 line ('May, by me')"),
        ("  N  |  D  | loss \n-----+-----+------\n 1e8 | 2e9 |  3.1\n 2e8 | 1e9 |  3.2\n(2 rows)\n",
         ""),
        ("N,D,loss\n1e8,2e9,3.1\n# again\n2e8,1e9,3.2\n# end\n",
         "left out as no rows: 2 lines ('# again')"),
        ("# lr 1e-3, wd .1, seed 2\nN,D,loss_1\n1e8,2e9,3.1\n2e8,1e9,3.2\n", ""),
        ("run,N,D,loss\n#1,1e8,2e9,3.1\n#2,2e8,1e9,3.2\n", ""),
        ('"N",D,loss,"why, or\nhow"\n1e8,2e9,3.1,"# a,\n---\nb"\n2e8,1e9,3.2,c\n', ""),
    ],
    ids=["decimal commas", "between tabs", "no decimal commas", "remarks", "a header behind #",
         "files one after another", "suffixes", "thousands", "powers", "bars", "blanks",
         "Markdown", "a title", "words above", "commas above", "a title as wide",
         "text around Markdown", "psql", "remarks between rows", "numbers in a remark",
         "names that begin with #", "lines in quotes"],
)  # fmt: skip
def test_how_people_write_tables(text, note, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    columns = {"loss": "loss_1"} if "loss_1" in text else {}
    runs = read_runs(tmp_path / "x.csv", columns)
    assert runs.params.tolist() == [1e8, 2e8] and runs.tokens.tolist() == [2e9, 1e9]
    assert runs.loss.tolist() == [3.1, 3.2]
    assert not note or any(said.startswith(note) for said in runs.notes)
    (tmp_path / "x.tab").write_text(text, encoding="utf-16")
    assert read_runs(tmp_path / "x.tab", columns).loss.tolist() == [3.1, 3.2]
    if "# of May" in text:
        bad = text.replace("2e8", "bad")
        (tmp_path / "x.csv").write_text(bad)
        row = 1 + bad.split("\n").index(next(line for line in bad.split("\n") if "bad" in line))
        with pytest.raises(UserError, match=f"row {row}, column 'N': 'bad'"):
            read_runs(tmp_path / "x.csv")


def test_commas_that_could_be_either_group_thousands_of_counts(tmp_path):
    (tmp_path / "x.csv").write_text("N;D;loss\n125,000;250,000;3\n250,000;125,000;4\n")
    runs = read_runs(tmp_path / "x.csv")
    assert runs.params.tolist() == [125000, 250000] and runs.tokens.tolist() == [250000, 125000]
    assert "'125,000' and the like in column 'N' are read as 1.25e+05" in runs.notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("N;D;loss\n1e8;2e9;3,1\n2e8;1e9;3.2\n", r"'3,1' is not a number; write 3\.1 for 3,1"),
        ("N;D;loss\n1e8;2e9;3,123\n2e8;1e9;2,987\n",
         r"'3,123' is not a number; write 3\.123, or 3123 if that is meant"),
        ("N\tD\tloss\n1e8\t2e9\t3,123\n2e8\t1e9\t2,987\n", r"'3,123' is not a number; write 3\."),
        ("N,D,loss\nparams,tokens,val_loss\n1e8,2e9,3.1\n", "row 2, column 'N': 'params' is not"),
        ("N,D,loss\n1e8,2e9,3.1\n7B,1e9,3.2\n", "'7B' is not a number; write 7e9 for 7B"),
        ("Step,a - eval/loss,b - eval/loss\n1,3.1,3.2\n", "a chart of W&B has a column per run"),
        ("run,tag,step,value,wall_time\na,loss,1,3.1,0\n", "curves of TensorBoard say no sizes"),
        ("N,D,flops,loss\n1e8,2e9,0.0139,3.1\n", r"s-days\? --columns='flops=8\.64e\+19\*flops'"),
        ("cfg.N,cfg.D,eval.nll\n1e8,2e9,3.1\n", r"--columns=params=cfg\.N,tokens=cfg\.D\?$"),
        ("N,loss_1e18,loss_3e+18,loss_1e19\n1e8,3.1,3,2.9\n", "'loss_1e19' hold a budget each"),
        ("N,D,metric,value\n1e8,2e9,acc,3.1\n", r"--columns=loss=value with --where=metric="),
        ("log_params,log_tokens,loss\n8,9,3.1\n", r"name them with --columns=params=N"),
        ("N,tokens_per_param,loss\n1e8,20,3.1\n", r"'tokens=N\*tokens_per_param'\?$"),
        ("N,steps,bsz,seq_len,loss\n1e8,20,3,4,3.1\n", r"'tokens=steps\*bsz\*seq_len'\?$"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_for_sure_is_told(text, words, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_runs(tmp_path / "x.csv")


def test_words_for_a_loss_that_there_is_none_of_cost_their_rows(tmp_path):
    words = {"diverged": "diverged", "OOM": "failed", "?": "missing", "#N/A": "missing"}
    rows = [f"{1 + i}e8,2e9,{loss}" for i, loss in enumerate([3.1, 3.2, *words])]
    (tmp_path / "x.csv").write_text("\n".join(["N,D,loss", *rows]))
    runs = read_runs(tmp_path / "x.csv")
    assert runs.loss.tolist() == [3.1, 3.2]
    assert [aside.status for aside in runs.aside] == list(words.values())
    (tmp_path / "x.jsonl").write_text('{"N": 1e8, "D": 2e9, "loss": [3.1]}\n')
    assert read_runs(tmp_path / "x.jsonl").loss.tolist() == [3.1]


def test_a_forward_pass_for_a_cost_is_told():
    rows = [row | {"flops": 2 * row["N"] * row["tokens"]} for row in ROWS]
    assert any("a forward pass costs that" in doubt for doubt in read_runs(rows).doubts)
