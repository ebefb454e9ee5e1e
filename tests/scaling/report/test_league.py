"""The report of a league table: its files, its sentences, what cannot be told, its figures."""

import csv
import dataclasses
import json
import math
import re
from html import escape

import pytest

from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.scaling.comparison import Comparison, rank
from chinchilla_jax.scaling.report import league as report
from chinchilla_jax.scaling.report.plots import league as plot
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.report.marks import assert_points_are_listed
from tests.scaling.ruler.laws import CASES, Case, panel_of


def limited(n, d):
    """Data limit: no size makes up for three times the tokens."""
    return 1.7 + 2000 * n**-0.5 + 1000 * d**-0.3


SMALLER = Case("four", limited, lambda n, d: limited(0.7 * n, d), "params", (1e8, 1.6e9), 20.0)
LONGER = Case("<b>longer", limited, lambda n, d: limited(n, 3 * d), "tokens", (1e8, 1.6e9), 20.0)


def rows():
    found = panel_of(SMALLER, seed=1)
    found += [row for row in panel_of(LONGER, seed=1) if row["technique"] != "dense"]
    for row in found:
        row["bytes_at_rest"] = row["params"] * (0.5 if row["technique"] == "four" else 4)
        row["params_nonzero"] = row["params"]
        if row["technique"] == "four":
            row |= {
                "distillation_quality": 0.97, "distillation_size": 0.6, "distillation_time": 0.61,
            }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    runs = read_runs(rows())
    found, arrays, ruler = rank(runs, Settings(bootstrap=200))
    folder = tmp_path_factory.mktemp("league")
    return found, ruler, report.write(folder, found, arrays, ruler, runs)


def test_files(made):
    found, _, path = made
    names = {file.name for file in path.parent.iterdir()}
    assert {"fits.json", "league.csv", "report.html", "forest.png", "points.svg"} <= names
    data = json.loads((path.parent / "fits.json").read_text())
    assert to_json(from_json(Comparison, data, "fits")) == data == to_json(found)
    table = list(csv.DictReader((path.parent / "league.csv").open()))
    assert len(table) == sum(len(one.multipliers) for one in found.league.standings)
    nonzero = next(r for r in table if (r["technique"], r["measure"]) == ("four", "nonzero"))
    assert 0.5 < float(nonzero["multiplier"]) < 0.9 and nonzero["reason"] == ""


def test_a_plain_sentence_for_each(made):
    said = {text.split(":")[0]: text for text in report.answer(made[0])}
    four = said["four"]
    assert four.startswith("four: a model of 1.")
    assert "times the non-zero parameters, with 0.1" in four and "reaches the dense loss" in four
    assert "does not pay" in four
    assert "it has 97.0 % of its teacher's quality" in four  # what its runs have measured
    assert "at 60 % of its size and 61 % of its time per token" in four
    assert "teacher" not in said["<b>longer"]
    assert "no dense model of up to" in said["<b>longer"]


def test_of_many_techniques_the_page_begins_with_a_few_and_tells_the_others_below(
    made, monkeypatch
):
    monkeypatch.setattr(report, "_LEADING", 1)
    head, _, below = report.html(made[0], {}).partition("<nav>")
    first, other = (escape(text.partition(";")[0]) for text in report.answer(made[0]))
    assert first in head and other not in head
    assert other in below and "The other techniques in words" in below


def test_the_loss_is_in_percent_and_not_in_logarithms(made):
    league = made[0].league
    five = dataclasses.replace(
        league.standings[0], change=math.log(1.5), change_interval=(math.log(1.2), math.log(1.8))
    )
    table = report.standings(dataclasses.replace(league, standings=(five,)))
    assert table.rows[0][2] == "+50.00 % \N{PLUS-MINUS SIGN}30.00"


def test_the_terminal_has_the_table_first_and_every_doubt(made):
    found, _, path = made
    text = report.terminal(found, path)
    assert text.startswith("technique ") and text.endswith(f"report: {path}")
    assert "over " in text.split("\n\n")[0]
    assert "warning: <b>longer, " in text and "below what the dense law reaches" in text
    assert "A dense parameter is kept in 4 bytes" in text


def test_the_page_escapes_and_has_two_figures_of_it(made):
    page = made[2].read_text()
    assert "&lt;b&gt;longer" in page and "<b>longer" not in page
    for name in ("forest", "points", "frontiers"):
        assert f'id="{name}"' in page
        assert_points_are_listed(made[2].parent, name)
    assert "League table" in page and "Trends" in page


def test_a_forest_draws_what_the_table_says(made):
    found, ruler, _ = made
    with style.styled():
        figure = plot.forest(found.league)
        points = plot.points(found.league, ruler)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        m.title for m in found.league.measures
    ]
    nonzero = figure.axes[0]
    one = next(s for s in found.league.standings if s.label == "four")
    m = one.multipliers[0]
    dots = [line.get_xdata()[0] for line in nonzero.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx(m.value)]
    bars = [list(line.get_xdata()) for line in nonzero.lines if line.get_linewidth() == 1.8]
    assert [pytest.approx(m.low), pytest.approx(m.high)] in bars
    assert any(line.get_marker() == ">" for line in nonzero.lines)  # of the one without bound
    assert len(points.axes) == 3


def test_an_open_end_and_one_that_is_not_known():
    def text(value, low, high):
        return report.written(plot.Multiplier("m", value, low, high, None, None, 0, ()))

    assert text(1.584, 1.52, 1.6) == "1.58 (1.52 to 1.6)"
    assert text(None, 1.9, None) == "over 1.9" and text(None, None, 0.2) == "under 0.2"
    assert text(3.2, 1.5, None) == "3.2 (from 1.5)" and text(3.2, None, None) == "3.2"
    assert text(None, None, None) == "-"


def test_a_refused_ruler_is_one_sentence():
    few = panel_of(CASES["kumar"], budgets=1, sizes=8)
    found, _, ruler = rank(read_runs(few), Settings(bootstrap=0))
    assert ruler is None
    text = report.terminal(found, "page")
    assert "No multiplier can be stated: the dense runs, technique=dense: The loss surface" in text
    assert re.match(r"technique +runs in cells +loss\n-+ .*\nkumar +12 in 6 +\+3\.\d+ % ", text)
    assert "one budget" in plot.forest(found.league)
    assert isinstance(plot.points(found.league, ruler), str)


def test_many_conditions_fit_into_a_figure(made):
    found, _, _ = made
    one = found.league.standings[0]
    many = [dataclasses.replace(one, label=f"technique number {i}") for i in range(40)]
    with style.styled():
        figure = plot.forest(dataclasses.replace(found.league, standings=tuple(many)))
    assert len(figure.axes[0].get_yticks()) == plot.SHOWN


def test_it_is_said_where_few_runs_tell(made):
    found, _, _ = made
    one = next(s for s in found.league.standings if s.label == "four")
    few = [dataclasses.replace(m, telling=2) for m in one.multipliers]
    league = dataclasses.replace(
        found.league, standings=(dataclasses.replace(one, multipliers=tuple(few)),)
    )
    said = report.doubts(dataclasses.replace(found, league=league))
    assert sum(f"2 of {one.runs} runs tell it" in text for text in said) == 2
    assert not any("runs tell it" in text for text in report.doubts(found) if "four" in text)
