"""Training curves: loss along a run, from metrics.jsonl or from a long table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment import records
from chinchilla_jax.experiment.config import is_plain_name
from chinchilla_jax.scaling.arrays import Floats

MINIMUM_POINTS = 8


@dataclass(frozen=True)
class Curve:
    """One run's points of positive tokens and finite loss, in order of tokens.

    `learning_rate_S` is None where the table has none.
    """

    run_id: str
    params: float
    tokens_S: Floats
    flops_S: Floats
    loss_S: Floats
    learning_rate_S: Floats | None

    @property
    def decayed(self) -> bool | None:
        """Whether the rate ended at a fifth of its peak or below; None where it is unknown.

        Hoffmann et al. decay by 10x; a curve cut out of a longer decay ends higher.
        """
        if self.learning_rate_S is None:
            return None
        return bool(self.learning_rate_S[-1] <= 0.2 * self.learning_rate_S.max())


def curves_of_rows(run_id: str, rows: Mapping[str, Floats]) -> Curve | None:
    """A curve from columns params, tokens, flops, loss[, learning_rate]; None if too short."""
    tokens, flops, loss = rows["tokens"], rows["flops"], rows["loss"]
    good = np.isfinite(tokens) & np.isfinite(flops) & np.isfinite(loss)
    good &= (tokens > 0) & (flops > 0) & (loss > 0)
    if good.sum() < MINIMUM_POINTS:
        return None
    order = np.flatnonzero(good)[np.argsort(tokens[good], kind="stable")]
    rate = rows.get("learning_rate")
    if rate is not None and not np.all(np.isfinite(rate[order])):
        rate = None
    return Curve(
        run_id,
        float(np.median(rows["params"][order])),
        tokens[order],
        flops[order],
        loss[order],
        None if rate is None else rate[order],
    )


def curves_of_sweep(
    folder: Path, run_ids: Sequence[str], params_R: Floats
) -> tuple[tuple[Curve, ...], tuple[str, ...]]:
    """Curves of the finished runs of a sweep, and warnings about what is absent or damaged."""
    found, absent, damage = [], 0, {}
    for run_id, params in zip(run_ids, params_R, strict=True):
        if not is_plain_name(run_id):  # a results.csv without a plan may say anything
            absent += 1
            continue
        rows, damaged = records.run_directory(folder, run_id).metrics_and_damage()
        if damaged:
            damage[run_id] = damaged
        if not rows:
            absent += not damaged
            continue
        columns = {
            name: np.array([np.nan if (x := row.get(name)) is None else x for row in rows], float)
            for name in ("tokens", "flops", "loss", "learning_rate", "smoothed_loss")
        }
        columns["params"] = np.full(len(rows), params)
        # One step's loss is that of a few sequences; our trainer also logs its running mean.
        smoothed = columns.pop("smoothed_loss")
        if np.all(np.isfinite(smoothed)):
            columns["loss"] = smoothed
        curve = curves_of_rows(run_id, columns)
        if curve is not None:
            found.append(curve)
    said = []
    if absent and found:
        said.append(f"{absent} finished runs have no metrics.jsonl: the envelope is without them")
    if damage:
        first = next(iter(damage))
        said.append(
            f"{sum(damage.values())} damaged lines in metrics.jsonl of {len(damage)} runs are left "
            f"out of the curves ('{first}' first)"
        )
    return tuple(found), tuple(said)
