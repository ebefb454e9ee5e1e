"""The dense law moved along an axis: its slope, and where it comes from."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.ruler.yardstick import AXES, Yardstick
from chinchilla_jax.scaling.table.cost import SIX_ND

LAW = Surface(*(np.array([x]) for x in (1.2, 3355.0, 18186.0, 0.408, 0.431, 0.452)))
PARAMS, TOKENS = np.array([1e8, 1e9]), np.array([3e9, 1e10])


@pytest.mark.parametrize("axis", AXES)
def test_its_slope_is_that_of_its_loss(axis):
    moved = Yardstick(1.0, None, LAW, np.array([True])).moved(axis, PARAMS, TOKENS, SIX_ND)
    for u in (-0.7, 0.0, 1.3):
        slope = (moved.at(u + 1e-5)[0] - moved.at(u - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(moved.at(u)[1], slope, rtol=1e-7)
        shifted = moved.shifted(np.full(2, u))
        np.testing.assert_allclose(shifted.at(0.0)[0], moved.at(u)[0], rtol=1e-12)


def test_each_axis_moves_what_it_says():
    law = Yardstick(1.0, None, LAW, np.array([True]))
    m = 1.7
    size, tokens, compute = (
        np.exp(law.moved(axis, PARAMS, TOKENS, SIX_ND).at(np.log(m))[0][0]) for axis in AXES
    )
    np.testing.assert_allclose(size, LAW.loss(m * PARAMS, TOKENS))
    np.testing.assert_allclose(tokens, LAW.loss(PARAMS, m * TOKENS))
    # On the frontier m times the FLOPs give the loss of the optimum there.
    flops = np.array([1e19, 1e21])
    optimum = LAW.optimum(flops)
    best = law.moved("compute", *optimum, SIX_ND).at(np.log(m))[0][0]
    np.testing.assert_allclose(np.exp(best), LAW.loss(*LAW.optimum(m * flops)))
    assert np.all(compute < np.exp(law.moved("compute", PARAMS, TOKENS, SIX_ND).at(0.0)[0]))
