"""The package as a library: what its documentation shows is what it does."""

import doctest
import os
import subprocess
import sys

import numpy as np
import pytest

import chinchilla_jax as cj
from chinchilla_jax import flag_values
from chinchilla_jax.scaling import notebook
from chinchilla_jax.scaling.laws.further import laws_named
from tests.scaling.known import TRUE, grid
from tests.scaling.ruler.laws import CASES, panel_of

PARAMS, TOKENS, BUDGET = grid([1e18, 1e19, 1e20], 6, 4.0)
TABLE = {"params": PARAMS, "tokens": TOKENS, "loss": TRUE.loss(PARAMS, TOKENS)}


def test_the_examples_in_the_docstrings():
    done = doctest.testmod(notebook, optionflags=doctest.ELLIPSIS)
    assert done.failed == 0 and done.attempted >= 10


@pytest.fixture(scope="module")
def result():
    return cj.fit(TABLE, bootstrap=50)


def test_the_optimum_is_that_of_the_surface_behind_the_table(result):
    params, tokens = TRUE.optimum(1e21)
    best = result.optimum(1e21, form="surface")
    assert best.params == pytest.approx(float(params), rel=1e-3)
    assert best.loss == pytest.approx(float(TRUE.loss(params, tokens)), rel=1e-5)
    cheapest = result.cheapest(best.loss, form="surface")
    assert cheapest.flops == pytest.approx(1e21, rel=1e-6)


def test_every_figure_can_be_drawn_by_its_name(result, tmp_path):
    figure = result.draw("isoflop")
    figure.savefig(tmp_path / "isoflop.png")
    assert (tmp_path / "isoflop.png").stat().st_size > 10_000
    with pytest.raises(cj.UserError, match=r"curves: these runs give nothing to draw"):
        result.draw("curves")
    with pytest.raises(cj.UserError, match="did you mean frontier"):
        result.draw("fronteir")


def test_a_report_is_that_of_evaluate(result, tmp_path):
    page = result.report(tmp_path)
    assert page.read_text().startswith("<!doctype html>") and (tmp_path / "fits.json").exists()


def test_mistakes_are_one_line():
    with pytest.raises(cj.UserError, match="bootstrp: no such setting; did you mean bootstrap"):
        cj.fit(TABLE, bootstrp=3)
    with pytest.raises(cj.UserError, match="no published law is called"):
        cj.published("nobody")
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        cj.fitt  # noqa: B018


