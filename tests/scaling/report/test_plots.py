"""Figures: every one is drawn, is well-formed, says what the fits say, survives grey print."""

import dataclasses
import itertools
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fitting.intervals import least
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report.plots import FIGURES, style
from chinchilla_jax.scaling.report.plots.style import budget_colours, edge_labels, log_axis, panels
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.report.marks import named_points
from tests.scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    return analyse(read_runs(folder), Settings(bootstrap=200, budgets=(1e13, 3e13)))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_a_sweep(name, analysed):
    fits, arrays = analysed
    with style.styled():
        figure = FIGURES[name](fits, arrays, [law_named("hoffmann"), law_named("llama3")])
        text, image = style.svg(figure), style.png(figure)
    assert image.startswith(b"\x89PNG")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert all(ax.get_xlabel() for ax in figure.axes if ax.lines and ax.get_xticks().size)
    assert len(text) < 400_000 and len(image) < 400_000
    named = {kind: {*numbers} for kind, numbers in named_points(text)}
    if name in ("isoflop", "surface", "curves", "residuals", "misfit"):
        runs = [n for kind, numbers in named_points(text) if kind == "run" for n in numbers]
        panels_of = {"residuals": 2, "misfit": 2}.get(name, 1)
        assert sorted(runs) == sorted([*arrays.runs.index_R.tolist()] * panels_of)
    if name in ("isoflop", "frontier", "surface"):
        assert named["optimum"] == {*range(len(fits.isoflop.budgets))}


def _marks(ax, marker):
    points = [
        line.get_xydata()
        for line in ax.lines
        if line.get_marker() == marker and len(line.get_xdata())
    ]
    return np.concatenate(points)


def test_diamonds_stand_on_the_minima_and_stars_on_the_forecasts(analysed):
    fits, arrays = analysed
    with style.styled():
        profiles = FIGURES["isoflop"](fits, arrays, ())
        frontier = FIGURES["frontier"](fits, arrays, ())
    minima = {(row.params, row.loss) for row in fits.isoflop.budgets}
    assert set(map(tuple, _marks(profiles.axes[0], "D").tolist())) == minima
    for ax, name in zip(frontier.axes, ("params", "tokens", "loss"), strict=True):
        stars = {(row.flops, getattr(row, name)) for row in fits.forecast}
        assert set(map(tuple, _marks(ax, "*").tolist())) == stars
        low, high = ax.get_ylim()
        assert all(low < y < high for _, y in stars)


def test_refused_parts_are_left_out(tmp_path):
    """Twelve runs at one budget and 20 tokens per parameter: nothing can be fitted."""
    rows = [
        {"params": n, "tokens": 20 * n, "loss": 2 + 1e3 / n} for n in np.geomspace(1e6, 1e8, 12)
    ]
    path = tmp_path / "same.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    fits, arrays = analyse(read_runs(path), Settings(bootstrap=50))
    with style.styled():
        drawn = {name: draw(fits, arrays, ()) for name, draw in FIGURES.items()}
    reasons = {name: figure for name, figure in drawn.items() if isinstance(figure, str)}
    assert set(reasons) == set(FIGURES)
    assert "two sizes" in reasons["isoflop"] and "step" in reasons["curves"]


@pytest.mark.parametrize("missing", [False, True])
def test_a_cloud_takes_as_many_draws_as_an_interval(analysed, missing):
    """Fewer say nothing of a percentile, whether they were not drawn or have no surface."""
    fits, arrays = analysed
    found = arrays.surface_draws
    for count in (least() - 1, least()):
        known = np.arange(len(found)) < count
        columns = [np.where(known, x, np.nan) for x in found.surface.columns()]
        kept = slice(None) if missing else slice(count)
        few = dataclasses.replace(
            found,
            surface=Surface(*(x[kept] for x in columns)),
            objective_B=found.objective_B[kept],
            bound_BxP=found.bound_BxP[kept],
            noise=found.noise[kept],
        )
        with style.styled():
            drawn = FIGURES["bootstrap"](fits, dataclasses.replace(arrays, surface_draws=few), ())
        if count == least():
            assert not isinstance(drawn, str)
        else:
            assert ("fewer than 40" if missing else "39 draws") in drawn


def test_budget_colours_keep_their_order_in_grey():
    colours = np.array([to_rgb(c) for c in budget_colours([1e18, 1e21, 1e19, 1e20])])
    luminance = colours**2.2 @ [0.2126, 0.7152, 0.0722]
    assert list(np.argsort(-luminance)) == [0, 2, 3, 1]
    assert np.diff(np.sort(luminance)).min() > 0.03


@pytest.mark.parametrize(
    ("low", "high"), [(1e18, 1.1e18), (1e5, 3e5), (2e10, 9e11), (6e18, 1e22), (1e9, 1e26)]
)
def test_log_axes_have_a_few_round_ticks(low, high):
    _, (ax,) = panels(1)
    log_axis(ax.xaxis, low, high)
    ticks = ax.get_xticks()
    assert 2 <= len(ticks) <= 7
    assert np.all((ticks >= low * 0.99) & (ticks <= high * 1.01))


@pytest.mark.parametrize(("low", "high"), [(6e13, 1.6e14), (1e18, 1.1e18), (1.1e14, 3e14)])
def test_ticks_of_a_narrow_panel_neither_touch_nor_leave_the_figure(low, high):
    with style.styled():
        figure, axes = panels(3, width=10.2, gap=0.7)
        for ax in axes:
            log_axis(ax.xaxis, low, high)
        FigureCanvasAgg(figure).draw()  # places the texts
        right = figure.bbox.width
        for ax in axes:
            boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
            assert len(boxes) > 1 and all(box.x1 <= right for box in boxes)
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("name", ["isoflop", "frontier", "surface", "conventions", "holdout"])
def test_no_legend_leaves_its_figure(name, analysed):
    with style.styled():
        figure = FIGURES[name](*analysed, ())
        FigureCanvasAgg(figure).draw()
        legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
        boxes = [text.get_window_extent() for legend in filter(None, legends)
                 for text in (*legend.get_texts(), *legend.legend_handles)]  # fmt: skip
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_edge_labels_keep_order_and_distance():
    _, (ax,) = panels(1)
    ax.set_ylim(0, 1)
    edge_labels(ax, [(0.5, y, "black", str(y)) for y in (0.50, 0.51, 0.52, 0.90)])
    labels = [text for text in ax.texts if text.get_text()]
    places = [text.get_position()[1] for text in labels]
    height = ax.get_position().height * ax.get_figure().get_figheight() * 72
    assert [text.get_text() for text in labels] == ["0.5", "0.51", "0.52", "0.9"]
    assert np.all(np.diff(places) * height > 13.4)
