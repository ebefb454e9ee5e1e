"""The sections `influence` and `conventions`: the surface with something changed."""

from __future__ import annotations

from dataclasses import dataclass

from chinchilla_jax.scaling.fitting.intervals import Intervals


@dataclass(frozen=True)
class Variant:
    """A surface of the same table with something changed, and its optimum at one budget."""

    a: float | None
    alpha: float
    beta: float
    E: float
    objective: float | None
    params: float | None
    tokens_per_param: float | None
    at_flops: float
    at_bound: tuple[str, ...]  # as in Parametric: beyond E, no exponent and no optimum


@dataclass(frozen=True)
class BudgetLeftOut(Variant):
    budget: float  # FLOPs


@dataclass(frozen=True)
class TopDropped(Variant):
    dropped: float  # runs of the highest losses


@dataclass(frozen=True)
class OtherDelta(Variant):
    delta: float  # Huber's


@dataclass(frozen=True)
class Influences:
    """What single budgets, high losses and delta do; a list is empty where it makes no sense."""

    leave_one_budget_out: tuple[BudgetLeftOut, ...]
    drop_top: tuple[TopDropped, ...]
    delta: tuple[OtherDelta, ...]


@dataclass(frozen=True)
class Convention:
    """The exponent a under one count of parameters and FLOPs."""

    params: str
    flops: str
    runs: int
    status: str  # of the surface
    reason: str | None
    surface_a: float | None
    surface_b: float | None
    interval: Intervals | None  # of a
    valley_a: float | None
    parabola_a: float | None
    cubic_a: float | None
    akima_a: float | None
    chosen: bool  # whether all else in the record is counted so
