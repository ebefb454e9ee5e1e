#!/usr/bin/env bash
# Everything that must be green: format, lint, types, tests. Arguments go to pytest.
#
#   ./launch/test.sh                  # all, under eight minutes on two cores
#   ./launch/test.sh -m slow          # the long ones
#   ./launch/test.sh tests/scaling -x
#   ./launch/test.sh -n 0             # the tests in one process, as --pdb wants
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
set_up test

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
# Two workers, each given whole files: what a file sets up is set up once.
.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile "$@"
