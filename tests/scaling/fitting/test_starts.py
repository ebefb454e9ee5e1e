"""Where fits begin: the best points of a grid, and points that lie apart."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.newton import Objective, Rows
from chinchilla_jax.scaling.fitting.starts import exponent_grid, grid_solutions, starts
from tests.scaling.known import TRUE, grid

PARAMS, TOKENS, _ = grid([1e17, 1e18, 1e19, 1e20], 6, 6.0)
ROWS = Rows.of(TRUE.loss(PARAMS, TOKENS), PARAMS, TOKENS)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, (3, len(PARAMS)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("count", [8, 32])
def test_half_are_the_best_of_the_grid_and_half_the_best_of_their_region(tied, count):
    size = 16 if not tied else 64
    theta = starts(ROWS, WEIGHTS, Objective(), tied, count, size=size)
    axes = exponent_grid(2, tied, size)
    every, squares = grid_solutions(ROWS, WEIGHTS, True, axes)
    assert theta.shape == (3, count, 5)
    regions = len(theta[0]) // 2
    for b in range(3):
        found = [tuple(row) for row in theta[b]]
        assert len(set(found)) == count  # none twice: agreement of starts would say nothing
        order = np.argsort(squares[b], kind="stable")
        best = [tuple(every[b, g]) for g in order]
        apart, rest = found[:regions], found[regions:]
        # The best of the whole grid is the best of its region: it is among those that lie apart.
        assert best[0] in apart
        left = [point for point in best if point not in apart]
        assert rest == left[: len(rest)]
