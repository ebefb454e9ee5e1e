"""Rows that a technique measured of a run besides its own: each a row of the table."""

from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.rows import columns, completed
from chinchilla_jax.scaling.table.columns import value_of
from chinchilla_jax.scaling.table.readers import Raw

DONE = {"done", "finished", "completed", "complete", "success", "succeeded", "ok"}


def with_derived(raw: Raw) -> Raw:
    """With the rows that techniques derive from those of finished runs, each at the line of its.

    Raises:
      UserError: what a technique measured is damaged.
    """
    names = list(raw.columns)
    rows = [
        dict(zip(names, cells, strict=True)) for cells in zip(*raw.columns.values(), strict=True)
    ]
    found: list[tuple[int, dict[str, Any]]] = []
    for line, row in zip(raw.line, rows, strict=True):
        values = {name: value_of(cell) for name, cell in row.items()}
        if str(values.get("status") or "done").lower() in DONE:
            try:
                found += [(line, more) for more in techniques.derived([values])]
            except UserError as error:
                raise UserError(f"{raw.source}, row {line}, {error}") from None
    if not found:
        return raw
    every = completed([*rows, *(row for _, row in found)])
    cells = {name: [row.get(name) for row in every] for name in columns(every)}
    return Raw(raw.source, cells, [*raw.line, *(line for line, _ in found)])
