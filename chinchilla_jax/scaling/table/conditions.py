"""Conditions of a table: naming them, picking one, and the runs of each as a table of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.arrays import Bools
from chinchilla_jax.scaling.table.cells import budgets
from chinchilla_jax.scaling.table.checks import doubts
from chinchilla_jax.scaling.table.columns import label, spelling
from chinchilla_jax.scaling.table.kinds import ASKED, OTHER_LOSS, codes, joint, names_a_text
from chinchilla_jax.scaling.table.runs import Runs

_SHOWN = 6  # values of a column in a message
_EMPTY = "none"  # an empty cell in a message or a flag
_FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Condition:
    """The runs of one condition, and the values of the columns that tell it from the others."""

    values: Mapping[str, str]
    runs: Runs

    @property
    def title(self) -> str:
        """optimizer=adamw, bits=4."""
        return written(self.values)


def distinguishing(runs: Runs, first: Sequence[str] = ()) -> list[str]:
    """The condition columns that are needed to tell the conditions of `runs` apart.

    The columns `first` are asked first, then always the one that tells most apart, a fingerprint
    after a name that says as much; those that add nothing are left out.
    """
    others = [name for name in runs.names("condition") if name not in first]
    others.sort(key=lambda name: _FINGERPRINT in name)
    code_R = {name: codes(runs.condition_labels(name)) for name in (*first, *others)}
    kept: list[str] = []
    seen_R = joint(np.zeros(len(runs), np.int64))
    for names in (*([name] for name in first), *[others] * len(others)):
        finer = {name: joint(seen_R, code_R[name]) for name in names}
        best = max(names, key=lambda name: finer[name].max())
        if finer[best].max() > seen_R.max():
            kept.append(best)
            seen_R = finer[best]
    return kept


def conditions(runs: Runs, first: Sequence[str] = ()) -> list[Condition]:
    """Every condition with its runs, in the order of their values; one where nothing differs."""
    names = distinguishing(runs, first)
    if not names:
        return [Condition({}, runs)]
    condition_R = runs.condition_R()
    found = []
    for code in np.unique(condition_R):
        here = condition_R == code
        row = int(np.argmax(here))
        values = {name: str(runs.condition_labels(name)[row]) for name in names}
        found.append(Condition(values, restricted(runs, here, values)))
    return sorted(found, key=lambda one: [_rank(value) for value in one.values.values()])


def restricted(runs: Runs, keep_R: Bools, values: Mapping[str, str]) -> Runs:
    """The runs of `keep_R` as if the table held no others: budgets and doubts are theirs."""
    part = replace(runs.select(keep_R), picked={**runs.picked, **values})
    group_R, budget_G, source = budgets(part.flops, part.columns.get("budget"))
    part = replace(part, group_R=group_R, budget_G=budget_G, budgets_from=source)
    return replace(part, doubts=doubts(part))


def where(runs: Runs, asked: Mapping[str, str]) -> Runs:
    """The runs whose columns have the values asked for; numbers compare as numbers.

    Raises:
      UserError: no such column, or no run with that value.
    """
    if not asked:
        return runs
    asked = by_column(asked, list(runs.labels))
    keep_R = np.ones(len(runs), bool)
    for name, value in asked.items():
        _must_exist("where", name, runs)
        labels = runs.labels[name]
        if name in runs.names("condition") and value in runs.condition_labels(name):
            labels = runs.condition_labels(name)
        alike = [text for text in dict.fromkeys(labels) if spelling(text) == spelling(label(value))]
        same = np.isin(labels, alike)
        if value == _EMPTY:
            same |= labels == ""
        if not same.any():
            raise UserError(
                f"--where={name}={value}: no run has it; {name} is {listed(runs, name)}"
            )
        keep_R &= same
    if not keep_R.any():
        raise UserError(f"--where={written(asked, ',')}: no run has all of it")
    return restricted(runs, keep_R, {name: label(value) for name, value in asked.items()})


def by(runs: Runs, names: Sequence[str]) -> Runs:
    """`runs` with the columns `names` among the conditions, whatever they were taken for.

    Raises:
      UserError: no such column, one that is fitted, one that is the same in all runs, or runs that
        differ in another condition too.
    """
    kinds = dict(runs.kinds)
    for i, name in enumerate(names):
        _must_exist("by", name, runs)
        if name in names[:i]:
            raise UserError(f"--by: {name} is given twice")
        if kinds[name].reason == ASKED and kinds[name].kind != "condition":
            raise UserError(
                f"--kinds={name}={kinds[name].kind} and --by={name} contradict each other: what is "
                "compared is a condition; leave out one of them"
            )
        if kinds[name].kind == "fitted":
            raise UserError(f"--by={name}: it is fitted, and no condition")
        if kinds[name].kind != "condition":
            of = f": {OTHER_LOSS}" if names_a_text(name) else ""
            kinds[name] = replace(kinds[name], kind="condition", reason=f"asked for by --by{of}")
    runs = replace(runs, kinds=kinds)
    runs = replace(runs, doubts=doubts(runs))
    needed = distinguishing(runs, names)
    if names and not needed:
        raise UserError(f"--by={items(names)}: the same in all runs, nothing to compare")
    others = [name for name in needed if name not in names]
    if others:
        raise UserError(
            f"--by={items(names)}: the runs of one such condition also differ in "
            f"{_columns(others, runs)}: add {_it(others)} to --by, or pick with "
            f"--where={_example(others, runs)}"
        )
    return runs


def choice(runs: Runs, compares: bool = True) -> str:
    """One line: which columns tell conditions apart, their values, and the flags that choose.

    Args:
      compares: whether --by is to be had.
    """
    names = distinguishing(runs)
    compared = f"--by={items(names)} compares them, " if compares else ""
    return (
        f"{_columns(names, runs)} {'tells' if len(names) == 1 else 'tell'} "
        f"{len(np.unique(runs.condition_R()))} conditions apart, and no law is fitted across them: "
        f"{compared}--where={_example(names, runs)} picks one"
    )


def written(values: Mapping[str, str], between: str = ", ") -> str:
    """optimizer=adamw, bits=4; as --where takes it with a comma `between`."""
    each = [f"{name}={value or _EMPTY}" for name, value in values.items()]
    return between.join(each) if between != "," else items(each)


def by_column(asked: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """What was split at its first `=`, split behind the longest name of a column instead."""
    found = {}
    for name, value in asked.items():
        text = f"{name}={value}"
        longest = max((n for n in names if text.startswith(f"{n}=")), key=len, default=name)
        found[longest] = text[len(longest) + 1 :]
    return found


def listed(runs: Runs, name: str) -> str:
    """The values of a column, the first few of many."""
    labels = runs.condition_labels(name) if name in runs.names("condition") else runs.labels[name]
    values = sorted(set(labels), key=_rank)
    shown = ", ".join(str(value) or _EMPTY for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _columns(names: Sequence[str], runs: Runs) -> str:
    each = ", ".join(f"{name} ({listed(runs, name)})" for name in names)
    return f"column{'s' * (len(names) > 1)} {each}"


def _example(names: Sequence[str], runs: Runs) -> str:
    """Values of the condition that has the most runs."""
    condition_R = joint(*(codes(runs.condition_labels(name)) for name in names))
    most = int(np.bincount(condition_R).argmax())
    row = int(np.argmax(condition_R == most))
    return written({name: str(runs.condition_labels(name)[row]) for name in names}, ",")


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _must_exist(flag: str, name: str, runs: Runs) -> None:
    if name not in runs.labels:
        comma = next((label for label in runs.labels if "," in label), None)
        hint = f"; one with a comma in it is quoted: --{flag}={items([comma])}" if comma else ""
        raise UserError(
            f"--{flag}={name}: no column '{name}'{nearest(name, list(runs.labels))} "
            f"(there are {', '.join(runs.labels)}){hint}"
        )


def _rank(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)


def lost_to(runs: Runs) -> dict[int, str]:
    """Runs, by their index, whose settings another one of their cell beat, and those settings."""
    best_R, cell_R = runs.best_R(), runs.tried_cell_R()
    winner = {int(cell_R[i]): int(i) for i in np.flatnonzero(best_R)}
    found = {}
    for i in np.flatnonzero(~best_R):
        other = winner[int(cell_R[i])]
        better = {
            name: str(runs.labels[name][other])
            for name in runs.names("setting")
            if runs.labels[name][other] != runs.labels[name][i]
        }
        found[int(i)] = f"{written(better)} did better in this cell"
    return found
