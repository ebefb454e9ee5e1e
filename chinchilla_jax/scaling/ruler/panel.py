"""A table as a panel: the dense runs, and the runs of every other condition beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.ruler.confounds import (
    TEXT,
    confounds,
    held_out,
    incomparable,
    searched,
)
from chinchilla_jax.scaling.table import conditions as table
from chinchilla_jax.scaling.table.columns import label
from chinchilla_jax.scaling.table.conditions import Condition, conditions, restricted, written
from chinchilla_jax.scaling.table.runs import Runs

BY = "technique"  # --by=technique asks for a league table
_NEEDS = "needs"  # names of the runs that a run begins from, or is taught by
DENSE = ("dense", "none", "baseline", "off", "")  # of a foreign column that names techniques


@dataclass(frozen=True)
class Panel:
    """The dense condition and all others, in the best settings of their cells."""

    runs: Runs  # all of them
    by: tuple[str, ...]
    dense: Condition
    others: tuple[Condition, ...]
    warnings: tuple[str, ...] = ()  # of what besides a technique may be in its multiplier

    def label(self, condition: Mapping[str, str]) -> str:
        """What sets a condition off from the dense one: `sparsity level 0.5, quantisation bits 4`.

        Columns of one technique stand together.
        """
        return written_as(condition, self.dense.values)


def panel(runs: Runs, by: Sequence[str] = (), baseline: Mapping[str, str] | None = None) -> Panel:
    """The panel of a table.

    Args:
      by: columns that make the conditions; by default those of our techniques, or a column named
        technique.
      baseline: the values of the dense condition in columns `by`; by default that of a run without
        any technique.

    Raises:
      UserError: no technique in the table, no dense runs, runs that differ in something else, or
        losses that are not of one unit.
    """
    known, runs = techniques.dense_columns(), of_one_text(runs)
    by = [name for name in by if name != BY or BY in runs.labels] or _columns(runs)
    _none_picked(runs, by, baseline or {})
    runs = table.by(runs, by)
    baseline = _checked(baseline or {}, by, runs)
    wanted = {name: _dense(name, runs, known, baseline) for name in by}
    every = conditions(runs, by)
    dense = [one for one in every if all(v in wanted[name] for name, v in one.values.items())]
    if len(dense) != 1:
        example = written(every[0].values, ",")
        raise UserError(
            f"{runs.source}: none of its {len(every)} conditions is the dense one to measure by; "
            f"name it with --baseline={example}"
        )
    at = every.index(dense[0])
    every = _whole(every, by, at)
    measure = every[at]
    others = [one for one in every if one is not measure]
    for one in others:
        if why := incomparable(one, measure, by):
            raise UserError(f"{runs.source}: {why}")
    said = [
        f"{written_as(one.values, measure.values)}: {doubt}"
        for one in others
        for doubt in (confounds(one, measure, by), searched(one, measure))
        if doubt
    ]
    best, *rest = (Condition(one.values, one.runs.best()) for one in (measure, *others))
    return Panel(runs, tuple(by), best, tuple(rest), tuple(said))


def _whole(every: Sequence[Condition], by: Sequence[str], dense: int) -> list[Condition]:
    """The conditions with every column named in which one differs from the dense one.

    What tells conditions apart may leave one out: a run with a teacher and with noise is the only
    one with that teacher.
    """
    whole = [
        {name: str(one.runs.condition_labels(name)[0]) for name in by if name in one.runs.labels}
        for one in every
    ]
    added = [n for n in by if any(v.get(n) != whole[dense].get(n) for v in whole)]
    return [
        replace(one, values={**one.values, **{n: values[n] for n in added if n in values}})
        for one, values in zip(every, whole, strict=True)
    ]


def is_panel(runs: Runs) -> bool:
    """Whether techniques are all that tells the conditions of a table apart, one is dense, and
    the losses are of one unit.
    """
    off, runs = techniques.dense_columns(), of_one_text(runs)
    by = [name for name in off if name in runs.labels]
    names = table.distinguishing(runs, by)
    dense = {name: label(off[name]) for name in names if name in off}
    if not names or len(dense) != len(names):
        return False
    every = conditions(runs, by)
    measure = next((one for one in every if dict(one.values) == dense), None)
    return measure is not None and not any(incomparable(one, measure, by) for one in every)


def of_one_text(runs: Runs) -> Runs:
    """Without the runs of a text from which those of another text begin, by the column `needs`.

    Their losses are of other passages, and compare with none.
    """
    if not {TEXT, _NEEDS} <= {*runs.labels}:
        return runs
    text_R = held_out(runs.labels[TEXT])
    text_of = dict(zip(runs.run_id_R, text_R, strict=True))
    begun = zip(runs.labels[_NEEDS], text_R, strict=True)
    others = {text_of.get(name, own) for names, own in begun for name in names.split()} - {
        own for own, names in zip(text_R, runs.labels[_NEEDS], strict=True) if names
    }
    other_R = np.isin(text_R, [*others])
    if not other_R.any():
        return runs
    said = (
        f"{other_R.sum()} rows are of a text from which runs of another begin: they are left out "
        "of the league table, whose losses are of one held-out text"
    )
    return replace(restricted(runs, ~other_R, {}), notes=(*runs.notes, said))


def _columns(runs: Runs) -> list[str]:
    if BY in runs.labels:
        return [BY]
    found = [name for name in techniques.dense_columns() if len(set(runs.labels.get(name, ()))) > 1]
    if not found:
        _none_picked(runs, (), {})
        raise UserError(
            f"--by={BY}: no run of {runs.source} has a technique on; of a column of another table "
            "say --by=COLUMN --baseline=COLUMN=VALUE"
        )
    return found


def _none_picked(runs: Runs, by: Sequence[str], baseline: Mapping[str, str]) -> None:
    """Raises UserError where --where left no dense run."""
    off = {name: (label(value),) for name, value in techniques.dense_columns().items()}
    left = {
        name: value
        for name, value in runs.picked.items()
        if name in (by or off) and name not in baseline
        if value.lower() not in off.get(name, DENSE)
    }
    if left:
        raise UserError(
            f"--where={written(left, ',')}: no dense run is left to measure the others by; "
            f"--by={BY} needs both"
        )


def _checked(baseline: Mapping[str, str], by: Sequence[str], runs: Runs) -> dict[str, str]:
    """`baseline` by columns of `by`, each with a value that runs have."""
    found = table.by_column(baseline, by)
    for name, value in found.items():
        if name not in by:
            raise UserError(
                f"--baseline={name}={value}: '{name}' is no column of --by"
                f"{nearest(name, list(by))} (there are {', '.join(by)})"
            )
        if not {label(value), "" if value == "none" else value} & {*map(str, runs.labels[name])}:
            raise UserError(
                f"--baseline={name}={value}: no run has it; {name} is {table.listed(runs, name)}"
            )
    return found


def _dense(
    name: str, runs: Runs, known: Mapping[str, object], baseline: Mapping[str, str]
) -> tuple[str, ...]:
    """The labels that a column has in the dense condition."""
    if name in baseline:
        value = baseline[name]
        return (label(value), "" if value == "none" else value)
    if name in known:
        return (label(known[name]),)  # type: ignore[arg-type]
    return tuple(v for v in set(map(str, runs.labels[name])) if v.lower() in DENSE)


def technique_of(column: str) -> tuple[str, str]:
    """The technique that a column is of and its field; a foreign column is one of its own."""
    for technique in techniques.TECHNIQUES:
        if column in technique.known:
            return technique.name, column.removeprefix(f"{technique.name}_")
    return column, ""


def written_as(condition: Mapping[str, str], dense: Mapping[str, str]) -> str:
    """The values that differ from the dense ones, each technique in its words."""
    found: dict[str, dict[str, str]] = {}
    for column, value in condition.items():
        if value != dense.get(column):
            name, field = technique_of(column)
            found.setdefault(name, {})[field] = value or "none"
    known = {technique.name: technique for technique in techniques.TECHNIQUES}
    return " + ".join(
        known[name].described(fields)
        if name in known and "" not in fields  # a foreign column may be called like a technique
        else " ".join(filter(None, [name * (name != BY), *fields.values()]))
        for name, fields in found.items()
    )


def parts_of(whole: Mapping[str, str], every: Sequence[Mapping[str, str]],
             dense: Mapping[str, str]) -> list[int]:  # fmt: skip
    """The conditions of which `whole` is a stack, each of its techniques alone; or none."""
    names = list(dict.fromkeys(technique_of(c)[0] for c, v in whole.items() if v != dense.get(c)))
    if len(names) < 2:
        return []
    found = []
    for name in names:
        alone = {c: v if technique_of(c)[0] == name else dense[c] for c, v in whole.items()}
        match = [i for i, other in enumerate(every) if dict(other) == alone]
        if not match:
            return []
        found.append(match[0])
    return found
