"""The recipe of a report: its laws of hyper-parameters with their evidence, for `recipe.source`."""

from __future__ import annotations

import hashlib

import numpy as np

from chinchilla_jax.experiment.fitted_recipe import (
    VERSION,
    Evidence,
    FittedRecipe,
    MadeFor,
    SettingRule,
)
from chinchilla_jax.experiment.version import code_version
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE
from chinchilla_jax.scaling.tuning.records import SettingLaw, Tuning

# What a recipe is made for, by the columns of our own results.
_COLUMNS = {
    "tokenizer": "data_tokenizer",
    "vocab_size": "data_vocab_size",
    "optimizer": "optimizer",
    "parametrization": "optimizer_parametrization",
    "base_width": "optimizer_base_width",
    "definition": "definition",
    "sequence_length": "sequence",
}
_NUMBERS = ("vocab_size", "base_width", "sequence_length")


def no_recipe(tuning: Tuning, runs: Runs) -> str | None:
    """Why `tuning` of `runs` gives no recipe; None where it gives one."""
    missing = [name for name in _COLUMNS.values() if name not in runs.labels]
    if missing:
        return f"the table does not say {', '.join(missing)}"
    if runs.params_convention not in ("total", "active", "as_given"):
        return f"a recipe counts all parameters, and not --params={runs.params_convention}"
    for ours, found in _values(runs).items():
        if len(found) > 1:
            return f"the runs have several values of {ours} ({', '.join(found)})"
    fitted = {law.setting for law in tuning.laws if law.status == "ok"}
    if not {RATE, BATCH} & fitted:
        return "neither a rate nor a batch was fitted"
    if BATCH not in fitted and tuning.policy == "followed":
        return "its rate was tuned at one batch a cell: vary the batch too"
    return None


def recipe_of(tuning: Tuning, runs: Runs) -> FittedRecipe:
    """The recipe of runs for which `no_recipe` has nothing to say."""
    laws = {law.setting: _rule(law) for law in tuning.laws if law.status == "ok"}
    made_for = {
        name: int(value) if name in _NUMBERS else value for name, (value,) in _values(runs).items()
    }
    params, tokens = [c.params for c in tuning.cells], [c.tokens for c in tuning.cells]
    return FittedRecipe(
        version=VERSION,
        made_for=MadeFor(**made_for),  # type: ignore[arg-type]
        params=(min(params), max(params)),
        tokens=(min(tokens), max(tokens)),
        evidence=Evidence(
            source=runs.source,
            runs=tuning.runs,
            cells=len(tuning.cells),
            noise=tuning.noise,
            near=tuning.near,
            rows=_digest(runs),
            data_fingerprint=_only(runs, "data_fingerprint"),
            code_version=code_version(),
            schedule=_only(runs, "optimizer_schedule"),
        ),
        learning_rate=laws.get(RATE),
        batch=laws.get(BATCH),
        weight_decay=laws.get(DECAY),
    )


def _values(runs: Runs) -> dict[str, list[str]]:
    """The different values of what a recipe is made for."""
    return {
        ours: sorted({str(value) for value in runs.labels[theirs]})
        for ours, theirs in _COLUMNS.items()
    }


def _rule(law: SettingLaw) -> SettingRule:
    assert law.coefficient is not None and law.curvature is not None
    return SettingRule(
        coefficient=law.coefficient,
        exponents=law.exponents,
        curvature=law.curvature,
        interval=law.interval,
    )


def _only(runs: Runs, name: str) -> str:
    """The one value of a column, or several."""
    return " ".join(sorted(set(map(str, runs.labels[name])))) if name in runs.labels else ""


def _digest(runs: Runs) -> str:
    """Of the rows: size, tokens and loss of every run in order."""
    table = np.stack([runs.params, runs.tokens, runs.loss], axis=1)
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()
