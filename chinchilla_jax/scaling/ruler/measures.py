"""In what a model is counted: the currencies that somebody pays in, as columns of a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import one_of
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.cost import of_teacher
from chinchilla_jax.scaling.table.runs import Runs

CHARGES = ("student", "teacher_forward", "teacher_all")
PAID = "teacher_forward"  # what a run's training FLOPs hold
TEACHER_TRAINING = "needs_flops"  # what the teacher's own run cost, in no run's FLOPs
UNPRICED = (
    "left out: these are 6 N D of non-zero parameters, which is not what training costs; a column "
    "of flops would tell"
)
_NONZERO = r"non[ _-]?zero|nnz"  # of a name of parameters
_SPARSE = rf"spars|prun|densit|{_NONZERO}"  # of a column that tells techniques apart


@dataclass(frozen=True)
class Currency:
    """What is counted, by the name of its multiplier."""

    name: str
    title: str
    axis: str  # of yardstick.AXES
    column: str | None = None


# `params` only where the table has no finer count; training FLOPs and tokens every table has.
CURRENCIES = (
    Currency("nonzero", "non-zero parameters", "size", "params_nonzero"),
    Currency("active", "active parameters", "size", "params_active"),
    Currency("params", "parameters", "size"),
    Currency("bytes", "bytes at rest", "size", "bytes_at_rest"),
    Currency("prefill", "prefill FLOPs", "size", "inference_flops_prefill"),
    Currency("decode", "decode FLOPs", "size", "inference_flops_decode"),
    Currency("seconds", "seconds per generated token", "size", "decode_seconds_per_token"),
    Currency("joules", "joules per token", "size", "joules_per_token"),
    Currency("training", "training FLOPs", "compute"),
    Currency("tokens", "training tokens", "tokens"),
)


def available(parts: Sequence[Runs], params: str) -> list[tuple[Currency, list[Floats]]]:
    """The currencies of size that all these runs have, with the amounts of each part.

    Args:
      params: the convention of counting; without embeddings, so are non-zero and active ones.
    """
    found: list[tuple[Currency, list[Floats]]] = []
    for currency in CURRENCIES:
        if currency.axis != "size":
            continue
        if currency.column is None:
            if not any(c.name in ("nonzero", "active") for c, _ in found):
                found.append((currency, [part.params for part in parts]))
            continue
        amounts = [part.columns.get(_column(currency, params)) for part in parts]
        known = [x for x in amounts if x is not None and np.all(np.isfinite(x) & (x > 0))]
        if len(known) == len(parts):
            found.append((currency, known))
    return found


def left_out(parts: Sequence[Runs], params: str) -> list[str]:
    """What each currency lacks that only a part of the runs have."""
    total, kept, said = sum(map(len, parts)), {c.name for c, _ in available(parts, params)}, []
    for currency in CURRENCIES:
        if currency.column is None or currency.name in kept:
            continue
        amounts = [part.columns.get(_column(currency, params), np.zeros(0)) for part in parts]
        has = sum(int(np.sum(np.isfinite(x) & (x > 0))) for x in amounts)
        if has:
            said.append(f"{currency.title}: left out, missing in {total - has} of {total} runs")
    return said


def _column(currency: Currency, params: str) -> str:
    """Of a currency with a column, that of the convention of counting."""
    column = currency.column or ""
    outside = params.endswith("non_embedding") and column.startswith("params")
    return column + "_non_embedding" * outside


def charged(runs: Runs, charge: str) -> Floats:
    """Training FLOPs [R] in the convention of the runs, with what is charged of the teacher.

    The teacher's are counted by matmul in all of them, as the ledger of a run has them.

    Raises:
      UserError: no such charge, or nothing says what the teacher's training cost.
    """
    one_of("--charge", charge, CHARGES)
    forward = of_teacher(runs.columns, len(runs))
    if charge == "student":
        return runs.flops - forward
    if charge == "teacher_forward":
        return runs.flops
    column = runs.columns.get(TEACHER_TRAINING)
    training = np.zeros(len(runs)) if column is None else np.nan_to_num(column)
    if np.any((forward > 0) & (training <= 0)):
        raise UserError(
            f"--charge=teacher_all: {runs.source} has runs with a teacher and no column "
            f"{TEACHER_TRAINING} that says what its training cost"
        )
    return runs.flops + training


def unpriced(runs: Runs, changed: Collection[str], flops: str) -> bool:
    """Whether nothing tells the training FLOPs of a technique: 6 N D of its non-zero parameters.

    A sparse run is trained with products of its dense size, unless a table says otherwise.

    Args:
      runs: those of the technique, counted as asked.
      changed: the columns in which it differs from a dense run.
      flops: the convention that is asked for.
    """
    counted = "flops" in runs.given if flops == "as_given" else flops != "six_nd"
    if counted:
        return False
    name = runs.params_convention
    name = runs.title.get("params", "") if name == "as_given" else name
    stored = runs.columns.get(
        "params_non_embedding" if name.endswith("non_embedding") else "params_total"
    )
    if stored is not None and np.allclose(stored, runs.params):
        return False
    sparse = any(re.search(_SPARSE, column.lower()) for column in changed)
    apart = "params_nonzero" in runs.columns and "nonzero" not in name
    return bool(re.search(_NONZERO, name.lower())) or (
        sparse and runs.params_convention == "as_given" and not apart
    )


def proportional(some: Sequence[Floats], others: Sequence[Floats]) -> bool:
    """Whether two currencies count the same in all parts, up to one constant."""
    log_ratio = np.log(np.concatenate(some)) - np.log(np.concatenate(others))
    return bool(np.ptp(log_ratio) < 1e-3)
