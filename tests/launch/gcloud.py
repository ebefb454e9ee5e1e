"""A stand-in for gcloud: writes down every call, and plays a TPU VM of two hosts in a folder.

Its folder, $GCLOUD_FOLDER, has `calls` (a JSON list of arguments per line), `state` (of the queued
resource), `plan` (what happens after each `follow`, a line each) and the homes of the hosts.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["GCLOUD_FOLDER"])
HOSTS = 2


def main(arguments):
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    assert arguments[:2] == ["compute", "tpus"]
    flags = dict(a.removeprefix("--").partition("=")[::2] for a in arguments if a[:2] == "--")
    return ACTIONS[tuple(arguments[2:4])](flags, [a for a in arguments[4:] if a[:2] != "--"])


def create(flags, names):
    if (FOLDER / "state").exists():
        sys.exit(f"ERROR: (gcloud.create) ALREADY_EXISTS: {names[0]}")
    assert flags["zone"] and flags["accelerator-type"] and flags["runtime-version"]
    (FOLDER / "state").write_text("PROVISIONING")
    for number in range(HOSTS):
        (FOLDER / f"host{number}").mkdir()


def describe(flags, names):
    if not (FOLDER / "state").exists():
        sys.exit(f"ERROR: (gcloud.describe) NOT_FOUND: {names[0]}")
    state = (FOLDER / "state").read_text()
    print(state)
    following = {"PROVISIONING": "ACTIVE", "SUSPENDING": "SUSPENDED"}
    (FOLDER / "state").write_text(following.get(state, state))


def delete(flags, names):
    assert "force" in flags and "quiet" in flags
    for number in range(HOSTS):
        shutil.rmtree(FOLDER / f"host{number}")
    (FOLDER / "state").unlink()


def copy(flags, names):
    source, target = names
    for number in _workers(flags):
        shutil.copy(source, FOLDER / f"host{number}" / target.partition(":")[2])


def ssh(flags, names):
    status = 0
    for number in _workers(flags):
        home = FOLDER / f"host{number}"
        environment = os.environ | {"HOME": str(home), "HOST": str(number)}
        done = subprocess.run(["bash", "-c", flags["command"]], cwd=home, env=environment)
        status = max(status, done.returncode)
    if flags["command"].endswith("follow"):
        events = (FOLDER / "plan").read_text().splitlines()
        (FOLDER / "plan").write_text("\n".join(events[1:]))
        if events and events[0] == "preempted":  # the hosts are gone, and with them their disks
            for number in range(HOSTS):
                shutil.rmtree(FOLDER / f"host{number}")
                (FOLDER / f"host{number}").mkdir()
            (FOLDER / "state").write_text("SUSPENDING")
            return 255
    return status


def _workers(flags):
    return range(HOSTS) if flags["worker"] == "all" else [int(flags["worker"])]


ACTIONS = {
    ("queued-resources", "create"): create,
    ("queued-resources", "describe"): describe,
    ("queued-resources", "delete"): delete,
    ("tpu-vm", "scp"): copy,
    ("tpu-vm", "ssh"): ssh,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
