"""Says what came of a registered forecast, and how well all of them are calibrated.

    python -m chinchilla_jax.verify --forecast=forecasts/NAME.json --runs=runs/NAME
    python -m chinchilla_jax.verify --forecast=forecasts/NAME.json --runs=TABLE.csv
    python -m chinchilla_jax.verify --ledger
    python -m chinchilla_jax.verify --withdraw=VERDICT --reason="losses of another corpus"

The first prints inside or outside for each number and what choosing this size cost, writes the
report of the runs with the section "Forecast and outcome", and adds the verdict to
forecasts/ledger.jsonl. The second does so, with a figure beside the forecast, for a forecast that
rests on a table: by the rows whose FLOPs lie within 5 % of its budget. Such rows bear no digest, so
what cannot be told of them is said. A verdict that was given on wrong data is withdrawn by its
name: it stays in the ledger, which says so, and counts no more. Hit or miss, the exit status is 0;
2 is a mistake in the call.
"""

import sys

from absl import flags

from chinchilla_jax import flag_values, program
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.register import ledger
from chinchilla_jax.scaling.register.verify import beside, verify
from chinchilla_jax.scaling.report import calibration, outcome
from chinchilla_jax.scaling.report.evaluation import verified

_FORECAST = flags.DEFINE_string("forecast", "", "File that forecast --register wrote.")
_RUNS = flags.DEFINE_string("runs", "", "Work folder of the runs of its configuration, or a table.")
_COLUMNS = flags.DEFINE_list(
    "columns",
    [],
    "Of a table, where it is named otherwise than the one behind the forecast: loss=ce; or "
    "counted otherwise: loss=0.693147*bits, loss=ln(ppl).",
)
_WHERE = flags.DEFINE_list("where", [], "Of a table, only runs with these values: optimizer=adamw.")
_WITHDRAW = flags.DEFINE_string(
    "withdraw", "", "Take back a verdict that was given on wrong data, as --ledger names it."
)
_REASON = flags.DEFINE_string("reason", "", "Why the verdict of --withdraw is taken back.")
_LEDGER = flags.DEFINE_bool("ledger", False, "Show how well all past forecasts are calibrated.")
_FILE = flags.DEFINE_string(
    "ledger_file",
    "",
    "File of the ledger. Default: ledger.jsonl beside the forecast, or in forecasts/.",
)
_FIGURES = flags.DEFINE_bool("figures", True, "Draw the figures.")


def main(_: list[str]) -> None:
    forecast = storage.path(_FORECAST.value) if _FORECAST.value else None
    place = storage.path("forecasts") / ledger.NAME if forecast is None else beside(forecast)
    file = storage.path(_FILE.value) if _FILE.value else place
    if _WITHDRAW.value or _REASON.value:
        print(calibration.taken_back(file, _WITHDRAW.value, _REASON.value))
        return
    if forecast is None and not _LEDGER.value:
        raise UserError("give --forecast=FILE and --runs=DIR_OR_TABLE, or --ledger")
    if (forecast is None) != (not _RUNS.value):
        raise UserError("--forecast and --runs: give both, the forecast and the runs that check it")
    if forecast is not None:
        runs = storage.path(_RUNS.value)
        columns, where = (flag_values.pairs(f.name, f.value) for f in (_COLUMNS, _WHERE))
        verdict = verify(forecast, runs, file, columns, where)
        print(f"{outcome.terminal(verdict)}\n\n{calibration.recorded(file, verdict)}")
        if not verdict.table:
            print(verified(runs, _FIGURES.value))
        elif _FIGURES.value:
            print(outcome.drawn_beside(verdict, forecast))
        for line in calibration.doubts(file, ledger.read(file)):
            print(line, file=sys.stderr)
    if _LEDGER.value:
        print(calibration.of_ledger(file, file.parent, _FIGURES.value))


if __name__ == "__main__":
    program.run(main)
