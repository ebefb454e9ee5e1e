"""Odd tables through the whole program: never a traceback nor a warning, and what is not known is
said in words where it would stand."""

import json
import random
import re
import warnings
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling import fits as record
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fitting.newton import LOSSES as OBJECTIVES
from chinchilla_jax.scaling.forecast.frontier import from_fits
from chinchilla_jax.scaling.forecast.questions import at_flops
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.report.drawing import CAPTIONS
from chinchilla_jax.scaling.report.plots import FIGURES, style
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.odd import EXTRAS, LAYOUTS, LOSSES, Odd

DRAWN = {"bootstrap": 40}
NAMED = [
    Odd("minima below the sizes", settings=DRAWN),
    Odd("minima above the sizes", extras=("budgets", "conventions"), settings={"minima": "akima"}),
    Odd("some minima inside", extras=("seeds",), settings={"holdout_above": 2e18, **DRAWN}),
    Odd("grid", "no floor", ("curves",), {"budgets": (1e40, 1e3), **DRAWN}),
    Odd("grid", "no term in params", settings=DRAWN),
    Odd("grid", "no term in tokens", ("conventions",)),
    Odd("scattered", "alpha at its lowest", settings=DRAWN),
    Odd("scattered", "alpha at its highest", settings={"objective": "squared"}),
    Odd("grid", "beta at its lowest", ("rates",), DRAWN),
    Odd("scattered", "beta at its highest", settings={"tied": True, **DRAWN}),
    Odd("one budget", "random"),
    Odd("two budgets", extras=("curves", "seeds"), settings={"holdout_above": 1e3}),
    Odd("two sizes a budget", settings=DRAWN),
    Odd("one size", extras=("curves",), settings=DRAWN),
    Odd("one token count", "rising with size"),
    Odd("tokens follow params", extras=("weights",), settings=DRAWN),
    Odd("two runs"),
    Odd("one run", extras=("one unfinished", "curves"), settings=DRAWN),
    Odd("grid", "all equal", ("curves",), DRAWN),
    Odd("grid", "rising with size", settings=DRAWN),
    Odd("grid", "upside down", ("conventions",), {"holdout_above": 1e40}),
    Odd("grid", "random", ("costly small models",), {"objective": "least_absolute", **DRAWN}),
    Odd("small", "thousandths", settings={"objective": "huber", **DRAWN}),
    Odd("large", "fifteen", ("budgets", "one unfinished"), DRAWN),
    Odd("small", "random", ("one unfinished",), DRAWN),
    Odd("grid", "one run that failed", settings={"objective": "least_absolute"}),
    Odd("seven runs", "one run that failed", settings=DRAWN),
]  # fmt: skip


@st.composite
def tables(draw):
    """Any combination, nothing of which is named above."""
    pick = random.Random(draw(st.integers(0, 2**32)))
    wanted = {
        "bootstrap": pick.choice([0, 2, 40]),
        "tied": pick.random() < 0.2,
        "minima": pick.choice(["parabola", "akima"]),
        "objective": pick.choice(list(OBJECTIVES)),
        "holdout_above": pick.choice([None, None, 1.0, 5e18, 1e40]),
        "budgets": pick.choice([(), (), (1e3,), (1e40,), (1e19, 1e22)]),
    }
    extras = tuple(name for name in EXTRAS if pick.random() < 0.3)
    return Odd(pick.choice(list(LAYOUTS)), pick.choice(list(LOSSES)), extras, wanted)


class _Page(HTMLParser):
    """Text of a page whose tags all close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link"):  # what has no end
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def evaluated(odd, folder):
    """What `evaluate` does, any warning an error, and checks of the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits, arrays = analyse(read_runs(odd.table()), Settings(**{"bootstrap": 0, **odd.settings}))
        path = report.write(folder, fits, arrays)
        terminal = report.terminal(fits, path)
        _asked(fits)
    text = (folder / "fits.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"fits.json has {name}"))
    assert record.read(folder / "fits.json").warnings == fits.warnings
    page = _Page(path.read_text())
    for words in (page.text, terminal):
        assert not re.search(r"\b(nan|inf|None)\b", words), words
    for part in (fits.parametric, fits.isoflop, fits.envelope, fits.holdout):
        assert part.status == "ok" or part.reason.split(". ")[0] in page.text
    for name in FIGURES:
        drawn = (folder / f"{name}.png").exists()
        assert drawn == (f'<figure id="{name}">' in path.read_text())
        title = CAPTIONS[name].split(".")[0]
        assert drawn != bool(re.search(rf"Not drawn: [^:]*{title}", page.text)), name
        if drawn:
            _readable(folder / f"{name}.png", folder / f"{name}.svg")
    known = [each.a is not None for each in (fits.parametric, fits.isoflop, fits.envelope)]
    known += [row.status == "ok" for row in fits.isoflop.budgets]
    assert (folder / "frontier.png").exists() == any(known)  # never an empty one
    if fits.parametric.status == "ok" and odd.loss.startswith("no term"):  # no frontier
        assert (folder / "surface.png").exists()


def _readable(png, svg):
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("L"))
    assert np.ptp(pixels) > 100 and min(pixels.shape) > 30
    paths = [element.get("d") or "" for element in ElementTree.parse(svg).iter()]
    assert any(paths) and not any("nan" in path or "inf" in path for path in paths)


def _asked(fits):
    try:
        answer = at_flops(from_fits(fits), 1e22)
    except UserError:
        assert not fits.forecast[0].params
    else:
        assert answer.params > 0 and answer.tokens > 0


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(style, "DPI", 40)


@pytest.mark.parametrize("odd", NAMED, ids=str)
def test_named(odd, tmp_path):
    evaluated(odd, tmp_path)


@settings(max_examples=6)
@given(odd=tables())
def test_any(odd, tmp_path_factory):
    evaluated(odd, tmp_path_factory.mktemp("odd"))
