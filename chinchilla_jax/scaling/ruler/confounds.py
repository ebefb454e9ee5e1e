"""What differs between a technique's runs and the dense ones besides the technique."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from chinchilla_jax import techniques
from chinchilla_jax.scaling.table.conditions import Condition
from chinchilla_jax.scaling.table.kinds import codes, is_numeric, joint, words
from chinchilla_jax.scaling.table.metrics import metric_of
from chinchilla_jax.scaling.table.partners import partners
from chinchilla_jax.scaling.table.runs import Runs

_TOKENIZER = re.compile(r"\b(tokeni[sz]ers?|vocab|vocabulary)\b")
TEXT = "data_fingerprint"
_WINDOWS = re.compile(r"\beval(uation)? windows\b")


def held_out(fingerprint_R: np.ndarray) -> np.ndarray:
    """Of the corpus whose held-out part a loss is of, without those that it is mixed with."""
    return np.array([text.partition("+")[0] for text in fingerprint_R])


def incomparable(one: Condition, dense: Condition, by: Sequence[str]) -> str | None:
    """Why the losses of two conditions are not of one unit; None where they may be."""
    per_byte = "byte" in metric_of(dense.runs.title.get("loss", ""))
    for name, (theirs, ours) in _differing(one, dense, by).items():
        tokenizer = _TOKENIZER.search(words(name)) and not per_byte
        if theirs and ours and (tokenizer or _WINDOWS.search(words(name))):
            unit = "per token of two tokenizers" if tokenizer else "on two sets of windows"
            return (
                f"{name} is {theirs} in runs of {one.title} and {ours} in the dense ones: losses "
                f"{unit} do not compare, so no multiplier is told"
            )
    return None


def confounds(one: Condition, dense: Condition, by: Sequence[str]) -> str | None:
    """The columns besides `by` in which all runs of a technique differ from the dense ones."""
    differing = _differing(one, dense, by)
    if not differing:
        return None
    each = (f"{n} ({a or 'none'}, dense {b or 'none'})" for n, (a, b) in differing.items())
    return f"its runs differ from the dense ones in {', '.join(each)} too, which its multiplier has"


def searched(one: Condition, dense: Condition) -> str | None:
    """That a technique's cells are the best of more settings than their dense partners' are."""
    share, _ = partners(one.runs, dense.runs)
    tried_R, dense_S = _tried(one.runs), _tried(dense.runs)
    beside_R = np.where(share > 0, dense_S, 0).max(axis=1, initial=0)
    more_R = (beside_R > 0) & (tried_R > beside_R)
    if not more_R.any():
        return None
    row = int(np.argmax(np.where(more_R, tried_R - beside_R, -1)))
    return (
        f"the best of {tried_R[row]} settings counts in a cell of its runs, and of "
        f"{beside_R[row]} in the dense one beside it: a part of its multiplier is that search"
    )


def _tried(runs: Runs) -> np.ndarray:
    """How many settings were tried in the cell of each run."""
    cell_R = joint(runs.cell_R())
    setting_R = joint(cell_R, *(codes(runs.labels[name]) for name in runs.names("setting")))
    cell_of = np.zeros(int(setting_R.max()) + 1, np.int64)
    cell_of[setting_R] = cell_R
    return np.asarray(np.bincount(cell_of)[cell_R])


def _differing(one: Condition, dense: Condition, by: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Values of both in the conditions and the settings in words in which they never agree."""
    ours = techniques.dense_columns()
    found = {}
    for name in (*one.runs.names("condition"), *one.runs.names("setting")):
        if name in by or name in ours:
            continue
        a, b = (c.runs.condition_labels(name) for c in (one, dense))
        if name == TEXT:
            a, b = map(held_out, (a, b))
        if name in one.runs.names("setting") and is_numeric(np.concatenate([a, b])):
            continue
        if not {*map(str, a)} & {*map(str, b)}:
            found[name] = (str(a[0]), str(b[0]))
    return found
