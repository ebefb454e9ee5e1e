"""Published laws of hyper-parameters by name: `third_party/published_settings.json`.

A law of a setting is at_1 x the product of powers of params, tokens, tokens_per_param and flops
(6 N D). `params` says which parameters N counts, `policy` whether the batch was tuned with the rate
or fixed: it turns the sign of the exponent of D. `weight_decay` is its timescale, B / (lr wd D).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.recipe import batch_size, learning_rate
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.tuning import BATCH, RATE
from chinchilla_jax.scaling.tuning.records import PublishedBeside
from chinchilla_jax.scaling.tuning.rows import TunedRows

TABLE = Path(__file__).resolve().parents[2] / "third_party" / "published_settings.json"
_OF = ("params", "tokens", "tokens_per_param", "flops")
LostAt = Callable[[Floats, Floats, dict[str, Floats]], Floats]


@dataclass(frozen=True)
class PublishedSettings:
    """A row of the table; `laws` by setting, `at_1` None where no usable constant is known."""

    name: str
    title: str
    laws: Mapping[str, Mapping[str, float | None]]
    batch_unit: str
    policy: str
    params: str
    range: Mapping[str, Interval]
    source: str
    note: str

    @property
    def predicts(self) -> bool:
        """Whether it gives values, not exponents alone."""
        return all(law["at_1"] is not None for law in self.laws.values())

    def needs(self) -> tuple[str, ...]:
        """What its laws are functions of."""
        return tuple(of for of in _OF if any(of in law for law in self.laws.values()))

    def exponents(self) -> dict[str, dict[str, float]]:
        """By setting, as printed."""
        return {
            name: {of: float(x) for of in _OF if (x := law.get(of)) is not None}
            for name, law in self.laws.items()
        }

    def predict(self, **run: Floats | float) -> dict[str, Floats]:
        """The settings of runs: learning_rate, batch in tokens, weight_decay as a timescale.

        Args:
          run: params and tokens, or flops, as far as the laws need them.
        Raises:
          UserError: one is missing, or the row has exponents alone.
        """
        if not self.predicts:
            raise UserError(f"law {self.name} has exponents and no constant: {self.note}")
        values = {name: np.asarray(value, float) for name, value in run.items()}
        if {"params", "tokens"} <= set(values):
            params, tokens = values["params"], values["tokens"]
            values = {
                "tokens_per_param": tokens / params, "flops": SIX_ND.flops(params, tokens)
            } | values  # fmt: skip
        missing = [of for of in self.needs() if of not in values]
        if missing:
            wanted = ["params", "tokens"] if missing != ["flops"] else ["flops"]
            raise UserError(
                f"law {self.name} gives settings by {', '.join(self.needs())}: "
                f"give {' and '.join(f'--{name}' for name in wanted)}"
            )
        found = {}
        for setting, law in self.laws.items():
            at_1, *powers = law["at_1"], *((of, law[of]) for of in _OF if of in law)
            value = np.asarray(at_1, float)
            for of, power in powers:
                value = value * values[of] ** power
            found[setting] = value * self._sequence if setting == BATCH else value
        return found

    @property
    def _sequence(self) -> float:
        """Tokens of its unit of batches."""
        return float(self.batch_unit.rpartition(" ")[2]) if "sequences" in self.batch_unit else 1.0

    def decades_beyond(self, **run: Floats) -> float | None:
        """How many decades runs lie outside what it was fitted on; None where that is not known."""
        given = {of: np.asarray(value) for of, value in run.items() if of in self.range}
        if not given:
            return None
        beyond = [0.0]
        for of, value in given.items():
            low, high = self.range[of]
            beyond += [float(np.log10(low / value.min())), float(np.log10(value.max() / high))]
        return max(beyond)


@functools.cache
def published_settings() -> dict[str, PublishedSettings]:
    """All rows by name."""
    rows = json.loads(TABLE.read_text())
    for row in rows:
        row["range"] = {name: tuple(ends) for name, ends in row["range"].items()}
    return {row["name"]: PublishedSettings(**row) for row in rows}


def compared(rows: TunedRows, lost_at: LostAt) -> tuple[PublishedBeside, ...]:
    """Every published law, and of our own tables the recipe, at the cells of a table.

    Args:
      lost_at: (params, tokens, ln of settings) -> share of the loss, by the fitted laws.
    """
    first = np.unique(rows.cell_R, return_index=True)[1]
    params, tokens, flops = (x[first] for x in (rows.params_R, rows.tokens_R, rows.flops_R))
    hidden = rows.hidden_R[first]
    largest = int(np.argmax(params * tokens))
    found = []
    for law in published_settings().values():
        counted = params
        if law.params == "non_embedding" and rows.body_R is not None:
            counted = rows.body_R[first]
        run = {"params": counted, "tokens": tokens, "flops": flops,
               "tokens_per_param": tokens / counted}  # fmt: skip
        settings = law.predict(**run) if law.predicts else {}
        # Theirs is the rate of every matrix; in muP ours is that of matrices of base width.
        found.append(
            _compared(
                law.name, law.title, law.policy, law.exponents(), settings,
                {RATE: -hidden}, rows, (params, tokens), lost_at, largest,
                law.decades_beyond(**run),
            )
        )  # fmt: skip
    if rows.ours:
        found.append(_recipe(rows, (params, tokens), lost_at, largest))
    return tuple(sorted(found, key=lambda one: (one.lost is None, one.lost)))


def _recipe(
    rows: TunedRows, run: tuple[Floats, Floats], lost_at: LostAt, largest: int
) -> PublishedBeside:
    """The rules of experiment/recipe.py, as they are without any setting of a config."""
    recipe = RecipeConfig()
    batch = np.array([batch_size(d, recipe) for d in run[1]])
    rate = np.array([learning_rate(int(b), recipe) for b in batch])
    settings = {RATE: rate, BATCH: batch * float(recipe.sequence_length)}
    exponents = {
        RATE: {"tokens": recipe.lr_batch_exponent * recipe.batch_exponent},
        BATCH: {"tokens": recipe.batch_exponent},
    }
    return _compared(
        "recipe", "this package's default recipe", "tuned", exponents, settings, {}, rows, run,
        lost_at, largest, None,
    )  # fmt: skip


def _compared(
    name: str,
    title: str,
    policy: str,
    exponents: dict[str, dict[str, float]],
    settings: Mapping[str, Floats],
    shift: Mapping[str, Floats],
    rows: TunedRows,
    run: tuple[Floats, Floats],
    lost_at: LostAt,
    largest: int,
    decades: float | None,
) -> PublishedBeside:
    known = {
        setting: np.log(value) + shift.get(setting, 0.0)
        for setting, value in settings.items()
        if setting in rows.setting and (setting != BATCH or rows.batch_unit == "tokens")
    }
    lost = lost_at(*run, known) if known else None
    rate, batch = settings.get(RATE), settings.get(BATCH)
    return PublishedBeside(
        law=name,
        title=title,
        policy=policy,
        exponents=exponents,
        learning_rate=None if rate is None else float(np.broadcast_to(rate, run[0].shape)[largest]),
        batch_tokens=None
        if batch is None
        else float(np.broadcast_to(batch, run[0].shape)[largest]),
        lost=None if lost is None else float(lost.mean()),
        worst=None if lost is None else float(lost.max()),
        decades=decades,
    )
