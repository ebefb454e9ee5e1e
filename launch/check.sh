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

config=configs/quickstart.py flops=1e13 seeds=1 flags=()
for argument in "$@"; do
  case $argument in
    --config=*) config=${argument#--config=} ;;
    --flops=*) flops=${argument#--flops=} ;;
    --seeds=*) seeds=${argument#--seeds=} ;;
    *) flags+=("$argument") ;;
  esac
done
set_up ""
name=$(basename "$config" .py)
grid=${WORKDIR:-runs/$name}
check=${name}_$flops
check=${check//[^0-9a-zA-Z]/_}
forecast=${FORECASTS:-forecasts}/$check
runs=$(dirname "$grid")/$check
asked="--config=$config --seeds=$seeds ${flags[*]-} in $grid"

# A forecast that is there is checked as it was asked for, and never anything else in its name.
if [[ -f $forecast.json && -f $forecast.asked && $(<"$forecast.asked") != "$asked" ]]; then
  echo "error: $forecast.json was made by $(<"$forecast.asked"); FORECASTS=FOLDER WORKDIR=FOLDER in front for another" >&2
  exit 2
fi
if [[ ! -f $forecast.json ]]; then
  mkdir -p "$(dirname "$forecast")"
  echo "$asked" >"$forecast.asked"
  (WORKDIR=$grid run_experiment --config="$config" ${flags[@]+"${flags[@]}"}) # it exits
fi
if [[ ! -f $forecast.json || ! -f $forecast.py ]]; then
  .venv/bin/python -m chinchilla_jax.forecast --fits="$grid/report/fits.json" --flops="$flops" \
    --register="$forecast.json" --write_config="$forecast.py" --seeds="$seeds"
fi
.venv/bin/python -m chinchilla_jax.sweep --config="$forecast.py" --workdir="$runs"
.venv/bin/python -m chinchilla_jax.verify --forecast="$forecast.json" --runs="$runs"
