"""Joules of a run: what counters of the hardware counted, or else an estimate, never one for the
other.

Accelerators, processors and memory are counted apart, and what no counter saw from the first step
to the last is None. The estimate is what the devices draw at most, as their maker states, for as
long as the run took: an upper bound of the devices alone. As with `wall_seconds`, work that an
interruption threw away is not counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.experiment.hardware import Hardware
from chinchilla_jax.experiment.numbers import coefficient

PARTS = ("gpu", "cpu", "memory")
Joules = Mapping[str, float | None]  # by part; None, or no entry, where it was not counted

NOTHING: Joules = dict.fromkeys(PARTS, 0.0)
UNKNOWN: Joules = dict.fromkeys(PARTS)
MEASURED, ESTIMATED = "measured", "estimated"
_JOULES = 3.6e6  # in a kWh
# What the columns of joules are sums of; no two are ever added.
TITLES = {
    "joules_gpu": "accelerators, measured",
    "joules_cpu": "processors, measured",
    "joules_memory": "memory, measured",
    "joules_estimated": "accelerators, estimated from stated power",
}


@dataclass(frozen=True)
class Total:
    """The energy of some runs, of one kind."""

    title: str
    runs: int  # of which it is known
    kwh: float
    emitting: int  # of them, those whose electricity's emissions are stated
    kg_co2e: float  # of these

    def text(self, runs: int) -> str:
        """`accelerators, measured: 1.2 kWh in 24 of 24 runs, 0.46 kg CO2e`."""
        known = f"{self.title}: {coefficient(self.kwh, 3)} kWh in {self.runs} of {runs} runs"
        if not self.emitting:
            return known
        some = f" of {self.emitting}" if self.emitting < self.runs else ""
        return f"{known}, {coefficient(self.kg_co2e, 3)} kg CO2e{some}"


def added(*spent: Joules) -> dict[str, float | None]:
    """Part by part; what one of them does not know, their sum does not."""
    found: dict[str, float | None] = {}
    for part in PARTS:
        known = [joules for each in spent if (joules := each.get(part)) is not None]
        found[part] = sum(known) if len(known) == len(spent) else None
    return found


def columns(
    spent: Joules,
    seconds: float,
    devices: int,
    hardware: Hardware | None,
    grams_co2e_per_kwh: float | None,
) -> dict[str, Any]:
    """Columns of a result row.

    Args:
      spent: joules that were counted.
      seconds: that the run took on `devices` of `hardware`; None where that is not known.
      grams_co2e_per_kwh: of the electricity, where it is stated.
    """
    counted = {f"joules_{part}": spent.get(part) for part in PARTS}
    source, estimate = None, None
    if any(joules is not None for joules in counted.values()):
        source = MEASURED
    elif hardware is not None and hardware.power is not None:
        source, estimate = ESTIMATED, hardware.power * devices * seconds
    return {
        **counted,
        "joules_estimated": estimate,
        "energy_source": source,
        "grams_co2e_per_kwh": None if source is None else grams_co2e_per_kwh,
    }


def totals(rows: Sequence[Mapping[str, Any]]) -> tuple[Total, ...]:
    """What runs took, by their result rows: each kind that some of them knows."""
    found = []
    for column, title in TITLES.items():
        spent = [
            (joules / _JOULES, _known(row.get("grams_co2e_per_kwh")))
            for row in rows
            if (joules := _known(row.get(column))) is not None
        ]
        emitted = [kwh * grams / 1e3 for kwh, grams in spent if grams is not None]
        if spent:
            kwh = sum(kwh for kwh, _ in spent)
            found.append(Total(title, len(spent), kwh, len(emitted), sum(emitted)))
    return tuple(found)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
