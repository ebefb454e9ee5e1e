"""Tables of runs that are odder than anybody's and still valid: where laws and minima give out.

A table is a layout of sizes and tokens, a loss over them, and columns beside them; every
combination is one that `read_runs` accepts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import SIX_ND
from tests.scaling.known import TRUE, grid

Columns = dict[str, np.ndarray]

BUDGETS = np.geomspace(1e18, 3e19, 4)
# name -> (params, tokens)
LAYOUTS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "grid": lambda: grid(BUDGETS, 6, 5.0)[:2],
    "minima below the sizes": lambda: grid(BUDGETS, 6, 3.0, shift=3.0)[:2],
    "minima above the sizes": lambda: grid(BUDGETS, 6, 3.0, shift=-3.0)[:2],
    "some minima inside": lambda: tuple(
        np.concatenate(pair)
        for pair in zip(grid(BUDGETS[:2], 6, 4.0)[:2], grid(BUDGETS[2:], 6, 3.0, shift=3.0)[:2],
                        strict=True)
    ),
    "one budget": lambda: grid(BUDGETS[:1], 9, 5.0)[:2],
    "two budgets": lambda: grid(BUDGETS[:2], 7, 5.0)[:2],
    "two sizes a budget": lambda: grid(BUDGETS, 2, 4.0)[:2],
    "one size": lambda: (np.full(9, 1e8), np.geomspace(1e9, 1e11, 9)),
    "one token count": lambda: (np.geomspace(1e7, 1e10, 9), np.full(9, 1e10)),
    "tokens follow params": lambda: (np.geomspace(1e7, 1e10, 9), 20 * np.geomspace(1e7, 1e10, 9)),
    "scattered": lambda: tuple(np.exp(np.random.default_rng(0).uniform(18, 24, (2, 24)))),
    "seven runs": lambda: tuple(np.exp(np.random.default_rng(1).uniform(18, 24, (2, 7)))),
    "two runs": lambda: (np.array([1e8, 2e8]), np.array([2e9, 1e9])),
    "one run": lambda: (np.array([1e8]), np.array([2e9])),
    "small": lambda: grid(np.geomspace(1e8, 1e11, 4), 6, 4.0)[:2],
    "large": lambda: grid(np.geomspace(1e27, 1e30, 4), 6, 4.0)[:2],
}  # fmt: skip


def _power(exponent: float, of: str, size: float = 1.0) -> Callable[..., np.ndarray]:
    """`size` x (params or tokens over its middle)^-exponent."""

    def term(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        log = np.log(params if of == "params" else tokens)
        return size * np.exp(-exponent * (log - log.mean()))

    return term


def _sum(*terms: Callable[..., np.ndarray], E: float = 1.7) -> Callable[..., np.ndarray]:
    return lambda params, tokens: E + sum(term(params, tokens) for term in terms)


def _random(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).uniform(2.0, 4.0, len(params))


def _valleys_upside_down(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    best, _ = TRUE.optimum(SIX_ND.flops(params, tokens))
    return 3.0 - 0.1 * np.log(params / best) ** 2 * np.exp(-abs(np.log(params / best)))


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "surface": TRUE.loss,
    "noisy surface": lambda n, d: (
        TRUE.loss(n, d) * np.exp(0.01 * np.random.default_rng(3).standard_normal(len(n)))
    ),
    "no floor": Surface(0.0, TRUE.A, TRUE.B, TRUE.alpha, TRUE.beta).loss,
    "no term in params": _sum(_power(0.3, "tokens")),
    "no term in tokens": _sum(_power(0.3, "params")),
    "alpha at its lowest": _sum(_power(0.002, "params", 3.0), _power(0.3, "tokens"), E=0.0),
    "alpha at its highest": _sum(_power(5.0, "params", 1e-3), _power(0.3, "tokens")),
    "beta at its lowest": _sum(_power(0.3, "params"), _power(0.002, "tokens", 3.0), E=0.0),
    "beta at its highest": _sum(_power(0.3, "params"), _power(5.0, "tokens", 1e-3)),
    "all equal": lambda n, d: np.full(len(n), 2.5),
    "rising with size": _sum(_power(-0.1, "params")),
    "rising with tokens": _sum(_power(-0.1, "tokens")),
    "random": _random,
    "upside down": _valleys_upside_down,
    "thousandths": lambda n, d: 1e-3 * TRUE.loss(n, d),
    "fifteen": lambda n, d: 13.0 + TRUE.loss(n, d),
    "one run that failed": lambda n, d: TRUE.loss(n, d) + np.where(np.arange(len(n)) == 1, 12, 0),
}


def _repeated(table: Columns, times: int, **columns: np.ndarray) -> Columns:
    """Every run `times` over, with columns that differ between the copies."""
    size = len(table["loss"])
    copies = {name: np.repeat(column, times) for name, column in table.items()}
    return copies | {name: np.tile(column, size) for name, column in columns.items()}


def _seeds(table: Columns) -> Columns:
    copies = _repeated(table, 3, seed=np.arange(3))
    scatter = np.random.default_rng(4).standard_normal(len(copies["loss"]))
    return copies | {"loss": copies["loss"] * np.exp(0.002 * scatter)}


def _rates(table: Columns) -> Columns:
    copies = _repeated(table, 3, learning_rate=np.array([1e-3, 3e-3, 1e-2]))
    return copies | {"loss": copies["loss"] + 0.02 * (copies["learning_rate"] - 3e-3) ** 2 / 1e-5}


def _curves(table: Columns) -> Columns:
    """A row per logged step."""
    size, points = len(table["loss"]), 12
    done = np.tile(np.geomspace(0.02, 1.0, points), size)
    long = {name: np.repeat(column, points) for name, column in table.items()}
    return long | {
        "run_id": np.repeat([f"run {i}" for i in range(size)], points),
        "step": np.tile(np.arange(1, points + 1), size),
        "tokens": long["tokens"] * done,
        "flops": long["flops"] * done,
        "loss": long["loss"] * done**-0.05,
        "learning_rate": 1e-3 * (1.05 - done),
    }


def _conventions(table: Columns) -> Columns:
    embedding = 256 * np.sqrt(table["params"] / 100)
    return table | {
        "params_total": table["params"],
        "params_embedding": 0.2 * np.minimum(embedding, table["params"]),
        "flops_matmul": table["flops"] * (1 + table["params"] ** -0.1),
    }


# What stands beside the core columns; applied in this order.
EXTRAS: dict[str, Callable[[Columns], Columns]] = {
    "budgets": lambda t: t | {"budget": np.array([float(f"{c:.2g}") for c in t["flops"]])},
    "costly small models": lambda t: t | {"flops": t["flops"] * (1 + 3 * t["params"] ** -0.05)},
    "weights": lambda t: t | {"weight": np.geomspace(1, 100, len(t["loss"]))},
    "conventions": _conventions,
    "one unfinished": lambda t: t | {
        "status": np.where(np.arange(len(t["loss"])) == len(t["loss"]) - 1, "failed", "done")
        if len(t["loss"]) > 1 else np.array(["done"])
    },
    "rates": _rates,
    "seeds": _seeds,
    "curves": _curves,
}  # fmt: skip


@dataclass(frozen=True)
class Odd:
    """A table of runs and how it is evaluated."""

    layout: str = "grid"
    loss: str = "surface"
    extras: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    laws: tuple[str, ...] = ()

    def table(self) -> Columns:
        params, tokens = LAYOUTS[self.layout]()
        table = {
            "params": params, "tokens": tokens, "flops": SIX_ND.flops(params, tokens),
            "loss": LOSSES[self.loss](params, tokens),
        }  # fmt: skip
        for name, add in EXTRAS.items():
            if name in self.extras:
                table = add(table)
        return table

    def __str__(self) -> str:
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return ", ".join([self.layout, self.loss, *self.extras, *settings])
