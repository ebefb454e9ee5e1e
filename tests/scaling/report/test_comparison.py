"""The report of a comparison: a line that chooses, every condition with numbers or a reason."""

import dataclasses
import re

import numpy as np
import pytest

from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report import comparison as report
from chinchilla_jax.scaling.report.plots import comparison as plot
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import three_optimizers
from tests.scaling.report.test_write import _parsed

ROWS = three_optimizers(sizes=5)
FEW = [row | {"optimizer": "<b>lion"} for row in ROWS[:3]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    found, arrays = compare(
        read_runs([*ROWS, *FEW]), Settings(bootstrap=100, budgets=(1e21, 1e22), holdout_above=1e19)
    )
    return (
        found,
        arrays,
        report.write(folder, found, arrays, read_runs(ROWS), [law_named("hoffmann")]),
    )


def test_files(made):
    _, _, path = made
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"fits.json", "frontiers.png", "frontiers.svg", "report.html"}


def test_the_terminal_names_the_choice_first_and_every_condition(made):
    found, _, path = made
    text = report.terminal(found, path)
    lines = text.splitlines()
    assert lines[0].startswith("column optimizer (<b>lion, adamw, muon, sgd) tells 4 conditions")
    assert lines[-1] == f"report: {path}"
    assert any(line.startswith("columns: fitted") for line in lines)
    for name in ("adamw", "muon", "sgd"):
        for budget in ("1e21", "1e22"):
            assert f"optimizer={name}: for {budget} FLOPs train" in text
        numbers = next(line for line in lines if re.match(rf"optimizer={name} +\d+ ", line))
        assert numbers.count(" to ") == 5  # a twice, E, alpha, beta
    assert "not fitted: optimizer=<b>lion (3 runs): The loss surface" in text


def test_what_is_said_of_all_is_said_once(made):
    found, _, _ = made
    said = report.doubts(found)
    assert len(said) == len(set(said))
    assert said[0] == found.choice


def test_losses_of_two_corpora_are_not_said_to_compare(made):
    assert not any("losses may not" in text for text in report.doubts(made[0]))
    rows = [{"corpus" if k == "optimizer" else k: v for k, v in row.items()} for row in ROWS]
    found, _ = compare(read_runs(rows), Settings(bootstrap=0))
    assert any("losses under different corpus" in text for text in report.doubts(found))


def test_the_page_has_it_all_as_text(made):
    found, _, path = made
    page = path.read_text()
    assert "&lt;b&gt;lion" in page and "<b>lion" not in page
    text = re.sub(r"\s+", " ", "".join(_parsed(path).text))
    for words in (
        "Conditions without a fit", "The forecasts", "Hoffmann", "Columns", "taken for",
        report.answer(found)[0],
    ):  # fmt: skip
        assert words in text, words
    assert page.count("<figure") == 1
    assert "checked" in text


def test_nothing_to_fit_is_said_with_what_would_help():
    found, arrays = compare(read_runs([*ROWS[:3], *FEW]), Settings(bootstrap=0))
    assert arrays == () and "enough runs" in plot.frontiers(found, arrays)
    text = report.terminal(found, "page")
    assert "None of 2 conditions has enough runs" in text
    assert "--kinds=optimizer=outcome" in text


def test_a_figure_of_many_conditions_shows_those_with_the_most_runs(made, monkeypatch):
    found, arrays, _ = made
    conditions = [
        dataclasses.replace(one, runs=one.runs + (one.condition["optimizer"] != "adamw"))
        for one in found.conditions
    ]
    monkeypatch.setattr(plot, "SHOWN", 2)
    with style.styled():
        figure = plot.frontiers(dataclasses.replace(found, conditions=tuple(conditions)), arrays)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["optimizer=muon", "optimizer=sgd", "and 1 more with fewer runs, not drawn"]


def test_a_line_goes_where_the_law_says(made):
    found, arrays, _ = made
    with style.styled():
        figure = plot.frontiers(found, arrays)
    fitted = [one for one in found.conditions if one.fits]
    for index, (one, each) in enumerate(zip(fitted, arrays, strict=True)):
        lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 32]
        x, y = lines[index].get_data()
        expected = each.sources[0].best(x).params[-1]
        assert y[-1] == pytest.approx(expected), one.title
        assert x[0] == pytest.approx(each.runs.flops.min())
    assert np.isfinite(figure.axes[2].get_ylim()).all()