@pytest.mark.parametrize(
    "value",
    [0, -1e21, float("nan"), float("inf"), True, "1e21", None, [1e21], 1j, 10**400],
    ids=lambda value: repr(value)[:8],
)
def test_a_question_that_is_no_positive_number_is_one_line(value, result):
    for asked in (result, cj.published("hoffmann")):
        for ask, name in ((asked.optimum, "flops"), (asked.cheapest, "loss")):
            with pytest.raises(cj.UserError, match=f"^{name} = .*a positive number is needed$"):
                ask(value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: cj.read({"params": 1, "tokens": 2, "loss": 3}), "column 'params' is 1, and a"),
        (lambda r: cj.read(TABLE | {"loss": "2.1"}), "column 'loss' is '2.1', and a list"),
        (lambda r: cj.read(TABLE | {"loss": np.array(2.0)}), "column 'loss' is array.2.., and a"),
        (lambda r: cj.read(TABLE | {"loss": np.ones((2, 2))}), "column 'loss' is .*, and a"),
        (lambda r: cj.read(TABLE, columns="N"), "columns = 'N': a dict"),
        (lambda r: cj.read(TABLE, columns=["N"]), "columns = .*: a dict"),
        (lambda r: cj.read(TABLE, columns={"params": 3}), "3 is no text"),
        (lambda r: cj.read(TABLE, columns={3: "params"}), "columns = .*: a dict"),
        (lambda r: cj.read(TABLE, kinds="seed"), "kinds = 'seed': a dict"),
        (lambda r: cj.read(TABLE, kinds={"params": None}), "None is no text"),
        (lambda r: cj.read(TABLE, where=["a"]), "where = .*: a dict"),
        (lambda r: cj.fit(TABLE, bootstrap="10"), "bootstrap = '10': expected a whole number"),
        (lambda r: cj.fit(TABLE, bootstrap=10.5), "bootstrap = 10.5: expected a whole number"),
        (lambda r: cj.fit(TABLE, bootstrap=True), "bootstrap = True: expected a whole number"),
        (lambda r: cj.fit(TABLE, delta="x"), "delta = 'x': expected a number"),
        (lambda r: cj.fit(TABLE, delta=-1.0), "--delta=-1: .*positive"),
        (lambda r: cj.fit(TABLE, tied="no"), "tied = 'no': expected true or false"),
        (lambda r: cj.fit(TABLE, budgets="1e20"), "budgets = '1e20': expected a list"),
        (lambda r: cj.fit(TABLE, budgets=[1e20, "x"]), "budgets.1. = 'x': expected a number"),
        (lambda r: cj.fit(TABLE, holdout_above="x"), "holdout_above = 'x': expected a number"),
        (lambda r: cj.fit(TABLE, holdout_above=-1.0), "--holdout_above=-1: .*positive"),
        (lambda r: cj.fit(TABLE, params=3), "params = 3: expected a text"),
        (lambda r: cj.compare(TABLE, by=3), "by = 3: a list"),
        (lambda r: r.draw(3), "3: no such figure"),
        (lambda r: r.draw(None), "None: no such figure"),
        (lambda r: r.draw(["isoflop"]), "no such figure"),
        (lambda r: r.report(3), "folder = 3: a path"),
        (lambda r: cj.published(3), "name = 3: the name of a law"),
        (lambda r: cj.published("hoffmann", sparsity="x"), "sparsity = 'x': expected a number"),
    ],
)
def test_a_wrong_type_is_one_line(call, says, result):
    with pytest.raises(cj.UserError, match=says) as told:
        call(result)
    assert "\n" not in str(told.value)


def test_numbers_of_numpy_and_a_single_budget_are_taken_as_they_are_meant():
    found = cj.fit(TABLE, bootstrap=np.int64(0), budgets=1e20).fits.settings
    assert (found.bootstrap, found.budgets) == (0, (1e20,))
    assert (
        cj.fit(TABLE, bootstrap=0.0, budgets=np.array([1e20, 1e21])).fits.forecast[1].flops == 1e21
    )


def test_a_budget_without_an_optimum_is_one_line(result):
    for asked in (result, cj.published("hoffmann")):
        with pytest.raises(cj.UserError, match="flops = 1e\\+300: this law gives no optimum"):
            asked.optimum(1e300)
    assert result.optimum(np.float64(1e21)) == result.optimum(10**21)


def test_conditions_are_compared_or_picked_and_never_fitted_as_one():
    both = {name: np.tile(column, 2) for name, column in TABLE.items()}
    both["optimizer"] = np.repeat(["adamw", "muon"], len(PARAMS))
    both["loss"] = both["loss"] - 0.1 * (both["optimizer"] == "muon")
    with pytest.raises(cj.UserError, match=r"column optimizer \(adamw, muon\)"):
        cj.fit(both, bootstrap=0)
    picked = cj.fit(cj.read(both, where={"optimizer": "muon"}), bootstrap=0)
    compared = cj.compare(both, bootstrap=0)
    assert picked.fits.parametric == compared.results["optimizer=muon"].fits.parametric
    few = {name: column[: len(PARAMS) + 3] for name, column in both.items()}
    found = cj.compare(few, bootstrap=0)
    assert list(found.results) == ["optimizer=adamw"] and list(found.refused) == ["optimizer=muon"]
    assert "optimizer=muon: not fitted: " in repr(found)


