"""The record of an evaluation: written and read whole, and whatever else lies there is refused."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import VERSION, DrawTable, Fits, read, write
from chinchilla_jax.scaling.laws.further import laws_named
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.sweeps import write_sweep

# Deep enough for all kinds of values, none of them the one that stood there.
STRANGE = (None, True, -1, 3, 1.5, 10**400, 1e400, "", "a text", [], [None], [[1.0]], {}, {"a": 1})
DROP = object()


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    settings = Settings(bootstrap=40, budgets=(1e13,), holdout_above=1e12)
    return analyse(read_runs(folder), settings, laws_named(["compute"]))[0]


@pytest.fixture(scope="module")
def written(fits, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "fits.json"
    write(path, fits)
    return path.read_text()


def _read(text, folder):
    path = folder / "fits.json"
    path.write_text(text)
    return read(path)


def test_what_is_written_is_read_unrounded(fits, written, tmp_path):
    again = _read(written, tmp_path)
    assert isinstance(again, Fits)
    assert to_json(again) == to_json(fits) == json.loads(written)
    np.testing.assert_array_equal(again.draws.surface.rows, fits.draws.surface.rows)
    assert [law.law for law in again.laws] == ["compute"]
    assert again.isoflop.noise.from_ == "surface residuals"
    assert json.loads(written)["isoflop"]["noise"]["from"] == "surface residuals"


def test_draws_without_a_value_are_null_in_the_file():
    table = DrawTable(("a", "b"), np.array([[1.0, np.nan], [np.inf, 2.0]]))
    assert table.to_json() == {"columns": ["a", "b"], "rows": [[1.0, None], [None, 2.0]]}
    back = DrawTable.from_json(table.to_json(), "draws")
    np.testing.assert_array_equal(back.rows, [[1.0, np.nan], [np.nan, 2.0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0]], "2 entries"),
        ([[1.0, "2.0"]], "numbers and nulls"),
        ([[1.0, True]], "numbers and nulls"),
        ([[1.0, 10**400]], "finite"),
        ([[1.0, float("inf")]], "finite"),
        ([1.0, 2.0], "list of lists"),
        ({}, "list of lists"),
    ],
)
def test_tables_of_draws_are_checked(rows, message):
    with pytest.raises(UserError, match=message):
        DrawTable.from_json({"columns": ["a", "b"], "rows": rows}, "draws")


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1, str(VERSION), None, True, [2]])
def test_another_version_is_told_in_one_line(version, written, tmp_path):
    data = json.loads(written) | {"version": version}
    with pytest.raises(UserError, match=f"version {VERSION} is needed: run evaluate again"):
        _read(json.dumps(data), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        "null",
        f'{{"version": {VERSION}}}',
        "{" * 9,
        "[" * 100_000,
        '{"version": NaN}',
        "\x00",
    ],
)
def test_what_is_no_record_is_told_in_one_line(text, tmp_path):
    with pytest.raises(UserError, match=r"fits\.json: "):
        _read(text, tmp_path)


def _places(value, path=()):
    """The path of every value; of a list that of the first."""
    if path:
        yield path
    if isinstance(value, (dict, list)) and value:
        for key in value if isinstance(value, dict) else [0]:
            yield from _places(value[key], (*path, key))


def _changed(data, path, change):
    """`data` with another value at `path`, or none."""
    here, *rest = path
    copy = data.copy()
    if rest:
        copy[here] = _changed(data[here], rest, change)
    elif change is DROP:
        del copy[here]
    else:
        copy[here] = change
    return copy


def test_any_value_dropped_or_changed_is_refused_in_one_line_or_valid(written):
    """Every value of the file in turn: never a traceback."""
    data, rng, refused = json.loads(written), random.Random(0), 0
    for path in _places(data):
        for change in (*rng.sample(STRANGE, 2), DROP):
            try:
                assert isinstance(from_json(Fits, _changed(data, path, change), "fits"), Fits)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 900
    assert refused > 400


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sources", "surface", "E"), -1.0),
        (("sources", "surface", "A"), -400.0),
        (("sources", "surface", "B"), 1e308),
        (("sources", "surface", "alpha"), 0.0),
        (("sources", "surface", "beta"), 1e-320),
        (("sources", "surface", "noise"), -1.0),
        (("sources", "minima", "E"), -1.0),
        (("sources", "minima", "exponent"), -0.1),
        (("sources", "minima", "a"), 1e308),
        (("parametric", "alpha"), -0.3),
        (("isoflop", "parabola", "loss_law", "A"), -1.0),
        (("table", "range", "flops"), [0.0, 1e20]),
        (("table", "range", "params"), [1e9, 1e6]),
        (("table", "flops_model", "kappa"), 0.0),
    ],
)
def test_a_number_that_no_fit_gives_is_refused_by_name(path, value, written, tmp_path):
    data = _changed(json.loads(written), path, value)
    with pytest.raises(UserError, match=rf"{path[-1]} = .*must .*run evaluate again") as told:
        _read(json.dumps(data), tmp_path)
    assert "\n" not in str(told.value)


def test_what_is_not_finite_is_null_in_the_file(fits, tmp_path):
    odd = replace(fits, forecast=(replace(fits.forecast[0], decades=math.inf, loss=math.nan),))
    write(tmp_path / "fits.json", odd)
    (row,) = json.loads((tmp_path / "fits.json").read_text())["forecast"]
    assert row["decades"] is None and row["loss"] is None and row["params"] is not None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(share, written, tmp_path):
    with pytest.raises(UserError, match="not JSON"):
        _read(written[: int(share * len(written))], tmp_path)
