#!/usr/bin/env bash
# The loop, closed: train and evaluate a grid, register its forecast for a larger budget, train that
# size and its neighbours, and say hit or miss.
#
#   ./launch/check.sh                                # the quickstart, then its forecast at 1e13
#   ./launch/check.sh --flops=1e14 --seeds=2         # the same grid, further
#   ./launch/check.sh --config=configs/mine.py --flops=1e18 --config.data.path=...
#
# The forecast is frozen in forecasts/<config>_<flops>.json before any run at its budget; the runs
# bear its digest. Stop it with Ctrl-C and start it again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

# The budget, seeds and config that are asked for, a line each and each written in one way; refused
# before anything is trained where the grid could not be forecast for.
read_request() {
  .venv/bin/python - "$@" <<'PYTHON'
import os
import sys

from chinchilla_jax import flag_values
from chinchilla_jax.experiment import grid, numbers
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import load_experiment, split_overrides
from chinchilla_jax.scaling.register.register import BEYOND

config, flops, seeds, *flags = sys.argv[1:]
try:
    budget = flag_values.positive_number("flops", flops)
    if not (seeds.isdecimal() and int(seeds)):
        raise UserError(f"--seeds: {seeds!r} is no number of seeds; write it like 2")
    cells = grid.plan(load_experiment(config, split_overrides(flags)[1]))
    largest = max(cell.flops for cell in cells if cell.status == "planned")
    if budget < BEYOND * largest:
        raise UserError(
            f"--flops={flops}: the grid has runs of {numbers.flops(largest)} FLOPs, and a forecast "
            "is of what lies beyond; give a larger budget"
        )
except UserError as error:
    sys.exit(f"error: {error}")
written = (f"{budget:.{digits}e}" for digits in range(17))
print(next(text for text in written if float(text) == budget).replace("e+", "e"))
print(int(seeds))
print(os.path.relpath(config) if os.path.exists(config) else config)
PYTHON
}

refuse() {
  echo "error: $1" >&2
  exit 2
}

config=configs/quickstart.py flops=1e13 seeds=1 flags=()
for argument in "$@"; do
  case $argument in
    --config=*) config=${argument#--config=} ;;
    --flops=*) flops=${argument#--flops=} ;;
    --seeds=*) seeds=${argument#--seeds=} ;;
    --cells=*) refuse "$argument: trains a part of the grid, and the forecast is of all of it; give it to launch/local.sh, then run this one without" ;;
    *) flags+=("$argument") ;;
  esac
done
set_up ""
request=$(read_request "$config" "$flops" "$seeds" ${flags[@]+"${flags[@]}"}) || exit 2
{ read -r flops && read -r seeds && read -r config; } <<<"$request"
name=$(basename "$config" .py)
grid=${WORKDIR:-runs/$name}
grid=${grid%/}
check=${name}_$flops
forecast=${FORECASTS:-forecasts}/${check//[^0-9a-zA-Z]/_}
check=$(basename "$grid")_$flops
runs=$(dirname "$grid")/${check//[^0-9a-zA-Z]/_}
asked="--config=$config --flops=$flops --seeds=$seeds ${flags[*]-} in $grid"

# A forecast that is there is checked as it was asked for, and never anything else in its name.
if [[ -f $forecast.json ]]; then
  other="FORECASTS=FOLDER WORKDIR=FOLDER in front for another"
  [[ -f $forecast.asked ]] || refuse "$forecast.json has no $(basename "$forecast").asked beside it, so that nothing tells what it was made by; $other"
  [[ $(<"$forecast.asked") == "$asked" ]] || refuse "$forecast.json was made by $(<"$forecast.asked"); $other"
else
  mkdir -p "$(dirname "$forecast")"
  echo "$asked" >"$forecast.asked"
  status=0
  (WORKDIR=$grid run_experiment --config="$config" ${flags[@]+"${flags[@]}"}) || status=$? # it exits
  if ((status == 1)); then
    echo "error: cells of $grid failed, as its sweep says above, and the forecast is of all of them: nothing is registered; this command tries them again, a config without them does without" >&2
  fi
  if ((status)); then exit "$status"; fi
fi
if [[ ! -f $forecast.json || ! -f $forecast.py ]]; then
  .venv/bin/python -m chinchilla_jax.forecast --fits="$grid/report/fits.json" --flops="$flops" \
    --register="$forecast.json" --write_config="$forecast.py" --seeds="$seeds"
fi
.venv/bin/python -m chinchilla_jax.sweep --config="$forecast.py" --workdir="$runs"
.venv/bin/python -m chinchilla_jax.verify --forecast="$forecast.json" --runs="$runs"