def test_several_conditions_name_both_ways_to_choose():
    both = {name: np.tile(column, 2) for name, column in TABLE.items()}
    both["optimizer"] = np.repeat(["adamw", "muon"], len(PARAMS))
    with pytest.raises(cj.UserError) as told:
        cj.fit(both, bootstrap=0)
    for words in ("--by=optimizer", "cj.compare(table, by=['optimizer'])",
                  "cj.read(table, where={'optimizer': 'adamw'})"):  # fmt: skip
        assert words in str(told.value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cj.fit(TABLE, budgets=[1e20, 1e20]), "--budgets: 1e.20 is given twice"),
        (lambda: cj.compare(TABLE, by=["loss", "loss"]), "fitted|given twice"),
        (lambda: laws_named(["compute", "compute"]), "--laws: compute is given twice"),
        (lambda: flag_values.once("overlay", ["h", "l", "h"]), "--overlay: h is given twice"),
        (lambda: flag_values.once("flops", (1e22, 1e22)), "--flops: 1e.22 is given twice"),
    ],
)
def test_what_is_given_twice_is_one_line(call, says):
    with pytest.raises(cj.UserError, match=says):
        call()


def test_fit_takes_what_read_returned(result):
    runs = cj.read(TABLE)
    again = cj.fit(runs, bootstrap=50)
    assert np.array_equal(runs.loss, TABLE["loss"])
    assert again.fits.parametric == result.fits.parametric
    assert repr(again).startswith("For ")


def test_one_condition_of_several_is_read_by_its_values(result):
    names = list(TABLE)
    web = dict(zip(names, (TABLE[name] for name in names), strict=True))
    code = web | {"loss": 0.8 * web["loss"]}
    table = {name: np.concatenate([web[name], code[name]]) for name in names}
    table["bits"] = np.repeat([16, 4], len(PARAMS))
    with pytest.raises(cj.UserError, match=r"bits \(4, 16\) tells 2 conditions apart"):
        cj.fit(table)
    picked = cj.fit(cj.read(table, where={"bits": 16}), bootstrap=50)
    assert picked.fits.parametric == result.fits.parametric
    mixed = cj.read(table, kinds={"bits": "setting"})
    assert set(mixed.best().columns["bits"]) == {4}


def test_all_of_it_is_there_without_jax():
    code = (
        "import os, sys, chinchilla_jax as cj; assert 'numpy' not in sys.modules; "
        "print(os.environ['OPENBLAS_NUM_THREADS']); "
        "[getattr(cj, name) for name in cj.__all__]; print('jax' in sys.modules, cj.__version__)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    # One BLAS thread, said before NumPy is loaded: more change last digits and cost time.
    assert done.stdout.split() == ["1", "False", cj.__version__]


def test_a_league_table_in_one_call():
    rows = panel_of(CASES["kumar"])
    found = cj.league(rows, bootstrap=100)
    assert repr(found).startswith("technique ") and "kumar: a model of 1." in repr(found)
    m = found["kumar"]["params"]
    assert m.low < 0.696 < m.high
    with pytest.raises(cj.UserError, match=r"kumer: no such condition; did you mean kumar\?"):
        found["kumer"]
    assert found.draw().axes and found.draw("points").axes
    with pytest.raises(cj.UserError, match="expected forest or points"):
        found.draw("forrest")
    other = cj.league(rows, by="technique", baseline={"technique": "kumar"}, bootstrap=0)
    assert other["dense"]["params"].value == pytest.approx(1 / m.value, rel=0.02)
    with pytest.raises(cj.UserError, match="a dict is needed"):
        cj.league(rows, baseline="dense")
    with pytest.raises(cj.UserError, match="charge = None: one of student, teacher_forward"):
        cj.league(rows, charge=None)
    refused = cj.league(panel_of(CASES["kumar"], budgets=1, sizes=8), bootstrap=0)
    assert repr(refused).startswith("No multiplier can be stated")
    with pytest.raises(cj.UserError, match=r"nothing to draw: .*one budget"):
        refused.draw()
