"""Verifies a registered forecast by its runs, and keeps the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import require
from chinchilla_jax.scaling.register import folder, registration, table, verdict
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register.verdict import Verdict


def verify(
    forecast: Path | str,
    runs: Path | str,
    ledger: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict on a registered forecast by the runs of its configuration, or of a table.

    It is written once into the ledger, and beside the runs of a work folder, for their report.

    Args:
      forecast: the file of the registration.
      runs: the work folder of the runs; for a forecast that rests on a table, a table that has
        runs of its budget. These bear no digest, which the verdict says.
      ledger: by default ledger.jsonl beside the forecast.
      columns, where: of a table, as of `evaluate`, beside those of the table behind the forecast.
    Raises:
      UserError: the forecast was changed, the runs are of another corpus or recipe, older than the
        registration, or not all over; a table is that behind the forecast, is counted otherwise, or
        has no run of the budget; or a file cannot be read or written.
    """
    for name, given in (("forecast", forecast), ("runs", runs), ("ledger", ledger)):
        right = isinstance(given, str | PurePath) or (name == "ledger" and given is None)
        require(right, name, given, "a path is needed")
    for name, pairs in (("columns", columns), ("where", where)):
        right = pairs is None or (
            isinstance(pairs, Mapping)
            and all(isinstance(x, str) for x in (*pairs, *pairs.values()))
        )
        require(right, name, pairs, "a dict of texts is needed")
    file, place = storage.path(forecast), storage.path(runs)
    known = registration.read(file)
    if known.basis.columns is not None:
        found = table.judged(known, place, file, columns, where)
    elif columns or where:
        raise UserError(f"{file}: is checked by a work folder; columns and where are of a table")
    else:
        if place.is_file():
            raise UserError(
                f"{place}: is a file, and {file} is checked by the work folder of its runs; give "
                "that folder"
            )
        found = folder.judged(known, place, file)
        verdict.write(place, found)
    ledgers.append(beside(file) if ledger is None else ledger, found)
    return found


def beside(forecast: Path) -> Path:
    """The ledger of the forecasts in a folder."""
    return forecast.parent / ledgers.NAME
