"""The surface that synthetic tables are made of, and where published tables lie."""

from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.surface import Surface

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TRUE = Surface(1.69, 406.4, 410.7, 0.34, 0.28)


def published(name: str) -> dict[str, np.ndarray]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is other people's data and not part of the repository")
    table = np.genfromtxt(path, delimiter=",", names=True)
    return {column: table[column] for column in table.dtype.names}


def fig4(rows: int = 240) -> dict[str, np.ndarray]:
    """The runs of Chinchilla's figure 4 without the 245 - rows highest losses, in their order."""
    table = published("chinchilla_fig4.csv")
    keep = np.sort(np.argsort(table["loss"])[:rows])
    return {name: column[keep] for name, column in table.items()}


def grid(budgets, sizes: int, width: float, surface: Surface = TRUE, shift: float = 0.0):
    """params, tokens, budget of an iso-FLOP grid around the optima; 6ND holds."""
    budget = np.repeat(np.asarray(budgets, float), sizes)
    centre, _ = surface.optimum(budget)
    offset = np.tile(np.linspace(-np.log(width), np.log(width), sizes), len(budgets))
    params = centre * np.exp(offset + shift)
    return params, budget / (6 * params), budget


def noisy(noise: float = 0.01, outliers: int = 0):
    """params, tokens, loss of 50 runs of TRUE, of which the first `outliers` lie a fifth too high.

    These are of the smallest budget, whose losses are the highest of all.
    """
    params, tokens, _ = grid([1e17, 1e18, 1e19, 1e20, 1e21], 10, 8.0)
    scatter = noise * np.random.default_rng(0).standard_normal(len(params))
    factor = np.where(np.arange(len(params)) < outliers, 1.2, 1.0)
    return params, tokens, TRUE.loss(params, tokens) * np.exp(scatter) * factor


def loose(seed: int):
    """params, tokens, loss of 18 runs, so noisy that many a resample's surface is on a bound."""
    params, tokens, _ = grid([1e18, 3e18, 1e19], 6, 3.0)
    noise = np.random.default_rng(seed).standard_normal(len(params))
    return params, tokens, TRUE.loss(params, tokens) * np.exp(0.05 * noise)
