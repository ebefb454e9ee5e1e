"""Verifies a registered forecast by its runs, and keeps the verdict."""

from __future__ import annotations

from pathlib import Path, PurePath

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.schema import require
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register import registration, verdict
from chinchilla_jax.scaling.register.verdict import Verdict


def verify(forecast: Path | str, runs: Path | str, ledger: Path | str | None = None) -> Verdict:
    """The verdict on a registered forecast by the runs of its configuration.

    It is written beside the runs, for their report, and once into the ledger.

    Args:
      forecast: the file of the registration; `runs`: the work folder of the runs.
      ledger: by default ledger.jsonl beside the forecast.
    Raises:
      UserError: the forecast was changed, the runs are of another corpus or recipe, older than the
        registration, or not all over; or a file cannot be read or written.
    """
    for name, given in (("forecast", forecast), ("runs", runs), ("ledger", ledger)):
        right = isinstance(given, str | PurePath) or (name == "ledger" and given is None)
        require(right, name, given, "a path is needed")
    file, folder = storage.path(forecast), storage.path(runs)
    found = verdict.judged(registration.read(file), folder, file)
    verdict.write(folder, found)
    ledgers.append(beside(file) if ledger is None else ledger, found)
    return found


def beside(forecast: Path) -> Path:
    """The ledger of the forecasts in a folder."""
    return forecast.parent / ledgers.NAME
