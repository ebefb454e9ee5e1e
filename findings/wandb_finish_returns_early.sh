#!/usr/bin/env bash
# wandb 0.31.0: run.finish() of an offline run may return before the run's file holds anything but its
# head of 7 bytes: closing the file is a message to wandb's own process that is not answered. Whoever
# reads or copies the file next, in the same process, gets an empty run. wandb.teardown() waits, and so
# does the end of the process.
#
# Output:
#   7 of 20 files had 7 bytes when finish() returned
#   0 of 20 after teardown()
#
# The first number is another each time. Exits non-zero when it is 0, or the second is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check wandb==0.31.0
cd "$folder"
WANDB_MODE=offline "$folder/venv/bin/python" - <<'PYTHON'
import os
import sys

import wandb

files, short = [], 0
for number in range(20):
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(project="p", id=f"run{number}", reinit="create_new", settings=settings)
    run.log({"loss": 1.0})
    files.append(run.settings.sync_file)
    run.finish()
    short += os.stat(files[-1]).st_size == 7
wandb.teardown()
left = sum(os.stat(file).st_size == 7 for file in files)
print(f"{short} of {len(files)} files had 7 bytes when finish() returned")
print(f"{left} of {len(files)} after teardown()")
sys.exit(not short or bool(left))
PYTHON
