"""Tables of several conditions whose truth is known: a surface each, noise of .1 %."""

import numpy as np

from chinchilla_jax.scaling.fitting.surface import Surface
from tests.scaling.known import grid

BUDGETS = (1e18, 3e18, 1e19, 3e19, 1e20)
NOISE = 1e-3
SURFACES = {
    "adamw": Surface(1.69, 406.4, 410.7, 0.34, 0.28),
    "muon": Surface(1.62, 380.0, 300.0, 0.36, 0.27),
    "sgd": Surface(1.9, 500.0, 600.0, 0.31, 0.30),
}


def three_optimizers(seeds=1, sizes=7, budgets=BUDGETS, noise=NOISE, seed=0):
    """Rows of three optimizers on one grid: the same params and tokens under each of them."""
    rng = np.random.default_rng(seed)
    params, tokens, budget = grid(budgets, sizes, 5.0)
    return [
        {
            "optimizer": name,
            "params": float(round(n)),
            "tokens": float(round(d)),
            "flops": float(c),
            "loss": float(surface.loss(n, d) * np.exp(noise * rng.standard_normal())),
            "seed": s,
        }
        for name, surface in SURFACES.items()
        for n, d, c in zip(params, tokens, budget, strict=True)
        for s in range(seeds)
    ]
