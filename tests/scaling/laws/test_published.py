"""Published laws: numbers as their papers give them, optima by an independent search."""

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.published import law_named, minimise, published


def test_every_row_names_its_source_and_fits_its_form():
    for name, law in published().items():
        assert law.source and law.title and law.data, name
        assert law.law in LAWS or law.law in ("frontier", "frontier_table"), name
        if law.law in LAWS:
            assert set(law.parameters) == set(LAWS[law.law].parameters), name


@pytest.mark.parametrize(
    ("name", "params", "ratio"),
    [
        ("hoffmann", 40e9, 59),
        ("hoffmann_rounded", 32e9, 93),
        ("replication_huber", 73.2e9, 17.9),
        ("hoffmann_1", 67e9, 22.4),
    ],
)
def test_optimum_at_the_budget_of_gopher(name, params, ratio):
    best = law_named(name).optimum(5.76e23)
    assert float(best.params) == pytest.approx(params, rel=0.01)
    assert float(best.tokens / best.params) == pytest.approx(ratio, rel=0.006)


def test_head_to_head_of_the_paper():
    """Section D.4: at 1e21 FLOPs approach 1 picks 2.86B parameters."""
    assert float(law_named("hoffmann_1").optimum(1e21).params) == pytest.approx(2.86e9, rel=0.005)


@pytest.mark.parametrize("name", [n for n, law in published().items() if law.law in LAWS])
def test_no_other_size_is_better(name):
    law = law_named(name)
    if law.law == "width_depth":
        with pytest.raises(UserError, match="width"):
            law.optimum(1e21)
        return
    best = law.optimum(np.array([1e19, 1e22]))
    np.testing.assert_allclose(6 * best.params * best.tokens, [1e19, 1e22], rtol=1e-9)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert np.all(law.loss(best.params * factor, best.tokens / factor) > best.loss)


def test_data_constraint_and_sparsity_move_the_optimum():
    repeated = law_named("muennighoff").optimum(1e22, unique_tokens=25e9)
    free = law_named("muennighoff").optimum(1e22)
    assert repeated.loss > free.loss
    sparse = law_named("frantar_t5").optimum(1e20, sparsity=0.5)
    assert sparse.params < law_named("frantar_t5").optimum(1e20).params
    spent = 6 * sparse.params * sparse.tokens * (1 - 0.625 * 0.5) / (1 - 0.5)
    assert float(spent) == pytest.approx(1e20, rel=1e-9)


def test_interpolated_tables_go_through_their_rows():
    table = law_named("hoffmann_2").parameters
    best = law_named("hoffmann_2").optimum(np.array(table["flops"]))
    np.testing.assert_allclose(best.params, table["params"], rtol=1e-9)
    np.testing.assert_allclose(best.tokens, table["tokens"], rtol=1e-9)


def test_minimise_is_elementwise():
    centres = np.array([-3.0, 0.5, 7.0])
    found = minimise(lambda x: (x - centres) ** 2, np.full(3, -10.0), np.full(3, 10.0))
    np.testing.assert_allclose(found, centres, atol=1e-6)


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match=r"did you mean hoffmann\?"):
        law_named("hofmann")
    with pytest.raises(UserError, match="gives sizes, not a loss"):
        law_named("llama3").loss(1e9, 1e10)
