"""Which dense run belongs to a run of a technique: of the same size, tokens, seed and text.

Runs that share seed and order of the text share most of their noise, and runs of one cell what the
law misses of it. So of the miss of a run of a technique that of its dense partner is taken off,
wholly or in part (`multiplier.correlated`).

Array suffixes: R rows of the technique, S dense rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.table.cells import cell_index
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.kinds import Codes
from chinchilla_jax.scaling.table.runs import Runs

APART = float(np.log(1.1))  # sizes nearer than this are one: shapes of equal parameters
_SAME = 1e-3  # of ln tokens
_SIZES = ("params_total", "params_active")  # of which one is the planned size


@dataclass(frozen=True)
class Pairs:
    """The dense partners of a technique's rows.

    `share_RxS` averages over the dense runs of a row's cell, or takes the one of its seed; rows of
    zeros have no partner. `params_R` and `flops_R` are those of the dense run at the row's place.
    """

    share_RxS: Floats
    seeded_R: Bools  # the partner has the seed of the row
    cell_R: Codes  # the cell in which the row stands
    params_R: Floats
    flops_R: Floats

    @property
    def paired_R(self) -> Bools:
        return np.asarray(self.share_RxS.any(axis=1))


def pairs(rows: Runs, dense: Runs) -> Pairs:
    """Finds them by budget and tokens, then the nearest size, then the seed."""
    same = np.abs(np.log(rows.tokens)[:, None] - np.log(dense.tokens)) < _SAME
    if "budget" in rows.columns and "budget" in dense.columns:
        one, other = rows.columns["budget"], dense.columns["budget"]
        same &= np.isclose(one[:, None], other, equal_nan=True)
    apart = np.min([_apart(rows, dense, name) for name in ("", *_SIZES)], axis=0)
    apart = np.where(same, apart, np.inf)
    nearest_R = apart.min(axis=1)
    in_cell = (nearest_R < APART)[:, None] & (apart <= nearest_R[:, None] + _SAME)
    seeded = in_cell & _same_seed(rows, dense)
    seeded_R = seeded.any(axis=1)
    chosen = np.where(seeded_R[:, None], seeded, in_cell).astype(float)
    count_R = chosen.sum(axis=1)
    share = chosen / np.maximum(count_R, 1)[:, None]
    found_R = count_R > 0
    params_R = np.where(found_R, share @ dense.params, _own_size(rows))
    own_flops = _predicted_flops(dense, params_R, rows.tokens)
    return Pairs(
        share_RxS=share,
        seeded_R=seeded_R,
        cell_R=np.asarray(cell_index(params_R, rows.tokens), np.int64),
        params_R=params_R,
        flops_R=np.where(found_R, share @ dense.flops, own_flops),
    )


def _apart(rows: Runs, dense: Runs, name: str) -> Floats:
    """|ln| between sizes of rows and dense runs, [R, S]; `name` "" is what is fitted."""
    if name and (name not in rows.columns or name not in dense.columns):
        return np.full((len(rows), len(dense)), np.inf)
    own, other = (runs.columns[name] if name else runs.params for runs in (rows, dense))
    return np.asarray(np.nan_to_num(np.abs(np.log(own)[:, None] - np.log(other)), nan=np.inf))


def _own_size(rows: Runs) -> Floats:
    active = rows.columns.get("params_active")
    return np.asarray(rows.params if active is None else np.where(active > 0, active, rows.params))


def _predicted_flops(dense: Runs, params_R: Floats, tokens_R: Floats) -> Floats:
    cost = FlopsModel.of(dense.params, dense.tokens, dense.flops)
    return np.asarray(cost.flops(params_R, tokens_R))


def _same_seed(rows: Runs, dense: Runs) -> Bools:
    """Whether all columns of seeds are equal, [R, S]; False where there is none."""
    names = dense.names("seed") or [dense.title[n] for n in ("seed",) if n in dense.title]
    equal = [rows.labels[name][:, None] == dense.labels[name] for name in names]
    return np.asarray(np.all(equal, axis=0) & bool(equal)) & np.ones((len(rows), len(dense)), bool)


def clusters(cell_R: Codes, least: int) -> Codes:
    """What is resampled: cells, where there are `least` of them, else runs."""
    _, number_R = np.unique(cell_R, return_inverse=True)
    cells = int(number_R.max()) + 1
    return np.asarray(number_R if cells >= least else np.arange(len(cell_R)), np.int64)
