"""The report: its files, its first lines, and that no string of a table becomes markup."""

import re
from html.parser import HTMLParser

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import read
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report import forecasts, listing, summary
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.report.page import Section, page
from chinchilla_jax.scaling.report.table import Table
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid
from tests.scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    fits, arrays = analyse(read_runs(folder), Settings(bootstrap=100, budgets=(1e13,)))
    path = report.write(folder / "report", fits, arrays, [law_named("hoffmann")])
    return fits, path


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.references, self.open, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.references += [attrs[k] for k in ("src", "href", "xlink:href") if k in attrs]
        self.open.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def _parsed(path):
    tags = _Tags()
    tags.feed(path.read_text().split("<body>")[1])
    return tags


def test_files(made):
    fits, path = made
    names = {file.name for file in path.parent.iterdir()}
    figures = {"isoflop", "frontier", "surface", "curves", "residuals", "bootstrap", "conventions"}
    wanted = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    assert wanted | {"fits.json", "report.html"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    assert to_json(read(path.parent / "fits.json")) == to_json(fits)  # unrounded


def test_the_page_stands_alone(made):
    tags = _parsed(made[1])
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.open.count("script") == 1  # ours
    for reference in tags.references:
        assert reference.startswith(("#", "data:image/png")), reference
        if reference.startswith("#"):
            assert reference[1:] in tags.ids
    assert not re.search(
        r"@import|url\((?!#)|<link (?!rel=.icon. href=.data:)", made[1].read_text()
    )


def test_the_answer_comes_first_and_every_run_is_listed(made):
    fits, path = made
    text = re.sub(r"\s+", " ", "".join(_parsed(path).text))
    first = summary.answer(fits)[0]
    assert first.startswith("For 1e13 FLOPs train")
    assert first in text[: len(first) + 300]
    assert "1 missing" in text and "1 diverged" in text
    with (path.parents[1] / "results.csv").open() as rows:
        for row in list(rows)[1:]:
            assert row.split(",")[0] in text
    for warning in fits.warnings:
        assert re.sub(r"\s+", " ", warning) in text


def test_strings_of_a_table_are_text(made):
    """The diverged run's reason holds markup."""
    page_text = made[1].read_text()
    assert "loss &lt;b&gt;nan&lt;/b&gt; at step 212" in page_text
    assert "<b>nan" not in page_text


def test_hostile_names_stay_text():
    evil = "<script>alert(1)</script>$\\frac{&'\""
    table = Table(evil, (evil, "n"), [(evil, "1")], evil, {0: '"><img src=x>'})
    made = page(evil, evil, [evil], [Section(evil, [evil], [table], (), [evil])])
    tags = _Tags()
    tags.feed(made)
    assert "img" not in tags.open and tags.open.count("script") == 1
    assert "alert(1)" not in made.split("<script>")[1]


def test_a_refused_analysis_says_so(tmp_path):
    rows = ["params,tokens,loss"]
    rows += [f"{n},{20 * n},{2 + 1e3 / n}" for n in (1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6)]
    (tmp_path / "same.csv").write_text("\n".join(rows))
    fits, arrays = analyse(read_runs(tmp_path / "same.csv"), Settings(bootstrap=20))
    path = report.write(tmp_path / "report", fits, arrays)
    text = report.terminal(fits, path)
    assert "No compute-optimal size can be stated" in text
    assert "warning:" in text and str(path) in text
    assert "No compute-optimal size" in path.read_text()


def test_terminal(made):
    fits, path = made
    text = report.terminal(fits, path)
    assert text.splitlines()[0].startswith("FLOPs C")
    assert text.splitlines()[-1] == f"report: {path}"
    for budget in ("1e11", "3e11", "1e12", "3e12", "1e13"):
        assert re.search(rf"^\s*{budget} ", text, re.MULTILINE)
    assert "approach 2" in text and "approach 3" in text and "approach 1" in text


def test_a_checked_forecast_is_on_the_page_and_in_the_terminal(tmp_path):
    folder = write_sweep(tmp_path)
    fits, arrays = analyse(read_runs(folder), Settings(bootstrap=60, holdout_above=1e12))
    path = report.write(tmp_path / "report", fits, arrays, figures=False)
    shown = forecasts.check(fits)
    assert len(shown.rows) == len(fits.forecast_check) >= 3
    for text in (report.terminal(fits, path), "".join(_parsed(path).text)):
        assert "surface, preferred" in text or "L(C) through the minima, preferred" in text
        for row in shown.rows:
            assert all(cell in text for cell in row)
    for row, cells in zip(fits.forecast_check, shown.rows, strict=True):
        words = {True: " inside", False: " outside"}
        for name, cell in (("loss", cells[4]), ("params", cells[7]), ("tokens", cells[9])):
            if row.interval is not None and row.interval[name] is not None:
                assert cell.endswith(words[row.inside_interval[name]])


def test_a_folder_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    fits, _ = made
    with pytest.raises(UserError, match="cannot be written"):
        report.write(tmp_path / "file" / "report", fits, None, figures=False)


def test_what_every_column_was_taken_for_is_told(made):
    fits, path = made
    text = report.terminal(fits, path)
    line = next(line for line in text.splitlines() if line.startswith("columns: "))
    assert "fitted" in line and "params_total" in line and "--kinds=" in line
    taken = {column.name: column.kind for column in fits.table.columns}
    with (path.parents[1] / "results.csv").open() as rows:
        assert set(taken) == set(next(rows).strip().split(","))
    assert taken["params_total"] == "fitted" and taken["steps"] == "count"
    table = listing.columns(fits.table.columns)
    page_text = re.sub(r"\s+", " ", "".join(_parsed(path).text))
    assert len(table.rows) == len(taken) and "taken for" in page_text
    assert all(name in page_text for name in taken)


def test_runs_at_worse_settings_are_shown_and_say_what_did_better(tmp_path):
    params, tokens, budget = grid([1e17, 1e18, 1e19], 5, 4.0)
    rows = [
        {"run_id": f"{n:.4g}-{lr}", "params": n, "tokens": d, "flops": c, "lr": lr,
         "loss": TRUE.loss(n, d) * (1.0 if lr == 2e-3 else 1.01)}
        for n, d, c in zip(params, tokens, budget, strict=True)
        for lr in (1e-3, 2e-3)
    ]  # fmt: skip
    fits, arrays = analyse(read_runs(rows), Settings(bootstrap=0))
    listed = listing.runs(arrays.tried, arrays.runs, arrays.residual_R)
    assert len(listed.rows) == len(rows)
    for i, row in enumerate(listed.rows):
        lost = row[0].endswith("-0.001")
        assert (row[-1] == "lr=0.002 did better in this cell") == lost
        assert (listed.marks.get(i) == "aside") == lost and (row[-2] == "-") == lost
    text = report.html(fits, arrays, {})
    assert "15 at worse settings" in text


def test_energy_is_told_by_kind_where_a_table_has_it(tmp_path, made):
    params, tokens, budget = grid([1e17, 1e18, 1e19], 5, 4.0)
    rows = [
        {"params": n, "tokens": d, "flops": c, "loss": TRUE.loss(n, d), "joules_cpu": 0.0,
         "joules_gpu": 3.6e6 if i < 4 else None, "joules_estimated": None if i < 4 else 7.2e6,
         "energy_source": "measured" if i < 4 else "estimated",
         "grams_co2e_per_kwh": 250.0 if i != 0 else None}
        for i, (n, d, c) in enumerate(zip(params, tokens, budget, strict=True))
    ]  # fmt: skip
    runs = read_runs(rows)
    assert not runs.names("condition")  # how it was known tells no runs apart
    assert [tuple(row) for row in listing.energy(runs).rows] == [
        ("accelerators, measured", "4 of 15", "4", "0.75 (3 runs)"),
        ("processors, measured", "15 of 15", "0", "0 (14 runs)"),
        ("accelerators, estimated from stated power", "11 of 15", "22", "5.5"),
    ]
    fits, arrays = analyse(runs, Settings(bootstrap=0))
    assert 'id="energy"' in report.html(fits, arrays, {})
    assert "energy" not in _parsed(made[1]).ids  # where nothing is known, nothing is told


@pytest.mark.parametrize("minima", METHODS)
def test_each_way_of_finding_minima_has_its_own_row_of_exponents(tmp_path, minima):
    sweep = read_runs(write_sweep(tmp_path))
    fits, _ = analyse(sweep, Settings(bootstrap=0, minima=minima))
    rows = {row[0]: row[1] for row in summary.exponents(fits).rows}
    assert len([name for name in rows if "iso-FLOP" in name]) == 1
    for method in METHODS:
        (a,) = (a for name, a in rows.items() if summary.TITLES[method] in name)
        assert a == summary.exponent(fits.isoflop.by(method).a)


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    """Runs that are refused afterwards leave no empty folders."""
    report.writable(tmp_path / "a" / "b" / "report")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("")
    report.writable(tmp_path / "a" / "report")
    report.writable(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]
