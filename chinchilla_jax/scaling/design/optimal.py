"""V- and D-optimal designs: by the information of the surface's parameters at their best fit.

V-optimal runs take most of the variance of ln loss at the best size of the target and its
neighbours, per FLOP to the power .4, as vopt.py of PlanarG/active-sl does (arXiv 2604.22753);
D-optimal ones add most to the information on all parameters, per FLOP.
"""

from __future__ import annotations

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, Ints, silent
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.known import Known
from chinchilla_jax.scaling.design.linear import linear

V, D = "V-optimal", "D-optimal"
_POWERS = {V: 0.4, D: 1.0}  # of FLOPs, by which a gain is divided
_NEIGHBOURS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the best size of the target
_PRIOR = 0.25  # information on each parameter before any run
_MOST_RUNS = 100


@silent()
def optimal(by: str, known: Known, pool: Pool, budget: float) -> Ints:
    """How many runs of every candidate, of at most `budget` FLOPs together, one after another."""
    runs, cost = known.each.runs, known.each.flops_model
    slopes = linear(known.surface, runs.params, runs.tokens)
    best = float(np.ravel(known.surface.optimum(known.target, cost)[0])[0])
    near = np.array([best * factor for factor in _NEIGHBOURS])
    wanted = slopes.losses(near, cost.tokens(known.target, near))
    noise_C = known.noise(pool.flops_C)
    each = slopes.losses(pool.params_C, pool.tokens_C) / noise_C[:, None]
    here = slopes.losses(runs.params, runs.tokens) / known.noise(runs.flops)[:, None]
    covariance = np.asarray(np.linalg.inv(here.T @ here + _PRIOR * np.eye(here.shape[1])))
    count_C, left = np.zeros(len(pool), np.int64), budget
    while count_C.sum() < _MOST_RUNS:
        open_C = (pool.flops_C <= left * (1 + 1e-9)) & (count_C < pool.most_C)
        if not open_C.any():
            break
        gain_C = _gain(by, covariance, each, wanted) / pool.flops_C ** _POWERS[by]
        c = int(np.argmax(np.where(open_C, gain_C, -1.0)))
        x = covariance @ each[c]
        covariance = covariance - np.outer(x, x) / (1 + each[c] @ x)
        count_C[c] += 1
        left -= pool.flops_C[c]
    return count_C


def _gain(by: str, covariance: Floats, each: Floats, wanted: Floats) -> Floats:
    told_C = np.einsum("cp,pq,cq->c", each, covariance, each)  # over the noise's variance
    if by == D:
        return np.asarray(np.log1p(told_C))
    return np.asarray(((wanted @ covariance @ each.T) ** 2).sum(axis=0) / (1 + told_C))
