"""Whether a table's losses are counted as those of a forecast: by names, and by the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import loss
from chinchilla_jax.scaling.register.registration import Basis
from chinchilla_jax.scaling.table.metrics import NATS_A_BIT, metric_in
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.table.units import scaled

_ODD = math.log(1.28)  # a forecast that is so far off may be counted otherwise,
_NEAR = math.log(1.1)  # if as such it would be so near,
_FAR = math.log(2.0)  # and cannot be a loss of this forecast's runs if it is so far off
# How a loss would be read if it were another one, and what one would say of it.
_OTHERS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("bits where the forecast is of nats", f"{NATS_A_BIT:.6f}*{{}}", lambda x: NATS_A_BIT * x),
    ("nats where the forecast is of bits", f"{1 / NATS_A_BIT:.6f}*{{}}", lambda x: x / NATS_A_BIT),
    ("a perplexity", "ln({})", lambda x: math.log(x) if x > 1 else x),
    ("decimal digits where the forecast is of nats", f"{math.log(10):.6f}*{{}}",
     lambda x: math.log(10) * x),
)  # fmt: skip


def of_loss(
    runs: Runs, basis: Basis, columns: Mapping[str, str], place: Path, file: Path | str
) -> str:
    """In one sentence which column of a table is its loss, and what that is counted in.

    Args:
      columns: what a person said; a factor before the loss, 1 too, settles what it is.
    Raises:
      UserError: by its name it is counted in what no factor turns into the forecast's.
    """
    ours, before = scaled((basis.columns or {}).get("loss", "loss"))
    theirs = runs.title.get("loss", "loss")
    wanted, found = metric_in(ours, before or 1.0), metric_in(theirs, runs.scale.get("loss", 1.0))
    if settled(columns):
        return f"the loss is {columns['loss']}, as --columns says"
    if wanted and found and wanted != found:
        raise UserError(
            f"{place}: '{theirs}' is in {found}, and {file} is of '{ours}' in {wanted}, which are "
            f"no units of one another; --columns=loss=... takes a column in {wanted}, "
            f"--columns={items([f'loss=FACTOR*{theirs}'])} counts this one"
        )
    unit = f" in {found}" if found else ""
    if theirs == ours:
        return f"the loss is '{theirs}'{unit}, as in {basis.source}"
    return f"the loss is '{theirs}' here and '{ours}' in {basis.source}, both taken as one{unit}"


def settled(columns: Mapping[str, str]) -> bool:
    """Whether a person said what a loss is counted in."""
    return scaled(columns.get("loss", ""))[1] is not None


def must_be_likely(
    pairs: Sequence[tuple[float, float]], name: str, place: Path, file: Path | str
) -> None:
    """Raises UserError, a question, where losses are off as if they were counted otherwise.

    Args:
      pairs: of each number measured what it is and what was forecast.
      name: of the column of losses.
    """

    def off(read: Callable[[float], float]) -> float:
        return float(np.median([math.log(read(found) / expected) for found, expected in pairs]))

    error = off(lambda x: x)
    if abs(error) < _ODD:
        return
    found, expected = (float(np.median(x)) for x in zip(*pairs, strict=True))
    said = (
        f"{place}: '{name}' is {loss(found)} in the median run and {file} forecasts "
        f"{loss(expected)}"
    )
    stands = f"--columns={items([f'loss=1*{name}'])} takes it as it stands"
    what, flag, read = min(_OTHERS, key=lambda one: abs(off(one[2])))
    if abs(off(read)) < _NEAR:
        so = f"--columns={items([f'loss={flag.format(name)}'])} says so"
        raise UserError(f"{said}: is it {what}? {so}, {stands}")
    if abs(error) > _FAR:
        raise UserError(
            f"{said}: is it another metric? --columns=loss=... names another column, {stands}"
        )
