"""Which dense run belongs to a run of a technique: of the same size, tokens, seed and text.

Array suffixes: R rows of the technique, S dense rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.table.columns import label
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.techniques.law import DENSE_LOSS

_APART = float(np.log(1.1))  # sizes nearer than this are one: shapes of equal parameters
_SAME = 1e-3  # of ln tokens
# Of ln tokens that one budget buys for two shapes of equal parameters.
OF_A_BUDGET = float(np.log(1.25))
_SIZES = ("params_total", "params_active")  # of which one is the planned size


def partners(rows: Runs, dense: Runs, tokens_apart: float = _SAME) -> tuple[Floats, Bools]:
    """Finds them by budget and tokens, then the nearest size, then the seed.

    Args:
      tokens_apart: how far ln tokens of runs of one budget may differ, where none has the same.

    Returns:
      share_RxS: averages over the dense runs of a row's cell, or takes the one of its seed; rows
        of zeros have no partner.
      seeded_R: whether the partner has the seed of the row.
    """
    longer = np.abs(np.log(rows.tokens)[:, None] - np.log(dense.tokens))
    same = longer < _SAME
    apart = np.min([_apart(rows, dense, name) for name in ("", *_SIZES)], axis=0)
    if "budget" in rows.columns and "budget" in dense.columns:
        one, other = rows.columns["budget"], dense.columns["budget"]
        same &= np.isclose(one[:, None], other, equal_nan=True)
        bought = np.isclose(one[:, None], other) & (longer < tokens_apart)
        alone_R = ~np.any(same & (apart < _APART), axis=1)
        same |= alone_R[:, None] & bought
    apart = np.where(same, apart, np.inf)
    nearest_R = apart.min(axis=1)
    in_cell = (nearest_R < _APART)[:, None] & (apart <= nearest_R[:, None] + _SAME)
    seeded = in_cell & _same_seed(rows, dense)
    seeded_R = seeded.any(axis=1)
    chosen = np.where(seeded_R[:, None], seeded, in_cell).astype(float)
    return chosen / np.maximum(chosen.sum(axis=1), 1)[:, None], seeded_R


def with_dense_loss(runs: Runs, off: Mapping[str, Any]) -> Runs:
    """With the column `dense_loss` of the runs of a technique, NaN where there is no partner.

    A partner differs in no condition but the technique's own, and is the best setting of its cell;
    without one of the row's seed it is the mean over seeds, in ln loss. Dense rows have none.

    Args:
      off: the technique's columns with their values in a run without it.
    """
    known = [name for name in off if name in runs.labels]
    dense_R = np.full(len(runs), bool(known))
    for name in known:
        dense_R &= runs.labels[name] == label(off[name])
    condition_R = runs.condition_R(off)
    loss_R = np.full(len(runs), np.nan)
    for condition in np.unique(condition_R[dense_R]):
        here = condition_R == condition
        dense, taken = runs.select(here & dense_R).best(), here & ~dense_R
        share_RxS, _ = partners(runs.select(taken), dense)
        found_R = share_RxS.any(axis=1)
        loss_R[taken] = np.where(found_R, np.exp(share_RxS @ np.log(dense.loss)), np.nan)
    return replace(runs, columns={**runs.columns, DENSE_LOSS: loss_R})


def _apart(rows: Runs, dense: Runs, name: str) -> Floats:
    """|ln| between sizes of rows and dense runs, [R, S]; `name` "" is what is fitted."""
    if name and (name not in rows.columns or name not in dense.columns):
        return np.full((len(rows), len(dense)), np.inf)
    own, other = (runs.columns[name] if name else runs.params for runs in (rows, dense))
    return np.asarray(np.nan_to_num(np.abs(np.log(own)[:, None] - np.log(other)), nan=np.inf))


def _same_seed(rows: Runs, dense: Runs) -> Bools:
    """Whether all columns of seeds are equal, [R, S]; False where there is none."""
    names = dense.names("seed") or [dense.title[n] for n in ("seed",) if n in dense.title]
    equal = [rows.labels[name][:, None] == dense.labels[name] for name in names]
    return np.asarray(np.all(equal, axis=0) & bool(equal)) & np.ones((len(rows), len(dense)), bool)
