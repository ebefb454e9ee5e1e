"""From rows to the quadratic of their table: which settings have a law, on what, and which rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE, SETTINGS
from chinchilla_jax.scaling.tuning.quadratic import Axis, Quadratic, near
from chinchilla_jax.scaling.tuning.rows import TunedRows

LEAST = 3  # cells in which a setting varies, and rows beyond those that parameters take
SPREAD = 1.3  # sizes or lengths that differ by less are one
_WIDEST, _NARROWEST = 0.10, 0.01  # share of the loss above the lowest of a cell, of rows fitted
_SCATTER = 8.0  # rows are near within so many times the scatter of ln loss
_ROWS = 8  # and not so near that fewer rows a cell are left


def refusal(rows: TunedRows, name: str) -> str | None:
    """Why a setting has no law of its own here."""
    if name not in rows.setting:
        lacks = {
            DECAY: "no weight decay above 0 beside a rate and a batch in tokens",
            RATE: "no column of learning rates", BATCH: "no column of batches",
        }  # fmt: skip
        return f"the table has {lacks[name]}"
    varies = int(rows.varies(name).sum())
    if varies < LEAST:
        return (
            f"{name} varies in {varies or 'none'} of the cells of equal params and tokens, "
            f"{LEAST} are needed: train each size and length at several"
        )
    others = [rows.setting[o] for o in SETTINGS[: SETTINGS.index(name)] if o in rows.setting]
    left = _within_cells(rows.setting[name], others, rows.cell_R)
    if left < 0.05:
        return f"{name} follows the other settings in every cell; vary it by itself too"
    return None


def _within_cells(value_R: Floats, others: Sequence[Floats], cell_R: Ints) -> float:
    """Standard deviation inside cells of what the other settings do not explain."""
    columns = []
    for column in (value_R, *others):
        mean = np.bincount(cell_R, column) / np.bincount(cell_R)
        columns.append(column - mean[cell_R])
    target, *known = columns
    if known:
        design = np.column_stack(known)
        target = target - design @ np.linalg.lstsq(design, target, rcond=1e-9)[0]
    return float(np.sqrt(np.mean(target**2)))


def model_of(
    rows: TunedRows, varied: Sequence[str]
) -> tuple[Quadratic, dict[str, tuple[str, ...]]]:
    """The quadratic, and by setting the names of its terms behind the constant."""
    column = {
        "params": np.log(rows.params_R),
        "tokens": np.log(rows.tokens_R),
        "tokens_per_param": np.log(rows.tokens_R / rows.params_R),
        "batch": rows.setting.get(BATCH, np.zeros(len(rows))),
    }
    axes, terms = [], {}
    for name in varied:
        varies_R = rows.varies(name)[rows.cell_R]
        wanted = {
            BATCH: ("tokens",), RATE: ("params", "tokens"), DECAY: ("tokens_per_param",)
        }[name]  # fmt: skip
        kept = _separable(wanted, column, varies_R)
        if name == RATE and BATCH in varied:
            kept = (*kept, "batch")
        terms[name] = kept
        design = np.column_stack([np.ones(len(rows)), *(column[term] for term in kept)])
        axes.append(Axis(name, rows.setting[name], design))
    return Quadratic(tuple(axes), rows.cell_R, rows.log_loss_R), terms


def _separable(names: Sequence[str], column: dict[str, Floats], used_R: Bools) -> tuple[str, ...]:
    """Those whose effect the cells can tell from a constant and from those before them."""
    kept: list[str] = []
    for name in names:
        design = np.column_stack([np.ones(used_R.sum()), *(column[k][used_R] for k in kept)])
        value = column[name][used_R]
        left = value - design @ np.linalg.lstsq(design, value, rcond=1e-9)[0]
        if np.ptp(left) > np.log(SPREAD):
            kept.append(name)
    return tuple(kept)


def nearest(model: Quadratic, rows: TunedRows) -> tuple[Floats, float, Floats, float]:
    """Weights of the rows fitted, how near they are, phi, and the scatter of ln loss around it."""
    lowest_C = np.full(int(rows.cell_R.max()) + 1, np.inf)
    np.minimum.at(lowest_C, rows.cell_R, rows.log_loss_R)
    excess_R = np.sort(np.expm1(rows.log_loss_R - lowest_C[rows.cell_R]))
    enough = float(excess_R[min(len(rows), _ROWS * len(lowest_C)) - 1])
    within = _WIDEST
    while True:
        weights_R = near(rows.log_loss_R, rows.cell_R, within).astype(float)
        phi_P = model.fit(weights_R)
        used = weights_R > 0
        residual_R = model.residual_R(phi_P, used)
        noise = float(np.sqrt(np.sum(residual_R**2) / max(1, freedom(model, weights_R))))
        nearer = max(_NARROWEST, enough, _SCATTER * noise)
        if not np.isfinite(noise) or nearer > 0.8 * within:
            return weights_R, within, phi_P, noise
        within = nearer


def freedom(model: Quadratic, weights_R: Floats) -> int:
    """Rows of positive weight beyond those that the parameters and the levels of cells take."""
    used = weights_R > 0
    return int(used.sum()) - model.parameters - len(np.unique(model.cell_R[used]))
