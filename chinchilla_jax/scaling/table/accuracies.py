"""Which columns of a table are accuracies on tasks, and which are the losses of those tasks."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.kinds import words
from chinchilla_jax.scaling.table.runs import Runs

# Of several metrics of a task the first counts.
_ACCURACIES = ("len norm", "acc norm", "accuracy", "acc", "exact match", "core metric",
               "core score", "core")  # fmt: skip
_ERRORS = ("error rate", "error", "err")
_LOSSES = ("bits per byte", "bpb", "ce loss", "nll", "loss")
_NEITHER = re.compile(r"\b(std ?err|std|se|train|soft|grad|spikes?|aux|max|min|speed)\b")
# What a metric's name says besides its task.
_BESIDE = re.compile(
    r"\b(eval|evaluation|downstream|summary|results?|none|metrics?|"
    rf"percent|pct|{'|'.join(_ACCURACIES + _ERRORS + _LOSSES)})\b"
)
# Whoever guesses is right so often: tasks of as many choices each.
_CHANCE = (
    (r"boolq|piqa|winogrande|wsc|copa|rte|wic|qnli", 1 / 2),
    (r"social ?i ?qa|siqa", 1 / 3),
    (r"arc|hellaswag|openbook ?qa|obqa|mmlu|sciq|race|logiqa|medmcqa", 1 / 4),
    (r"csqa|commonsense ?qa|mathqa", 1 / 5),
)
_TASKS = 40  # that are looked at


@dataclass(frozen=True)
class TaskColumns:
    """A task: the file's names of its accuracy (or error) and of its loss, None where it has none.

    `accuracy_R` is a share, 0 to 1, NaN where it was not measured; `error` says that the column
    holds what is wrong. `chance` is 0 where it is not known.
    """

    name: str
    accuracy: str
    error: bool
    loss: str | None
    chance: float
    accuracy_R: Floats


def tasks(runs: Runs) -> list[TaskColumns]:
    """Every task of the table, in its order."""
    names = _measured(runs)
    losses = _best(names, _LOSSES)
    found = []
    right, wrong = _best(names, _ACCURACIES), _best(names, _ERRORS)
    for stem in dict.fromkeys([*right, *wrong]):
        error = stem not in right
        name = (wrong if error else right)[stem]
        share_R = _share(runs.columns[name])
        if share_R is not None:
            share_R = 1 - share_R if error else share_R
            loss = losses.get(stem)
            known = 0.0 if error else _chance(stem)
            called = stem if re.search("[a-z]{2}", stem) else name
            found.append(TaskColumns(called, name, error, loss, known, share_R))
    return found[:_TASKS]


def left_out(runs: Runs) -> list[str]:
    """What is named an accuracy and is none, in one line."""
    taken = {task.accuracy for task in tasks(runs)}
    odd = [
        f"'{name}' ({np.nanmin(values_R):.3g} to {np.nanmax(values_R):.3g})"
        for name in _best(_measured(runs), _ACCURACIES).values()
        if name not in taken and np.isfinite(values_R := runs.columns[name]).any()
        and _share(values_R) is None
    ]  # fmt: skip
    if not odd:
        return []
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    return [
        f"no accuracy is forecast of {', '.join(odd[:3])}{more}: an accuracy is a share of 1, or "
        "percent"
    ]


def _measured(runs: Runs) -> list[str]:
    """The columns that may be accuracies of tasks or their losses."""
    return [
        name
        for name, column in runs.kinds.items()
        if column.kind == "outcome" and name in runs.columns and not _NEITHER.search(words(name))
    ]


def _best(names: Iterable[str], metrics: tuple[str, ...]) -> dict[str, str]:
    """Task -> the column of the first of `metrics` that it has."""
    ranked: dict[str, tuple[int, str]] = {}
    for name in names:
        spoken = words(name)
        rank = next((i for i, m in enumerate(metrics) if re.search(rf"\b{m}\b", spoken)), None)
        if rank is not None:
            stem = " ".join(_BESIDE.sub(" ", spoken).split())
            if stem not in ranked or rank < ranked[stem][0]:
                ranked[stem] = (rank, name)
    return {stem: name for stem, (_, name) in ranked.items()}


def _share(values_R: Floats) -> Floats | None:
    """As shares of 1; None for what is neither a share nor percent."""
    known = values_R[np.isfinite(values_R)]
    if not len(known) or known.min() < 0 or known.max() > 100:
        return None
    return values_R if known.max() <= 1 else values_R / 100


def _chance(task: str) -> float:
    return next((share for pattern, share in _CHANCE if re.search(rf"\b({pattern})", task)), 0.0)
