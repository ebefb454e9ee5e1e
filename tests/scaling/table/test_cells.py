"""Which runs are of one cell."""

import numpy as np

from chinchilla_jax.scaling.table.cells import cell_index


def test_cells_are_numbered_as_numpy_orders_them():
    rows = np.random.default_rng(0).integers(0, 4, (3, 300)).astype(float)
    rows[0, ::7] = np.nan
    _, number = np.unique(np.nan_to_num(rows, nan=-1.0), axis=1, return_inverse=True)
    np.testing.assert_array_equal(cell_index(*rows), number.ravel())
    assert cell_index(np.empty(0)).shape == (0,)
    assert cell_index(np.ones(3)).tolist() == [0, 0, 0]
