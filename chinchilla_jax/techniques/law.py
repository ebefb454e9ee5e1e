"""What a scaling law is here: a closed form, its linear part, and its source.

Every law in use is a sum of positive terms whose coefficients enter linearly once the exponents are
given, perhaps under one outer power (Kaplan's). So a law needs only two functions: `form`, the
equation as its paper prints it, and `linear`, the same equation as basis functions for given
exponents. `scaling/laws` does the rest, and a new law is one file with one `Law` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chinchilla_jax.experiment.errors import UserError

DENSE_LOSS = "dense_loss"  # column: the loss of the same run without the technique
Array = NDArray[np.float64]
Values = Mapping[str, Array]
"""Arrays by name: a law's parameters, or the columns of a table. They broadcast together."""


def _nothing(x: Values) -> Array:
    return np.zeros(())


def _as_dense(x: Values) -> Array:
    return np.ones(())


@dataclass(frozen=True)
class Choice:
    """What a law holds best of one of its columns, as a function of how long is trained.

    Attributes:
      column: of the law.
      best: (parameters, length of training) -> the value of lowest loss; they broadcast.
      length: (parameters, columns) -> length of training of runs.
      unit: what a length is in, in words.
    """

    column: str
    best: Callable[[Values, Array], Array]
    length: Callable[[Values, Values], Array]
    unit: str


@dataclass(frozen=True)
class Law:
    """A scaling law.

    Attributes:
      name: what a user calls it.
      formula: the equation in one line of text.
      source: paper and equation.
      columns: columns of a table of runs that it needs, apart from the loss.
      parameters: names of its parameters, all positive, in the order of the paper.
      form: (parameters, columns) -> loss in nats per token.
      ranges: the nonlinear variables and the interval in which a fit starts looking for each.
      linear: (nonlinear variables, columns) -> basis functions phi_k and an outer power p, such
        that loss = offset + (sum_k c_k phi_k)^p with c_k >= 0.
      offset: columns -> the part of the loss that they give themselves, such as a teacher's loss.
      natural: (nonlinear variables, coefficients c_k) -> parameters of `form`.
      frontier: whether it describes only the best run of each budget.
      layout: columns that say how parameters are laid out; with them, N alone has no optimum.
      aliases: other names of a column in tables of runs.
      ordinary: what a column is in a run without the technique: a number, or as another column.
      choice: what it holds best, where that depends on how long is trained.
      price: columns -> training FLOPs over 6 N D, with N the parameters that `form` counts.
      outcome: the column that `form` gives: `excess_loss` is the rise of the loss in rows that a
        technique derives.
      least: of the outcome, under which it is noise and a row is left out.
      apart: columns of its technique that it says nothing of: each value has a fit of its own.
      gap: a column and a parameter: the law bends where the column is the parameter times the
        dense loss.
    """

    name: str
    formula: str
    source: str
    columns: tuple[str, ...]
    parameters: tuple[str, ...]
    form: Callable[[Values, Values], Array]
    ranges: Mapping[str, tuple[float, float]]
    linear: Callable[[Values, Values], tuple[Sequence[Array], Array]]
    natural: Callable[[Values, Sequence[Array]], dict[str, Array]]
    offset: Callable[[Values], Array] = _nothing
    frontier: bool = False
    layout: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordinary: Mapping[str, float | str] = field(default_factory=dict)
    choice: Choice | None = None
    price: Callable[[Values], Array] = _as_dense
    outcome: str = "loss"
    least: float = 0.0
    apart: tuple[str, ...] = ()
    gap: tuple[str, str] | None = None

    def source_of(self, column: str, names: Collection[str]) -> str:
        """Which of `names` holds a column: itself or the first of its aliases, else itself."""
        known = (column, *self.aliases.get(column, ()))
        return next((name for name in known if name in names), column)

    def completed(self, columns: Mapping[str, Array | float]) -> dict[str, Array | float]:
        """With ordinary values of the columns that are missing, as far as they are known."""
        values = {
            name: columns.get(value, value) if isinstance(value, str) else value
            for name, value in self.ordinary.items()
        }
        known = {name: value for name, value in values.items() if not isinstance(value, str)}
        return {**known, **columns}

    def predict(self, parameters: Mapping[str, float], **columns: Array | float) -> Array:
        """Loss in nats per token at the given columns (floats or arrays that broadcast).

        Raises:
          UserError: a column or a parameter that the law needs is missing.
        """
        for kind, needed, given in (
            ("column", self.columns, columns),
            ("parameter", self.parameters, parameters),
        ):
            missing = [name for name in needed if name not in given]
            if missing:
                raise UserError(
                    f"law {self.name} needs the {kind}{'s' * (len(missing) > 1)} "
                    f"{', '.join(missing)}; given: {', '.join(given) or 'none'}"
                )
        as_arrays = {name: np.asarray(column, float) for name, column in columns.items()}
        return self.form(
            {name: np.asarray(parameters[name]) for name in self.parameters}, as_arrays
        )


def power_terms(*coefficients: str) -> Callable[[Values, Sequence[Array]], dict[str, Array]]:
    """`natural` of a law whose parameters are its exponents and its coefficients themselves."""

    def natural(exponents: Values, linear: Sequence[Array]) -> dict[str, Array]:
        return {**exponents, **dict(zip(coefficients, linear, strict=True))}

    return natural
