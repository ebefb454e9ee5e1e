"""The figure of a law of the layout of parameters, on runs whose best aspect is known."""

import csv

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.report import comparison, write
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.layout import drawers, layout
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.report.marks import assert_points_are_listed

TRUE = {"E": 1.5, "A": 12.0, "B": 1.2, "G": 300.0, "Z": 3000.0,
        "alpha": 0.35, "beta": 0.6, "gamma": 0.35, "zeta": 0.4}  # fmt: skip
LAW = LAWS["width_depth"]


def table(path, conditions=True):
    """Three sizes at three budgets in four shapes, twelve blocks of params to width^2 depth."""
    noise = np.random.default_rng(0)
    rows = []
    for budget in (1e15, 1e16, 1e17):
        for size in (1e6, 3e6, 1e7):
            for wider in (0.5, 1.0, 2.0, 4.0):
                depth = (size / 12 / (20 * wider) ** 2) ** (1 / 3)
                run = {
                    "width": 20 * wider * depth,
                    "depth": depth,
                    "params": size * (1 + wider / 400),
                }
                run["tokens"] = budget / 6 / run["params"]
                clean = float(LAW.predict(TRUE, **run))
                run["loss"] = clean * np.exp(1e-4 * noise.standard_normal())
                rows.append(run | ({"shape_width_multiplier": wider} if conditions else {}))
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def best(params):
    aspect = np.geomspace(1, 500, 4000)
    depth = (params / 12 / aspect**2) ** (1 / 3)
    loss = LAW.predict(TRUE, width=aspect * depth, depth=depth, params=params, tokens=1e9)
    return aspect[loss.argmin()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    path = table(tmp_path_factory.mktemp("shape") / "runs.csv")
    runs, by = read_runs(path), ["shape_width_multiplier"]
    return *compare(runs, Settings(bootstrap=20), [LAW], by), runs


def test_the_law_spans_its_techniques_conditions(compared):
    """Inside one of them width and depth follow from params."""
    found, *_ = compared
    (law,) = found.laws
    assert law.condition == {} and law.fit is not None and law.fit.runs == 36
    assert law.fit.parameters["alpha"] == pytest.approx(TRUE["alpha"], rel=0.2)
    assert len(found.conditions) == 4


def test_curves_have_their_minimum_where_the_truth_has_it_and_dots_lie_on_them(compared):
    found, _, runs = compared
    with style.styled():
        figure = layout(found.laws[0].fit, runs)
    (ax,) = figure.axes
    assert len(ax.lines) == 3
    for line, dots, size in zip(ax.lines, ax.collections, (1e6, 3e6, 1e7), strict=True):
        x, y = line.get_data()
        assert y.min() == 0
        assert x[np.argmin(y)] == pytest.approx(best(size), rel=0.15)
        points = dots.get_offsets()
        assert len(points) == 12
        np.testing.assert_allclose(points[:, 1], np.interp(points[:, 0], x, y), atol=0.06)


def test_the_page_shows_it_where_the_law_was_fitted(compared, tmp_path):
    found, arrays, runs = compared
    page = comparison.write(tmp_path / "by", found, arrays, runs).read_text()
    assert 'id="layout"' in page and (tmp_path / "by" / "layout.png").exists()
    assert_points_are_listed(tmp_path / "by", "layout")
    runs = read_runs(table(tmp_path / "plain.csv", conditions=False))
    for laws, shown in (([LAW], True), ([], False)):
        fits, each = analyse(runs, Settings(bootstrap=20), laws)
        page = write.write(tmp_path / str(shown), fits, each).read_text()
        assert ('id="layout"' in page) == shown


def test_without_such_a_law_there_is_none(compared):
    found, _, runs = compared
    assert drawers([], runs) == {} and set(drawers([found.laws[0].fit], runs)) == {"layout"}
