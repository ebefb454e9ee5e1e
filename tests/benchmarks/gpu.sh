#!/usr/bin/env bash
# Figures from one GPU in at most eight minutes: what it computes against a CPU, throughput and
# memory beside PyTorch and beside the plan, small cells that share it, what techniques add.
#
#   ./tests/benchmarks/gpu.sh                                    # all parts, results in runs/gpu
#   RESULTS=/data/h100 ./tests/benchmarks/gpu.sh throughput-1.3b # some of them
#   ./tests/benchmarks/gpu.sh profile                            # where a step of 1.3b goes
#   ./tests/benchmarks/gpu.sh --platform=cpu                     # the same in tiny sizes, anywhere
#
# Each part writes its result as it comes and has a time limit; one that fails leaves its log and
# the next begins. The same command continues: a part whose result is there is not run again, and
# what had no time left is. The report, report.md beside the results, has the bars and the tables.
#
# It runs on the python3 it finds (PYTHON=... chooses) and installs nothing. That needs jax for the
# GPU, flax, optax, orbax-checkpoint, absl-py, etils, numpy, packaging and torch; no corpus is
# built, so TFDS and array_record are not. What is missing on a machine without a network travels
# with the tree as wheels, unpacked in a folder that git ignores and Python is told of:
#
#   pip install --no-deps --only-binary=:all: --python-version=3.12 --target=runs/site NAME
#   PYTHONPATH=runs/site ./tests/benchmarks/gpu.sh
#
# BUDGET=480 is the most seconds that it takes in all.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

platform=gpu
if [[ ${1:-} == --platform=* ]]; then
  platform=${1#--platform=}
  shift
fi
if [[ $platform != gpu && $platform != cpu ]]; then
  echo "error: --platform=$platform: gpu or cpu" >&2
  exit 2
fi
if [[ $platform == gpu ]] && ! nvidia-smi -L >/dev/null 2>&1; then
  echo "error: nvidia-smi finds no GPU here; --platform=cpu tries the same in tiny sizes" >&2
  exit 2
fi
results=${RESULTS:-runs/$platform}
python=${PYTHON:-python3}
budget=${BUDGET:-480}
mkdir -p "$results" || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Cells of one shape compile once, and so does what is run again.
compiled=$(realpath "$results")/compiled
export JAX_COMPILATION_CACHE_DIR=$compiled/jax TORCHINDUCTOR_CACHE_DIR=$compiled/torch

# The size with the most bars early, lest no time be left for it.
sizes=(throughput-30m throughput-1.3b throughput-124m throughput-350m)
# The arguments of each program, by platform; a size is named after its part on a GPU.
if [[ $platform == gpu ]]; then
  export JAX_PLATFORMS=cuda,cpu # or an error, and not the CPU in place of the GPU
  device=(--device=gpu --seconds=2 --turns=3)
  cells=(--platform=gpu) patience=1
  techniques=(--width=768 --batch=16 --sequence=2048 --steps=30)
  dispatch=(--width=768 --size=2048 --tokens=32768 --dtype=bfloat16 --turns=20)
else
  export JAX_DISABLE_MOST_OPTIMIZATIONS=1 # compiling is most of it
  sizes=(throughput-tiny)
  device=(--device=cpu --threads=1 --seconds=0.2 --turns=1)
  cells=(--platform=cpu --size=tiny --cells 1 2 --seconds=0.2 --turns=1) patience=10
  techniques=(--width=16 --batch=2 --sequence=16 --steps=20)
  dispatch=(--width=16 --size=32 --tokens=32 --turns=2)
fi
# What is timed of each technique.
declare -A only=(
  [sparsity]="sparsity .5"
  [quantisation]="quantisation 4"
  [distillation]="distillation, as large"
  [experts]="experts 1 of 8"
)
default=(correctness "${sizes[@]}" cells)
default+=(techniques-sparsity techniques-quantisation techniques-distillation)
default+=(techniques-experts techniques-dispatch)

child=
trap '[[ -n $child ]] && kill "$child" 2>/dev/null; exit 130' INT TERM

# part LIMIT RESULT PROGRAM [ARGUMENTS]: runs a program for at most LIMIT seconds (of a GPU, which
# are more on a CPU), unless RESULT is there. Until it ends well its result is RESULT.part; what it
# says is in RESULT.log.
part() {
  local limit=$(($1 * patience)) result="$results/$2" program=tests/benchmarks/$3
  local began=$SECONDS status=0
  shift 3
  if [[ -e $result ]]; then
    echo "$result: there already"
    return
  fi
  limit=$((limit < budget - SECONDS ? limit : budget - SECONDS))
  if ((limit < 10)); then
    echo "$result: no time left; the same command goes on"
    return
  fi
  local out=(--out="$result.part")
  [[ $result == *.txt ]] && out=()
  # A group of its own, so that all that it started ends with it.
  timeout --kill-after=5 "$limit" "$python" "$program" "$@" "${out[@]}" >"$result.log" 2>&1 &
  child=$!
  wait "$child" || status=$?
  child=
  [[ $result == *.txt ]] && cp "$result.log" "$result.part"
  if ((status == 0)) && mv "$result.part" "$result"; then
    echo "$result: $((SECONDS - began)) s"
    return
  fi
  ((status == 124 || status == 137)) && echo "$result: not done in $limit s"
  echo "$result: failed with status $status; the end of $result.log:"
  tail -n 5 "$result.log"
}

for name in "${@:-${default[@]}}"; do
  case $name in
    correctness) part 120 "$name.json" gpu_correctness.py --platform="$platform" ;;
    # A GPU of 80 GB does not hold both at once.
    throughput-1.3b) part 150 "$name.json" throughput.py "${device[@]}" --apart --sizes 1.3b ;;
    throughput-*) part 70 "$name.json" throughput.py "${device[@]}" --sizes "${name#throughput-}" ;;
    cells) part 50 "$name.json" gpu_cells.py "${cells[@]}" ;;
    techniques-dispatch) part 50 "$name.txt" experts_dispatch.py "${dispatch[@]}" ;;
    techniques-*)
      setting=${only[${name#techniques-}]:-${name#techniques-}}
      part 50 "$name.txt" techniques_overhead.py "${techniques[@]}" --only="$setting"
      ;;
    profile) part 90 "$name.json" gpu_profile.py --platform="$platform" ;;
    *)
      echo "error: $name: no such part (there are ${default[*]} profile)" >&2
      exit 2
      ;;
  esac
done
"$python" tests/benchmarks/gpu_report.py "$results" | tee "$results/report.md"
