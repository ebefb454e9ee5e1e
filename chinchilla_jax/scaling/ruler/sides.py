"""The two sides of `--compare=A,B`: conditions of one table, or two tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table.conditions import (
    Condition,
    choice,
    conditions,
    distinguishing,
    where,
)
from chinchilla_jax.scaling.table.readers import SUFFIXES
from chinchilla_jax.scaling.table.runs import Runs


def sides(
    asked: Sequence[str], source: str | None, read: Callable[[str | None], Runs]
) -> tuple[Condition, Condition]:
    """What A and B name: a path of a table, `optimizer=muon`, `optimizer=muon+bits=4`, or `muon`.

    Args:
      source: path of the table of conditions; read: a path -> its table.

    Raises:
      UserError: there are not two of them, one names nothing, or several conditions at once.
    """
    if len(asked) != 2:
        raise UserError(
            f"--compare={','.join(asked)}: two are compared, as optimizer=adamw,optimizer=muon"
        )
    if asked[0] == asked[1]:
        raise UserError(f"--compare: {asked[0]} is given twice")
    table = None if all(map(is_table, asked)) else read(source)
    first, second = (_side(text, table, read) for text in asked)
    return first, second


def is_table(text: str) -> bool:
    """Whether it is a path of a table rather than a condition."""
    path = storage.path(text)
    return "=" not in text and (path.suffix.lower() in SUFFIXES or path.is_dir())


def _side(text: str, table: Runs | None, read: Callable[[str | None], Runs]) -> Condition:
    if table is None or is_table(text):
        runs, values = read(text), {"table": text}
    else:
        values = _values(text, table)
        runs = where(table, values)
    if len(conditions(runs)) > 1:
        raise UserError(f"--compare: {text} is several conditions: {choice(runs)}")
    return Condition(values, runs)


def _values(text: str, table: Runs) -> dict[str, str]:
    """The values of columns that a condition is named by."""
    if "=" in text:
        pairs = (part.partition("=") for part in text.split("+"))
        return {name.strip(): value.strip() for name, _, value in pairs}
    columns = distinguishing(table)
    found = [name for name in columns if text in table.condition_labels(name)]
    if len(found) != 1:
        what = f"a value of {', '.join(found)}" if found else "no table and no condition"
        raise UserError(
            f"--compare: {text} is {what}; say COLUMN=VALUE ({', '.join(columns) or 'no column'} "
            f"tell conditions of {table.source} apart)"
        )
    return {found[0]: text}
