"""Replicates that are none: what nobody counts tells them apart, the same way in every cell."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.kinds import Codes, Labels, codes, differs, is_numeric
from chinchilla_jax.scaling.table.runs import Runs

_SURE = 1e-6  # probability of as much by chance
_LEAST = 0.002  # of the loss: less is not worth a word
_VALUES = 12  # of a column or of a piece of names, at most
_SHOWN = 4
_PIECES = 8  # of a run's name that are looked at
_A_SEED = re.compile(r"^(s|seed|rep|run|r)?\d*$")


def unlike(runs: Runs) -> list[str]:
    """A sentence for what tells replicates apart whose losses differ systematically by it."""
    cell_R = runs.cell_R()
    several_R = np.bincount(cell_R)[cell_R] > 1
    if several_R.sum() < 6:
        return []
    cell_S = np.unique(cell_R[several_R], return_inverse=True)[1].ravel()
    log_loss_S = np.log(runs.loss[several_R])
    said = []
    for name, label_R in _candidates(runs):
        label_S = label_R[several_R]
        value_S = codes(label_S)
        if not 1 < value_S.max() + 1 <= _VALUES or not differs(value_S, cell_S):
            continue
        spread = _spread(log_loss_S, cell_S, value_S)
        if spread < _LEAST:
            continue
        values = list(dict.fromkeys(label_S))
        shown = ", ".join(map(str, values[:_SHOWN])) + ", ..." * (len(values) > _SHOWN)
        what = f"column '{name}'" if name else "a part of the runs' names"
        flag = (
            f"--by={items([name])} compares them" if name else "a column of it would compare them"
        )
        said.append(
            f"{what} ({shown}) tells runs of one cell apart, and by it their losses differ by "
            f"{100 * spread:.2g} % whatever the size: they are no replicates; {flag}"
        )
    return said[:_SHOWN]


def _candidates(runs: Runs) -> Iterator[tuple[str, Labels]]:
    """Columns that identify runs or say where they ran, and the pieces of names ("")."""
    for name, column in runs.kinds.items():
        measured = column.kind == "outcome" and _is_measured(runs.labels[name])
        ran = "where it ran" in column.reason
        if column.kind in ("identifier", "outcome") and (ran or not measured):
            yield name, runs.labels[name]
    if "run_id" in runs.title:
        split = [re.split(r"[^A-Za-z0-9.]+", name)[:_PIECES] for name in runs.run_id_R]
        for i in range(max(map(len, split))):
            pieces = [parts[i] if i < len(parts) else "" for parts in split]
            if not all(map(_A_SEED.match, pieces)):
                yield "", np.array(pieces, np.str_)


def _is_measured(label_R: Labels) -> bool:
    """Whether labels are numbers that nobody chose: few whole ones may stand for texts."""
    several = [float(label) for label in {*label_R} if label] if is_numeric(label_R) else []
    return len(several) > _VALUES or any(not number.is_integer() for number in several)


def _spread(log_loss_S: Floats, cell_S: Codes, value_S: Codes) -> float:
    """How far apart the values lie in ln loss beside their cells; 0 unless that is no chance.

    An F-test of the values' effects in ln loss, both centred on their cells.
    """
    from scipy import special

    def centred(x_SxK: Floats) -> Floats:
        count_C = np.bincount(cell_S)
        mean = [np.bincount(cell_S, x_S) / count_C for x_S in x_SxK.T]
        return x_SxK - np.stack(mean, axis=1)[cell_S]

    values = int(value_S.max()) + 1
    design = centred((value_S[:, None] == np.arange(1, values)).astype(float))
    residual = centred(log_loss_S[:, None])[:, 0]
    effect, _, rank, _ = np.linalg.lstsq(design, residual, rcond=None)
    freedom = len(cell_S) - int(cell_S.max()) - 1 - rank
    if rank < 1 or freedom < 3:
        return 0.0
    left = float(np.sum((residual - design @ effect) ** 2))
    explained = float(np.sum(residual**2)) - left
    ratio = explained / rank / max(left / freedom, 1e-300)
    if special.fdtrc(rank, freedom, ratio) > _SURE:
        return 0.0
    return float(np.expm1(np.ptp(np.append(effect, 0.0))))
