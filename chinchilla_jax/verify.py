"""Says what came of a registered forecast, and how well all of them are calibrated.

    python -m chinchilla_jax.verify --forecast=forecasts/NAME.json --runs=runs/NAME
    python -m chinchilla_jax.verify --ledger

The first prints inside or outside for each number and what choosing this size cost, writes the
report of the runs with the section "Forecast and outcome", and adds the verdict to
forecasts/ledger.jsonl. Hit or miss, the exit status is 0; 2 is a mistake in the call.
"""

import sys

from absl import flags

from chinchilla_jax import program
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.register import ledger
from chinchilla_jax.scaling.register.verify import beside, verify
from chinchilla_jax.scaling.report import outcome
from chinchilla_jax.scaling.report.evaluation import verified

_FORECAST = flags.DEFINE_string("forecast", "", "File that forecast --register wrote.")
_RUNS = flags.DEFINE_string("runs", "", "Work folder of the runs of its configuration.")
_LEDGER = flags.DEFINE_bool("ledger", False, "Show how well all past forecasts are calibrated.")
_FILE = flags.DEFINE_string(
    "ledger_file", "", "The ledger. Default: ledger.jsonl beside the forecast, or in forecasts/."
)
_FIGURES = flags.DEFINE_bool("figures", True, "Draw the figures.")


def main(_: list[str]) -> None:
    forecast = storage.path(_FORECAST.value) if _FORECAST.value else None
    place = storage.path("forecasts") / ledger.NAME if forecast is None else beside(forecast)
    file = storage.path(_FILE.value) if _FILE.value else place
    if forecast is None and not _LEDGER.value:
        raise UserError("give --forecast=FILE and --runs=DIR, or --ledger")
    if (forecast is None) != (not _RUNS.value):
        raise UserError("--forecast and --runs: give both, the forecast and the runs that check it")
    if forecast is not None:
        runs = storage.path(_RUNS.value)
        verdict = verify(forecast, runs, file)
        print(f"{outcome.terminal(verdict)}\n\nledger: {file}")
        print(verified(runs, _FIGURES.value))
        for line in outcome.doubts(file, ledger.read(file)):
            print(line, file=sys.stderr)
    if _LEDGER.value:
        print(outcome.of_ledger(file, file.parent, _FIGURES.value))


if __name__ == "__main__":
    program.run(main)
