"""Joules of a run: what counters of the hardware counted, or else an estimate, never one for the
other.

Accelerators, processors and memory are counted apart, and what no counter saw from the first step
to the last is None. The estimate is what the devices draw at most, as their maker states, for as
long as the run took: an upper bound of the devices alone. As with `wall_seconds`, work that an
interruption threw away is not counted.
"""

from collections.abc import Mapping
from typing import Any

from chinchilla_jax.experiment.hardware import Hardware

PARTS = ("gpu", "cpu", "memory")
Joules = Mapping[str, float | None]  # by part; None, or no entry, where it was not counted

NOTHING: Joules = dict.fromkeys(PARTS, 0.0)
UNKNOWN: Joules = dict.fromkeys(PARTS)
MEASURED, ESTIMATED = "measured", "estimated"


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
