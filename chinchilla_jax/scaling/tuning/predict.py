"""The settings of a run by laws that were fitted or published: a function of what a run is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.tuning import BATCH
from chinchilla_jax.scaling.tuning.published import published_settings
from chinchilla_jax.scaling.tuning.records import Tuning


@dataclass(frozen=True)
class SettingsLaw:
    """Predicts settings.

    Attributes:
      title: what answers, in a sentence; batch_unit: tokens, or sequences.
      needs: what it is a function of, of params, tokens, tokens_per_param and flops.
      predict: (params, tokens, flops by name, as far as needed) -> value by setting.
      decades: of such a run, how far it lies outside the runs behind the law; None where nobody
        knows.
    """

    title: str
    batch_unit: str
    needs: tuple[str, ...]
    predict: Callable[[Mapping[str, float]], dict[str, float]]
    decades: Callable[[Mapping[str, float]], float | None]

    @property
    def by_flops_alone(self) -> bool:
        """Whether a budget is all it needs."""
        return set(self.needs) == {"flops"}


def of_published(name: str) -> SettingsLaw | None:
    """The published law of that name, None where there is none."""
    law = published_settings().get(name)
    if law is None:
        return None
    row = law

    def predict(run: Mapping[str, float]) -> dict[str, float]:
        return {name: float(value) for name, value in row.predict(**run).items()}

    def decades(run: Mapping[str, float]) -> float | None:
        return row.decades_beyond(**{name: np.array([value]) for name, value in run.items()})

    title = f"{law.title} ({law.name}): {law.source}. {law.note}"
    return SettingsLaw(title, "tokens", law.needs(), predict, decades)


def of_fits(tuning: Tuning | None, source: str) -> SettingsLaw | None:
    """The laws of a report; None where none were fitted."""
    laws = [law for law in tuning.laws if law.status == "ok"] if tuning else []
    if tuning is None or not laws:
        return None
    cells = tuning.cells
    unit = next((law.unit for law in laws if law.setting == BATCH), "tokens")

    def predict(run: Mapping[str, float]) -> dict[str, float]:
        if not {"params", "tokens"} <= set(run):
            raise UserError("laws of hyper-parameters need --params and --tokens")
        known = dict(run) | {"tokens_per_param": run["tokens"] / run["params"]}
        found: dict[str, float] = {}
        for law in laws:  # the batch first: the best rate depends on it
            value = law.coefficient or 0.0
            for of, power in law.exponents.items():
                value *= known[of] ** power
            found[law.setting] = known[law.setting] = value
        return found

    def decades(run: Mapping[str, float]) -> float | None:
        beyond = [1.0]
        for name in ("params", "tokens"):
            tried = [getattr(cell, name) for cell in cells]
            beyond += [min(tried) / run[name], run[name] / max(tried)]
        return math.log10(max(beyond))

    return SettingsLaw(f"fitted to {source}", unit, ("params", "tokens"), predict, decades)
