"""A table of text, as the terminal and the page show it, and a number of it with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import with_interval
from chinchilla_jax.scaling.fitting.intervals import Interval

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; `marks` names rows that stand out (index -> kind).

    `keys` name rows for the points and lines of figures, `run 17`; `switches` the columns by whose
    values a reader turns runs on and off (head -> what is switched, the same in all tables).
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marks: dict[int, str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    switches: Mapping[str, str] = field(default_factory=dict)

    def without_empty_columns(self) -> Table:
        """The columns that say something in some row."""
        if not self.rows:
            return self
        columns = enumerate(zip(*self.rows, strict=True))
        keep = [i for i, cells in columns if set(cells) - {"", numbers.MISSING}]
        rows = [[row[i] for i in keep] for row in self.rows]
        return replace(self, head=[self.head[i] for i in keep], rows=rows)


def estimate(
    value: float | None,
    intervals: Mapping[str, Interval | None] | None,
    name: str,
    write: Callable[[float | None], str],
) -> str:
    """0.51 (0.46 to 0.57) of the quantity `name`; 0.51 (interval open) where an end is open."""
    found = intervals or {}
    if value is not None and name in found and found[name] is None:
        return f"{write(value)} (interval open)"
    return with_interval(value, found.get(name), write)
