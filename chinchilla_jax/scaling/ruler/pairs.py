"""Runs of a technique beside their dense partners, and what is resampled of them.

Runs that share seed and order of the text share most of their noise, and runs of one cell what the
law misses of it. So of the miss of a run of a technique that of its dense partner is taken off,
wholly or in part (`multiplier.correlated`).

Array suffixes: R rows of the technique, S dense rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.table.cells import cell_index
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.kinds import Codes
from chinchilla_jax.scaling.table.partners import OF_A_BUDGET, partners
from chinchilla_jax.scaling.table.runs import Runs


@dataclass(frozen=True)
class Pairs:
    """The dense partners of a technique's rows.

    `share_RxS` averages over the dense runs of a row's cell, or takes the one of its seed; rows of
    zeros have no partner. `params_R`, `tokens_R` and `flops_R` are those of the dense run at the
    row's place: a shape may leave a budget more or fewer tokens.
    """

    share_RxS: Floats
    seeded_R: Bools  # the partner has the seed of the row
    cell_R: Codes  # the cell in which the row stands
    params_R: Floats
    tokens_R: Floats
    flops_R: Floats

    @property
    def paired_R(self) -> Bools:
        return np.asarray(self.share_RxS.any(axis=1))


def pairs(rows: Runs, dense: Runs) -> Pairs:
    """Those of `table.partners`, with the size and the cost of the dense run."""
    share, seeded_R = partners(rows, dense, OF_A_BUDGET)
    found_R = share.any(axis=1)
    params_R = np.where(found_R, share @ dense.params, _own_size(rows))
    tokens_R = np.where(found_R, share @ dense.tokens, rows.tokens)
    own_flops = _predicted_flops(dense, params_R, rows.tokens)
    return Pairs(
        share_RxS=share,
        seeded_R=seeded_R,
        cell_R=np.asarray(cell_index(params_R, tokens_R), np.int64),
        params_R=params_R,
        tokens_R=tokens_R,
        flops_R=np.where(found_R, share @ dense.flops, own_flops),
    )


def _own_size(rows: Runs) -> Floats:
    active = rows.columns.get("params_active")
    return np.asarray(rows.params if active is None else np.where(active > 0, active, rows.params))


def _predicted_flops(dense: Runs, params_R: Floats, tokens_R: Floats) -> Floats:
    cost = FlopsModel.of(dense.params, dense.tokens, dense.flops)
    return np.asarray(cost.flops(params_R, tokens_R))


def places(found: Pairs) -> list[tuple[float, float]]:
    """The dense size and tokens of each row, equal in one cell of whatever technique."""
    sizes = zip(found.params_R, found.tokens_R, strict=True)
    return [(float(f"{n:.6g}"), float(f"{d:.6g}")) for n, d in sizes]


def cells_apart(labels: Sequence[str], found: Sequence[Pairs]) -> tuple[str, ...]:
    """A sentence where techniques stand on different cells, and none where they do not."""
    cells = [{*places(each)} for each in found]
    if all(one == cells[0] for one in cells):
        return ()
    each = ", ".join(f"{name} {len(own)}" for name, own in zip(labels, cells, strict=True))
    return (
        f"techniques stand on different cells, of {len(set.union(*cells))} in all: {each}; their "
        "multipliers compare where a trend over N and D is excluded",
    )


def clusters(cell_R: Codes, least: int, trunk_R: Codes | None = None) -> Codes:
    """What is resampled: cells, where there are `least` of them, else runs.

    Runs of one trunk scatter together: cells that share one are one, and runs of one, too.

    Args:
      trunk_R: the number of each run's trunk; None where each run is its own.
    """
    number_R = joined(cell_R, trunk_R)
    if int(number_R.max()) + 1 < least:
        number_R = np.arange(len(cell_R)) if trunk_R is None else trunk_R
        _, number_R = np.unique(number_R, return_inverse=True)
    return np.asarray(number_R, np.int64)


def joined(cell_R: Codes, trunk_R: Codes | None) -> Codes:
    """Numbers of cells, from 0, those with runs of one trunk as one."""
    _, number_R = np.unique(cell_R, return_inverse=True)
    if trunk_R is None:
        return np.asarray(number_R, np.int64)
    groups = [np.unique(codes_R, return_inverse=True)[1] for codes_R in (trunk_R, number_R)]
    before_R = np.full_like(number_R, -1)
    while (number_R != before_R).any():  # each group takes the least number in it
        before_R = number_R
        for group_R in groups:
            least = np.full(int(group_R.max()) + 1, len(number_R))
            np.minimum.at(least, group_R, number_R)
            number_R = least[group_R]
    return np.asarray(np.unique(number_R, return_inverse=True)[1], np.int64)


def trunks_of(*tables: Runs) -> Codes | None:
    """`trunk_R` of the runs of several tables behind one another; None where none has trunks."""
    found = [runs.trunk_R() for runs in tables]
    if all(trunk_R is None for trunk_R in found):
        return None
    numbers, first = [], 0
    for runs, trunk_R in zip(tables, found, strict=True):
        number_R = np.arange(len(runs)) if trunk_R is None else trunk_R
        numbers.append(first + number_R)
        first += int(number_R.max(initial=-1)) + 1
    return np.concatenate(numbers)
