"""Published laws by name: `third_party/published_laws.json`, a row each with its source.

A row's `law` is the name of a form in `scaling.laws`, or `frontier` (params or tokens as a power of
FLOPs) or `frontier_table` (a printed table, interpolated in log-log). FLOPs are 6 N D.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import closest
from chinchilla_jax.scaling.fitting.optimum import Optimum, along
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.techniques.law import Array

TABLE = Path(__file__).resolve().parents[2] / "third_party" / "published_laws.json"


@dataclass(frozen=True)
class PublishedLaw:
    """A row of the table.

    Attributes:
      name, title: short name and heading; law: its form; parameters: by name.
      params: which parameters N counts; flops: range of FLOPs it was fitted on.
      data: corpus and unit of the loss; source: paper and place; note: what to know before use.
    """

    name: str
    title: str
    law: str
    parameters: Mapping[str, Any]
    params: str
    flops: tuple[float, float]
    data: str
    source: str
    note: str

    @property
    def surface(self) -> Surface | None:
        """The law as E + A/N^alpha + B/D^beta where it is one."""
        p = self.parameters
        if self.law == "chinchilla":
            return Surface(**p)
        if self.law == "over_training":  # C = 6 N D and M = D/N in E + (a M^eta + b M^-eta) C^-eta
            shrink = SIX_ND.kappa ** -p["eta"]
            return Surface(p["E"], p["a"] * shrink, p["b"] * shrink, 2 * p["eta"], 2 * p["eta"])
        return None

    @property
    def has_loss(self) -> bool:
        """Whether it gives the loss of a run, not sizes only."""
        return self.law in LAWS

    @property
    def has_optimum(self) -> bool:
        """Whether a budget alone has a best model under it."""
        return self.law not in LAWS or not LAWS[self.law].layout

    def loss(self, params: Array | float, tokens: Array | float, **columns: float) -> Array:
        """Nats per token of a run; further columns by name (unique_tokens, sparsity, width, depth).

        Without them a law speaks of the ordinary run: dense, no token seen twice.

        Raises:
          UserError: the law does not give a loss, or needs a column that is missing.
        """
        if not self.has_loss:
            raise UserError(f"law {self.name} gives sizes, not a loss; {_with_loss()} give one")
        law = LAWS[self.law]
        values = {"params": params, "tokens": tokens, "flops": SIX_ND.flops(params, tokens)}
        return law.predict(self.parameters, **law.completed({**values, **columns}))

    def optimum(self, flops: Array | float, **columns: float) -> Optimum:
        """The best (params, tokens) at `flops` FLOPs.

        Raises:
          UserError: the law describes given shapes only (width and depth).
        """
        flops = np.asarray(flops, float)
        if self.law == "frontier":
            return _power_law(flops, self.parameters)
        if self.law == "frontier_table":
            table = self.parameters
            grid = np.log(table["flops"])
            params, tokens = (
                np.exp(_interpolate(np.log(flops), grid, np.log(table[name])))
                for name in ("params", "tokens")
            )
            return Optimum(flops, params, tokens, None)
        if self.surface is not None:
            return along(self.surface, SIX_ND)(flops)
        if not self.has_optimum:
            needed = LAWS[self.law].layout
            raise UserError(
                f"law {self.name} needs a {' and a '.join(needed)}, so it has no optimum in N "
                f"alone; give params and tokens, and --fixed={'=...,'.join(needed)}=..."
            )
        law = LAWS[self.law]
        budget = flops / law.price(
            {name: np.asarray(value, float) for name, value in law.completed(columns).items()}
        )

        def loss(log_params: Array) -> Array:
            params = np.exp(log_params)
            return self.loss(params, SIX_ND.tokens(budget, params), **columns)

        log_params = minimise(loss, np.full(flops.shape, 0.0), np.log(SIX_ND.params(flops, 1.0)))
        params = np.exp(log_params)
        return Optimum(flops, params, SIX_ND.tokens(budget, params), loss(log_params))


def _power_law(flops: Array, p: Mapping[str, float]) -> Optimum:
    """Whichever of params and tokens the row gives; the other from C = 6 N D."""
    params = p["params_at_1"] * flops ** p["a"] if "a" in p else None
    tokens = p["tokens_at_1"] * flops ** p["b"] if "b" in p else None
    if params is None:
        assert tokens is not None
        return Optimum(flops, SIX_ND.params(flops, tokens), tokens, None)
    return Optimum(flops, params, SIX_ND.tokens(flops, params) if tokens is None else tokens, None)


def _interpolate(x: Array, grid: Array, values: Array) -> Array:
    """Straight lines between the points and, beyond them, along the first and last line."""
    index = np.clip(np.searchsorted(grid, x) - 1, 0, len(grid) - 2)
    slope = (values[index + 1] - values[index]) / (grid[index + 1] - grid[index])
    return np.asarray(values[index] + slope * (x - grid[index]))


def minimise(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Argmin of a function with one minimum on [low, high], elementwise, by golden section.

    Comparing values resolves the argmin to about 1e-8 of the interval's unit, not better.
    """
    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.asarray(low, float), np.asarray(high, float)
    for _ in range(90):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        smaller = function(left) < function(right)
        low, high = np.where(smaller, low, left), np.where(smaller, right, high)
    return (low + high) / 2


@functools.cache
def published() -> dict[str, PublishedLaw]:
    """All rows by name."""
    rows = json.loads(TABLE.read_text())
    return {row["name"]: PublishedLaw(**{**row, "flops": tuple(row["flops"])}) for row in rows}


def called(name: str, titles: Mapping[str, str]) -> str:
    """The name of the law that bears `name` or has it as its title, case aside; else `name`.

    Args:
      titles: of laws, by their names.
    """
    asked = name.strip().casefold()
    found = (law for law, title in titles.items() if asked in (law, title.casefold()))
    return next(found, name)


def law_named(name: str, others: Mapping[str, str] | None = None) -> PublishedLaw:
    """The published law of that name or title.

    Args:
      others: titles, by name, of laws of another kind, that could have been meant too.
    Raises:
      UserError: there is none; the nearest name or title and all names are given.
    """
    laws = published()
    titles = {law.name: law.title for law in laws.values()}
    bears = called(name, titles)
    if bears not in laws:
        titles |= others or {}
        spelled = {text.casefold(): text for text in (*titles.values(), *titles)}
        near = closest(name.casefold(), list(spelled))
        did = f"; did you mean {spelled[near]}?" if near else ""
        raise UserError(f"no published law is called {name!r}{did} (there are {', '.join(titles)})")
    return laws[bears]


def laws_to_show(names: Sequence[str]) -> list[PublishedLaw]:
    """The published laws of --overlay.

    Raises:
      UserError: there is no such law, or one is given twice.
    """
    laws = [law_named(name) for name in names]
    for i, law in enumerate(laws):
        if law in laws[:i]:
            raise UserError(f"--overlay: {law.name} is given twice")
    return laws


def _with_loss() -> str:
    return ", ".join(name for name, law in published().items() if law.has_loss)
