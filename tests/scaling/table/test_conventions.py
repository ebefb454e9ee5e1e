"""The same runs under other counts."""

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conventions import available, under
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return read_runs(write_sweep(tmp_path_factory.mktemp("sweep")))


def test_counts_come_from_their_columns(runs):
    assert (runs.params_convention, runs.flops_convention) == ("total", "matmul")
    counted = under(runs, "non_embedding", "chinchilla")
    np.testing.assert_array_equal(counted.params, runs.columns["params_non_embedding"])
    np.testing.assert_array_equal(counted.flops, runs.columns["flops_chinchilla"])
    np.testing.assert_array_equal(counted.loss, runs.loss)
    np.testing.assert_array_equal(counted.tokens, runs.tokens)
    kaplan = under(runs, "non_embedding", "six_nd")
    np.testing.assert_allclose(kaplan.flops, 6 * kaplan.params * kaplan.tokens)
    assert under(runs, "total", "as_given").flops is runs.flops


def test_curves_are_counted_as_their_runs(runs):
    counted = under(runs, "matmul", "six_nd")
    for curve in counted.curves:
        row = counted.run_id_R.index(curve.run_id)
        assert curve.params == counted.params[row]
        before = next(c for c in runs.curves if c.run_id == curve.run_id)
        factor = counted.flops[row] / runs.flops[row]
        np.testing.assert_allclose(curve.flops_S, before.flops_S * factor)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("params,tokens,loss\n" + "".join(f"1e{i},2e{i + 1},3\n" for i in range(6, 9)))
    table = read_runs(path)
    with pytest.raises(UserError, match="params_matmul"):
        under(table, "matmul", "as_given")
    with pytest.raises(UserError, match="flops_chinchilla"):
        under(table, "total", "chinchilla")
    with pytest.raises(UserError, match="none of total, non_embedding, matmul"):
        under(table, "embedding", "as_given")
    assert [(p, f) for p, f, _ in available(table)] == [("total", "as_given")]


def test_every_convention_is_fitted_and_one_is_chosen(runs):
    fits, _ = analyse(runs, Settings(bootstrap=40, params="non_embedding", flops="six_nd"))
    rows = fits.conventions
    names = {(row.params, row.flops) for row in rows}
    assert {("total", "as_given"), ("non_embedding", "six_nd"), ("matmul", "chinchilla")} <= names
    (chosen,) = [row for row in rows if row.chosen]
    assert (chosen.params, chosen.flops) == ("non_embedding", "six_nd")
    assert chosen.surface_a == fits.parametric.a
    total = next(r for r in rows if (r.params, r.flops) == ("total", "as_given"))
    # Leaving the embedding out of N makes models grow faster with compute (Pearce & Song).
    assert chosen.surface_a > total.surface_a + 0.03
    for row in rows:
        low, high = row.interval["a"]
        assert low < row.surface_a < high
