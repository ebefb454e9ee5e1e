"""Fits of further laws to the rows of a table, for `evaluate --laws`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.arrays import Bools, Floats, silent
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.noise import noise_model, run_weights
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.draws import law_draws, with_choices, with_intervals
from chinchilla_jax.scaling.laws.fit import LawFit, fit
from chinchilla_jax.scaling.table.columns import label
from chinchilla_jax.scaling.table.conditions import written
from chinchilla_jax.scaling.table.kinds import joint
from chinchilla_jax.scaling.table.partners import with_dense_loss
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.techniques.law import DENSE_LOSS, Law

DRAWS = 400  # percentiles of 95 % stand on the tenth of these from either end


def laws_named(names: Sequence[str], besides: Sequence[str] = ()) -> list[Law]:
    """The laws of those names; those `besides` are laws of another kind, and left out.

    Raises:
      UserError: there is no such law; the nearest and all are named.
    """
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"--laws: {name} is given twice")
        if name not in (there := (*LAWS, *besides)):
            raise UserError(
                f"--laws={name}: no such law{nearest(name, there)} (there are {', '.join(there)})"
            )
    return [LAWS[name] for name in names if name in LAWS]


@silent()
def fit_laws(
    laws: Sequence[Law],
    runs: Runs,
    objective: Objective,
    draws: int,
    seed: int,
) -> tuple[LawFit, ...]:
    """Each law on the runs that have its columns, with intervals: `laws` in fits.json.

    The best settings of each cell are fitted, except that a law in a setting or in the column of a
    condition spans its values. A law of the frontier takes the best run of each budget. Rows with
    an empty cell in a column that the law needs are left out, and the count of runs says so; so
    are those whose outcome is noise.

    Args:
      runs: all that was tried, under one condition or those that the laws span.
      draws: bootstrap draws, of which at most DRAWS are made; seed: theirs.

    Raises:
      UserError: the table lacks a column, or has too few rows for the law's parameters.
    """
    found = []
    for number, law in enumerate(laws):
        rows = law_rows(law, runs)
        weights_R = np.ones(len(rows.outcome_R))
        if law.outcome == "loss":  # what rises by a law of its own is not as noisy as a run's loss
            weights_R = law_weights(rows.table, objective)[rows.kept_R]
        data = (law, rows.columns, rows.outcome_R)
        fitted = fit(*data, objective, weights_R)
        drawn = None
        if draws:
            rng = np.random.default_rng([seed, number])
            trunk_R = rows.table.trunk_R()
            of_trunks = None if trunk_R is None else trunk_R[rows.kept_R]
            count = min(draws, DRAWS)
            drawn = law_draws(*data, fitted, objective, weights_R, count, rng, of_trunks)
            fitted = with_intervals(fitted, drawn)
        found.append(with_choices(law, fitted, drawn))
    return tuple(found)


@dataclass(frozen=True)
class LawRows:
    """What a law is fitted to: `columns` and `outcome_R` of the rows `kept_R` of `table`."""

    table: Runs
    kept_R: Bools
    columns: dict[str, Floats]
    outcome_R: Floats


def law_rows(law: Law, runs: Runs) -> LawRows:
    """The rows of `fit_laws`; UserError where the table lacks the law's outcome."""
    runs = completed(law, runs)
    table = runs.select(runs.best_R(spanned(law, runs)))
    columns = {
        **table.columns, "params": table.params, "tokens": table.tokens, "flops": table.flops,
        "loss": table.loss,
    }  # fmt: skip
    keep = _lowest(table) if law.frontier else np.ones(len(table), bool)
    for name in law.columns:
        source = law.source_of(name, columns)
        if source in columns:
            columns[name] = columns[source]
            keep &= np.isfinite(columns[name])
    if law.outcome not in columns:
        raise UserError(
            f"law {law.name} describes {law.outcome}, which no run of the table has; "
            "techniques measure it of finished runs"
        )
    keep &= columns[law.outcome] > law.least
    chosen = {name: column[keep] for name, column in columns.items()}
    return LawRows(table, keep, chosen, chosen[law.outcome])


def completed(law: Law, runs: Runs) -> Runs:
    """With the column `dense_loss` where the law needs it; a table that has it keeps its own.

    Raises:
      UserError: no run of the law's technique has a dense partner.
    """
    if DENSE_LOSS not in law.columns or law.source_of(DENSE_LOSS, runs.columns) in runs.columns:
        return runs
    off = techniques.without(law.name)
    found = with_dense_loss(runs, off)
    if not np.isfinite(found.columns[DENSE_LOSS]).any():
        dense = written({name: label(value) for name, value in off.items()})
        raise UserError(
            f"law {law.name} needs the column {DENSE_LOSS}, the loss of the same run without the "
            f"technique; runs of the same size and tokens with {dense} beside it would give it"
        )
    return found


def of_derived_rows(laws: Sequence[Law]) -> bool:
    """Whether one of them describes rows that techniques derive from those of runs."""
    return any(law.outcome != "loss" for law in laws)


def spanned(law: Law, runs: Runs) -> list[str]:
    """The file's columns, settings or conditions among them, that the law is a function of.

    A technique's law explains what the technique's own columns tell apart.
    """
    columns = (law.source_of(name, runs.columns) for name in law.columns)
    names = (*columns, *techniques.explained(law.name))
    return [runs.title.get(name, name) for name in names]


def law_weights(runs: Runs, objective: Objective) -> Floats:
    """As for the loss surface, from profiles inside conditions."""
    grouped = runs.group_R >= 0
    profile_R = np.full(len(runs), -1)
    _, first, profile_R[grouped] = np.unique(
        joint(runs.condition_R(), runs.group_R)[grouped], return_index=True, return_inverse=True
    )
    flops_G = runs.budget_G[runs.group_R[grouped][first]]
    found = profiles(profile_R, flops_G, runs.params, runs.tokens, runs.loss)
    noise = noise_model(found, runs.cell_R(), runs.loss, runs.flops, runs.trunk_R())
    squared = objective.loss == "squared"
    return run_weights(noise, found, runs.flops, squared, runs.columns.get("weight"))


def _lowest(runs: Runs) -> Bools:
    """The run of lowest loss of every budget."""
    keep = np.zeros(len(runs), bool)
    for group in range(len(runs.budget_G)):
        rows = np.flatnonzero(runs.group_R == group)
        if len(rows):
            keep[rows[np.argmin(runs.loss[rows])]] = True
    return keep
