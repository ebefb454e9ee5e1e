"""Further laws as tables: their parameters, and what they hold best at a length of training."""

from __future__ import annotations

from collections.abc import Sequence

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.draws import LENGTHS
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.report.table import Rows, Table, estimate

LAW_HEAD = ("law", "form", "parameters", "objective", "rms of ln loss", "runs", "remark")


def law_row(row: LawFit) -> tuple[str, ...]:
    """A further law under LAW_HEAD."""
    parameters = ", ".join(
        f"{k} {estimate(v, row.interval, k, numbers.coefficient)}"
        for k, v in row.parameters.items()
    )
    return (
        row.law, row.formula, parameters, f"{row.objective:.6g}", f"{100 * row.rms:.2f} %",
        str(row.runs), "; ".join(row.warnings),
    )  # fmt: skip


def further_laws(fits: Sequence[LawFit]) -> Table | None:
    """Laws of --laws fitted to the same rows."""
    rows = [law_row(row) for row in fits]
    return Table("Further laws on the same runs", LAW_HEAD, rows) if rows else None


def choices(fits: Sequence[LawFit]) -> Table | None:
    """The best value of a column by each law that has a choice of it; None where none has."""
    rows: Rows = []
    units = []
    for row in fits:
        choice = LAWS[row.law].choice
        if choice is None or not row.choices:
            continue
        found = (numbers.with_interval(c.value, c.interval, numbers.exponent) for c in row.choices)
        rows.append((row.law, choice.column, *found))
        units.append(f"{row.law}: a length of training is in {choice.unit}.")
    head = ("law", "best", *(f"at {length:g}" for length in LENGTHS))
    return Table("Best by the length of training", head, rows, " ".join(units)) if rows else None
