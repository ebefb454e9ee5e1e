"""The page as a browser shows it: points say their run, what is switched off goes, tables sort."""

import functools

import numpy as np
import pytest

from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.report import comparison, write
from chinchilla_jax.scaling.report.drawing import draw
from chinchilla_jax.scaling.report.page import Section, page
from chinchilla_jax.scaling.report.plots import FIGURES
from chinchilla_jax.scaling.report.table import Table
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.chromium import Chromium
from tests.scaling.conditions import three_optimizers
from tests.scaling.known import TRUE, grid

EVIL = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
CENTRES = """((marks) => [...marks].map((mark) => {
  const box = mark.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}))"""

FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"


def _rows():
    params, tokens, budget = grid([1e17, 1e18, 1e19], 5, 4.0, shift=0.3)
    return [
        {"run_id": EVIL if i == 7 else f"run {i}", "params": n, "tokens": d, "flops": c,
         "loss": TRUE.loss(n, d), "steps": 100 + i, "learning_rate": 3e-3, "seed": i % 2}
        for i, (n, d, c) in enumerate(zip(params, tokens, budget, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of one law with its three figures of runs, and its rows."""
    folder = tmp_path_factory.mktemp("page")
    rows = _rows()
    fits, arrays = analyse(read_runs(rows), Settings(bootstrap=0, budgets=(1e20,)))
    names = ("isoflop", "frontier", "residuals")
    drawers = {name: functools.partial(FIGURES[name], fits, arrays, ()) for name in names}
    path = folder / "report.html"
    path.write_text(write.html(fits, arrays, draw(folder, drawers)))
    return path, rows


@pytest.fixture
def opened(browser, made):
    browser.emulate()
    browser.open(made[0])
    yield browser
    assert not browser.errors
    addresses = {url for url in browser.requests if not url.startswith("data:")}
    assert addresses == {made[0].as_uri()}
    browser.requests.clear()


def _centres(browser, selector):
    """Where the marks of a selector are in the window, the first of them in its middle."""
    marks = f"document.querySelectorAll({selector!r})"
    browser.run(f"{marks}[0].scrollIntoView({{block: 'center'}})")
    browser.run(FRAME)  # the page hears that it was scrolled
    return browser.run(f"{CENTRES}({marks})")


def _card(browser):
    """What the card says, head -> text; nothing where none is shown."""
    return browser.run(
        "Object.fromEntries([...document.querySelectorAll('.card:not([hidden]) dt')]"
        ".map((dt) => [dt.textContent, dt.nextSibling.textContent]))"
    )


def _shown(browser, selector):
    return browser.run(
        f"[...document.querySelectorAll({selector!r})]"
        ".filter((e) => e.getClientRects().length).map((e) => e.textContent)"
    )


def test_every_point_of_a_figure_says_which_run_it_is(opened, made):
    _, rows = made
    by_place = sorted(rows, key=lambda row: (row["flops"], row["params"]))
    places = _centres(opened, "#isoflop g[data-points^='run '] use")
    assert len(places) == len(rows)  # in the order of budgets and sizes
    for place, row in zip(places, by_place, strict=True):
        opened.mouse("mouseMoved", *place)
        said = _card(opened)
        assert said["run"] == row["run_id"]  # also the one that is a script: it stays text
        assert said["loss"] == f"{row['loss']:.4f}" and said["steps"] == str(row["steps"])
        assert said["seed"] == str(row["seed"]) and said["learning rate"] == "0.003"
        assert {"N", "D", "FLOPs", "budget"} <= set(said)
        assert opened.run("document.querySelectorAll('#isoflop circle').length") == 1
    assert opened.run("document.title").startswith("Compute-optimal")
    opened.mouse("mouseMoved", 2, 2)
    assert _card(opened) == {}


def test_a_click_goes_to_the_row_and_a_minimum_to_its_own(opened):
    place = _centres(opened, "#residuals g[data-points^='run '] use")[2]
    opened.click(*place)
    key = opened.run("document.activeElement.id")
    assert opened.run("location.hash") == f"#{key}"
    assert opened.run("document.activeElement.cells[0].textContent") == "run 2"
    top = opened.run("document.activeElement.getBoundingClientRect().top")
    assert 0 < top < 900
    place = _centres(opened, "#isoflop g[data-points^='optimum '] use")[1]
    opened.click(*place)
    assert opened.run("document.activeElement.id") == "optimum-1"
    assert opened.run("document.activeElement.cells[0].textContent") == "1e18"


def test_a_figure_is_walked_by_the_keyboard(opened):
    opened.run("document.querySelector('#residuals svg').focus()")
    first = []
    for _ in range(3):
        opened.key("ArrowRight")
        first.append(_card(opened)["run"])
    assert len(set(first)) == 3
    opened.key("ArrowLeft")
    assert _card(opened)["run"] == first[1]
    opened.key("Escape")
    assert _card(opened) == {}
    opened.key("ArrowRight")
    said = _card(opened)["run"]
    opened.key("Enter")
    assert opened.run("document.activeElement.cells[0].textContent") == said


def test_a_finger_shows_first_and_goes_then(opened):
    opened.emulate(width=390, height=800)
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    place = dict(zip("xy", _centres(opened, "#isoflop g[data-points^='run '] use")[1], strict=True))
    for times in (1, 2):
        for kind, points in (("touchStart", [place]), ("touchEnd", [])):
            opened.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        opened.run(FRAME)
        assert (opened.run("location.hash") != "") == (times == 2)
        assert (_card(opened) == {}) == (times == 2)


def test_a_budget_that_is_switched_off_is_gone_from_figures_and_tables(opened):
    before = {name: len(_shown(opened, f"{name} g[data-points] use"))
              for name in ("#isoflop", "#residuals")}  # fmt: skip
    labels = len(_shown(opened, "#isoflop g[data-lines]"))
    opened.run("document.querySelector('.switches').open = true; scrollTo(0, 0)")
    (place,) = _centres(opened, ".switches button[data-name=budget]:nth-of-type(4)")
    assert _shown(opened, ".switches button")[:4] == ["all", "none", "1e17", "1e18"]
    opened.click(*place)
    assert opened.run("document.querySelector('.switches summary').textContent").endswith(
        "10 of 15 runs are shown"
    )
    assert len(_shown(opened, "#isoflop g[data-points] use")) == before["#isoflop"] - 5 - 1
    assert len(_shown(opened, "#residuals g[data-points] use")) == before["#residuals"] - 2 * 5
    assert len(_shown(opened, "#isoflop g[data-lines]")) == labels - 2  # the curve, its label
    assert len(_shown(opened, "tr[id^=run-]")) == 10
    opened.click(*_centres(opened, ".switches button:nth-of-type(1)")[0])
    assert len(_shown(opened, "#isoflop g[data-points] use")) == before["#isoflop"]


def test_a_run_of_no_budget_is_shown_and_counted(browser, tmp_path):
    rows = [("a", "1e17"), ("b", "1e18"), ("c", "")]
    keys = ["run 0", "run 1", "run 2"]
    table = Table("runs", ("run", "budget"), rows, "", {}, keys, {"budget": "budget"})
    (tmp_path / "page.html").write_text(page("t", "m", ["a"], [Section("s", (), [table])]))
    browser.open(tmp_path / "page.html")
    summary = "document.querySelector('.switches summary').textContent"
    assert browser.run(summary) == "Show budgets: all are shown"
    browser.run("document.querySelector('.switches button[data-name=budget]').click()")
    assert browser.run(summary) == "Show budgets: 2 of 3 runs are shown"
    assert _shown(browser, "tr[id^=run-] td:first-child") == ["b", "c"]


def test_tables_sort_by_what_numbers_are(browser, tmp_path):
    cells = ["1.2M", "900k", "-", "3B", "\N{MINUS SIGN}5"]
    table = Table("sizes", ("name", "N"), [(f"run {i}", c) for i, c in enumerate(cells)])
    (tmp_path / "page.html").write_text(page("t", "m", ["a"], [Section("s", (), [table])]))
    browser.open(tmp_path / "page.html")
    column = "[...document.querySelectorAll('td:nth-child(2)')].map((td) => td.textContent)"
    order = ["\N{MINUS SIGN}5", "900k", "1.2M", "3B"]
    for sort, wanted in (
        ("ascending", [*order, "-"]), ("descending", [*order[::-1], "-"]), (None, cells),
    ):  # fmt: skip
        browser.run("document.querySelectorAll('th button')[1].focus()")
        browser.key("Enter")
        assert browser.run(column) == wanted
        assert browser.run("document.querySelectorAll('th')[1].ariaSort") == sort
    assert not browser.errors


@pytest.mark.slow
def test_five_hundred_runs_with_curves_are_under_two_megabytes(tmp_path):
    rng, share = np.random.default_rng(0), np.geomspace(0.002, 1.0, 300)
    rows = []
    for budget in np.geomspace(1e16, 1e19, 10):
        params = np.geomspace(0.2, 5.0, 50) * 0.1 * (budget / 6) ** 0.5
        for i, n in enumerate(params):
            loss = TRUE.loss(n, share * budget / (6 * n)) * np.exp(0.003 * rng.standard_normal(300))
            rows += [
                {"run_id": f"{budget:.3g}-a-run-with-a-name-{i}", "step": k + 1, "params": n,
                 "tokens": s * budget / (6 * n), "flops": s * budget, "loss": loss[k]}
                for k, s in enumerate(share)
            ]  # fmt: skip
    fits, arrays = analyse(read_runs(rows), Settings(bootstrap=400))
    assert len(arrays.runs) == len(arrays.runs.curves) == 500
    assert write.write(tmp_path, fits, arrays).stat().st_size < 2e6


def test_conditions_are_switched_and_a_dark_page_is_dark(browser, tmp_path):
    rows = three_optimizers(sizes=4)
    found, arrays = compare(read_runs(rows), Settings(bootstrap=0, budgets=(1e21, 1e22)))
    path = comparison.write(tmp_path, found, arrays, read_runs(rows))
    browser.emulate(dark=True)
    browser.open(path)
    assert browser.run("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(23, 23, 23)"
    )
    assert len(_shown(browser, "tr[id^=run-]")) == len(rows)
    stars = len(_shown(browser, "#frontiers g[data-points^=forecast] use"))
    browser.run("document.querySelectorAll('.switches button[data-name=condition]')[1].click()")
    muon = sum(row["optimizer"] == "muon" for row in rows)
    left = _shown(browser, "tr[id^=run-]")
    assert len(left) == len(rows) - muon and not any("muon" in text for text in left)
    assert len(_shown(browser, "#frontiers g[data-points^=forecast] use")) == stars * 2 // 3
    browser.emulate(media="print", dark=True)
    assert browser.run("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert not browser.errors
