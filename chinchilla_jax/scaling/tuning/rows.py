"""From a table of runs to settings inside cells of equal size and length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.table.cells import rounded_cells
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE

_TOKENS = ("batch_tokens", "tokens_per_batch", "tokens_per_step", "global_batch_tokens")
_SEQUENCES = ("batch", "batch_size", "global_batch_size", "train_batch_size", "bs", "bsz", "bsize")
_LENGTHS = ("sequence", "sequence_length", "seq_len", "seq_length", "context_length", "seq")
_DECAYS = ("weight_decay", "wd")
_SAME = 0.02  # relative: of ln values that count as one


@dataclass(frozen=True)
class TunedRows:
    """Runs of one condition, [R] each; logs of settings by name, those that the table has.

    `batch_unit` is "tokens", or "sequences" where the table does not say how long they are.
    `hidden_R` is ln of what hidden matrices get of the rate: in muP less than 1 beyond base width.
    """

    source: str
    params_R: Floats
    tokens_R: Floats
    flops_R: Floats
    body_R: Floats | None  # params without embeddings, where the table has them
    log_loss_R: Floats
    cell_R: Ints
    setting: Mapping[str, Floats]
    batch_unit: str
    hidden_R: Floats
    ours: bool  # rows of this package, whose recipe can be told

    def __len__(self) -> int:
        return len(self.log_loss_R)

    def varies(self, name: str) -> Bools:
        """[C]: the cells in which a setting has two values or more."""
        if name not in self.setting:
            return np.zeros(int(self.cell_R.max()) + 1, bool)
        value_R = self.setting[name]
        return np.array(
            [np.ptp(value_R[self.cell_R == c]) > _SAME for c in range(self.cell_R.max() + 1)]
        )


def tuned_rows(runs: Runs) -> TunedRows:
    """The rows with a rate or a batch; of further settings the best of each rate and batch count.

    Raises:
      UserError: the table has neither.
    """
    held = {name: column for name, column in runs.columns.items() if np.isfinite(column).any()}
    rate = RATE if RATE in held else None
    batch = _first(held, _TOKENS) or _first(held, _SEQUENCES)
    decay = _first(held, _DECAYS)
    if rate is None and batch is None:
        raise UserError(
            f"{runs.source}: laws of hyper-parameters need a column of learning rates or of "
            "batches; name it with --columns=learning_rate=lr,batch=..."
        )
    names = [name for name in (rate, batch, decay) if name is not None]
    keep_R = runs.best_R([runs.title.get(name, name) for name in names])
    for name in filter(None, (rate, batch)):
        keep_R &= held[name] > 0
    if not keep_R.any():
        raise UserError(f"{runs.source}: no run has a positive {' and '.join(names[:2])}")
    runs = runs.select(keep_R)
    columns = runs.columns
    setting, unit = {}, "sequences"
    if rate is not None:
        setting[RATE] = np.log(columns[rate])
    if batch is not None:
        tokens_R, unit = _batch_tokens(columns, batch)
        setting[BATCH] = np.log(tokens_R)
    if decay is not None and unit == "tokens" and len(setting) == 2:
        decay_R = columns[decay]
        if np.all(decay_R > 0):  # the timescale, as a share of the run: B / (lr wd D)
            per_step = setting[RATE] + np.log(decay_R)
            setting[DECAY] = setting[BATCH] - per_step - np.log(runs.tokens)
    body_R = columns.get("params_non_embedding")
    return TunedRows(
        source=runs.source,
        params_R=runs.params,
        tokens_R=runs.tokens,
        flops_R=runs.flops,
        body_R=None if body_R is None or not np.all(body_R > 0) else body_R,
        log_loss_R=np.log(runs.loss),
        cell_R=rounded_cells(runs.params, runs.tokens),
        setting=setting,
        batch_unit=unit,
        hidden_R=_hidden(runs),
        ours="params_total" in columns and "lr_multiplier" in columns,
    )


def _first(columns: Mapping[str, Floats], names: tuple[str, ...]) -> str | None:
    lower = {name.lower().rpartition(".")[2]: name for name in reversed(list(columns))}
    return next((lower[name] for name in names if name in lower), None)


def _batch_tokens(columns: Mapping[str, Floats], name: str) -> tuple[Floats, str]:
    batch_R = columns[name]
    if name.lower().rpartition(".")[2] in _TOKENS:
        return batch_R, "tokens"
    length = _first(columns, _LENGTHS)
    if length is None or not np.all(columns[length] > 0):
        return batch_R, "sequences"
    return batch_R * columns[length], "tokens"


def _hidden(runs: Runs) -> Floats:
    labels = runs.labels.get("optimizer_parametrization")
    base, width = (runs.columns.get(name) for name in ("optimizer_base_width", "width"))
    if labels is None or base is None or width is None:
        return np.zeros(len(runs))
    return np.where(labels == "mup", np.log(base / width), 0.0)
