#!/usr/bin/env bash
# What launch/tpu_vm.sh runs on each host of a TPU VM, from the checkout it copied there.
#
#   bash launch/tpu_host.sh install
#   bash launch/tpu_host.sh start FLAGS...    # of chinchilla_jax.sweep; nothing if it runs already
#   bash launch/tpu_host.sh follow            # its log, until it ends; the exit status is its own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

running() { [[ -s sweep.pid ]] && kill -0 "$(cat sweep.pid)" 2>/dev/null; }

case ${1:-} in
  install)
    # The machine's own Python may be too old (3.10 on Ubuntu 22.04): uv brings one.
    if [[ ! -x .venv/bin/python ]]; then
      python3 -m pip install --quiet --user uv
      PATH=$HOME/.local/bin:$PATH uv venv --quiet --python=3.12 .venv
    fi
    PATH=$HOME/.local/bin:$PATH uv pip install --quiet --python=.venv/bin/python --editable '.[tpu,gcs]'
    ;;
  start)
    if running; then exit; fi
    rm -f sweep.status
    # A session of its own, which outlives this connection.
    # shellcheck disable=SC2016
    setsid bash -c '.venv/bin/python -m chinchilla_jax.sweep "$@"; echo $? >sweep.status' \
      sweep "${@:2}" >>sweep.log 2>&1 </dev/null &
    echo $! >sweep.pid
    ;;
  follow)
    tail --lines=+1 --follow --pid="$(cat sweep.pid)" sweep.log
    exit "$(cat sweep.status)"
    ;;
  *)
    echo "error: $0: expected install, start or follow" >&2
    exit 2
    ;;
esac
