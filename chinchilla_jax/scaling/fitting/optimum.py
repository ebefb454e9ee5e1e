"""The compute-optimal run as a function of FLOPs, along a surface or along laws through minima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws
from chinchilla_jax.scaling.fitting.minima import LossLaw
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel


@dataclass(frozen=True)
class Optimum:
    """The best runs of budgets: FLOPs, parameters, tokens, and loss where the law knows it.

    Arrays of one shape: of budgets, or of bootstrap draws at one budget.
    """

    flops: Floats
    params: Floats
    tokens: Floats
    loss: Floats | None

    @property
    def tokens_per_param(self) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.tokens / self.params)


Optima = Callable[[Floats], Optimum]
"""FLOPs -> the best runs, elementwise."""


def along(surface: Surface, cost: FlopsModel) -> Optima:
    """The runs of lowest loss on a surface, or on each of many."""

    def optima(flops: Floats) -> Optimum:
        params, tokens = surface.optimum(flops, cost)
        loss = surface.loss(params, tokens)
        return Optimum(np.broadcast_to(flops, params.shape), params, tokens, loss)

    return optima


def through(laws: PowerLaws, loss_law: LossLaw) -> Optima:
    """The runs on power laws of params and tokens, and on L(C)."""

    def optima(flops: Floats) -> Optimum:
        params, tokens = laws.at(flops)
        loss = loss_law.loss(flops)
        return Optimum(np.broadcast_to(flops, params.shape), params, tokens, loss)

    return optima
