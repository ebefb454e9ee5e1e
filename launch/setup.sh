#!/usr/bin/env bash
# Makes .venv and installs the project there, once; the scripts beside it share it.
#
#   ./launch/setup.sh cuda13                # extras, as in setup.cfg
#   source launch/setup.sh; set_up test

# --help shows the comment at the head of the script that was called, and installs nothing.
for argument in "$@"; do
  called=$(dirname "${BASH_SOURCE[0]}")/$(basename "$0")
  if [[ ($argument == --help || $argument == -h) && -f $called ]]; then
    sed -n '2,/^\(set\|$\)/s/^# \{0,1\}//p' "$called"
    exit
  fi
done

# The first Python that is new enough. PYTHON=/path/to/python chooses another.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or newer is needed and was not found (${PYTHON:-python3.11 .. python}); install it or set PYTHON=/path/to/python" >&2
  return 1
}

set_up() {
  local extras=$1 python stamp wanted
  stamp=.venv/.installed
  wanted="$(cat setup.cfg pyproject.toml | cksum) $(pwd)"
  if [[ -f $stamp ]] && grep -qxF "$wanted [$extras]" "$stamp"; then
    return
  fi
  python=$(find_python) || exit 2
  if [[ ! -x .venv/bin/python ]]; then
    echo "Making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
      rm -rf .venv
      echo "error: $python cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2
      exit 2
    fi
  fi
  echo "Installing chinchilla_jax${extras:+[$extras]} and what it needs in .venv (a minute or two)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}" || {
    echo "error: the installation failed; the lines above say why" >&2
    exit 2
  }
  # Other extras stay installed, but only if they were under the same setup.cfg.
  grep -F "$wanted" "$stamp" 2>/dev/null >"$stamp.new" || true
  echo "$wanted [$extras]" >>"$stamp.new"
  mv "$stamp.new" "$stamp"
}

# Plans, trains and evaluates an experiment: --config=FILE, overrides of its fields, flags of the
# sweep. WORKDIR=... chooses another folder than runs/<config>.
run_experiment() {
  local config=configs/quickstart.py flags=() argument workdir status=0
  for argument in "$@"; do
    case $argument in
      --config=*) config=${argument#--config=} ;;
      --config.*=* | --cells=* | --devices_per_cell=* | --cells_per_device=* | --workers=*)
        flags+=("$argument")
        ;;
      *)
        echo "error: $argument: unexpected; give --config=FILE, --config.field=value or flags of the sweep, and WORKDIR=FOLDER in front for another folder" >&2
        exit 2
        ;;
    esac
  done
  workdir=${WORKDIR:-runs/$(basename "$config" .py)}
  .venv/bin/python -m chinchilla_jax.sweep --config="$config" --workdir="$workdir" ${flags[@]+"${flags[@]}"} || status=$?
  if ((status > 1)); then exit "$status"; fi # 1: some cells failed; the others still make curves
  .venv/bin/python -m chinchilla_jax.evaluate --runs="$workdir" --out="$workdir/report" || exit $?
  printf "text: .venv/bin/python -m chinchilla_jax.generate --run=%q --prompt='def main('\n" "$workdir"
  exit "$status"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  set_up "${1:-}"
fi
