#!/usr/bin/env bash
# The whole loop on this machine: plan, train and evaluate an experiment.
#
#   ./launch/local.sh                                    # configs/quickstart.py
#   ./launch/local.sh --config=configs/cpu_serious.py    # another, and any --config.field=value
#   WORKDIR=/data/mine ./launch/local.sh                 # another work folder
#
# What is done is not done again: stop it with Ctrl-C and start it again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
set_up ""
run_experiment "$@"
