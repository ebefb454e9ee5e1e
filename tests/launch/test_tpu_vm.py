"""launch/tpu_vm.sh against a stand-in for gcloud, whose hosts are folders on this machine.

What runs there is the script's own: the archive is unpacked, tpu_host.sh installs, starts and
follows. Only uv and the Python that it would install are stand-ins.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not (REPOSITORY / ".git").exists(), reason="no git checkout, whose commit would be installed"
)
SWEEP = ["--config=configs/quickstart.py", "--workdir=gs://bucket/runs", "--config.name=two words"]

UV = """#!/usr/bin/env bash
echo "uv $*" >>"$HOME/uv"
if [[ $1 == venv ]]; then
  mkdir -p .venv/bin
  cp "$STAND_IN_PYTHON" .venv/bin/python
fi
"""
# Notes how it was called, outside the hosts; ends with the status that the test wants.
PYTHON = f"""#!{sys.executable} -SE
import json, os, sys
with open(os.environ["GCLOUD_FOLDER"] + "/sweeps", "a") as file:
    file.write(json.dumps([os.environ["HOST"], *sys.argv[1:]]) + "\\n")
print("training on host", os.environ["HOST"])
sys.exit(int(os.environ.get("SWEEP_STATUS", 0)))
"""
STAND_IN = Path(__file__).with_name("gcloud.py")


@pytest.fixture
def cloud(tmp_path):
    """The environment of a machine with gcloud, and its folder."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (tmp_path / "plan").touch()
    scripts = {
        "gcloud": f'#!/usr/bin/env bash\nexec {sys.executable} -SE {STAND_IN} "$@"\n',
        "uv": UV,
        "python3": "#!/usr/bin/env bash\n[[ $* == '-m pip install --quiet --user uv' ]]\n",
        "stand-in-python": PYTHON,
    }
    for name, text in scripts.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "GCLOUD_FOLDER": str(tmp_path),
        "POLL_SECONDS": "0.1",
        "STAND_IN_PYTHON": str(bin_folder / "stand-in-python"),
    }


def run(environment, *arguments, sweep=SWEEP):
    command = ["bash", "launch/tpu_vm.sh", *arguments, *(["--", *sweep] if sweep else [])]
    return subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


GRID = ("--name=grid", "--zone=us-central2-b", "--type=v4-32")


def calls(folder):
    """The calls so far as `queued-resources create` and the like."""
    lines = (Path(folder) / "calls").read_text().splitlines()
    return [" ".join(json.loads(line)[2:4]) for line in lines]


def sweeps(folder):
    return [json.loads(line) for line in (Path(folder) / "sweeps").read_text().splitlines()]


def test_from_nothing_to_the_end(cloud, tmp_path):
    done = run(cloud, *GRID)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path) == [
        "queued-resources describe", "queued-resources create", "queued-resources describe",
        "queued-resources describe", "tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh", "tpu-vm ssh",
        "tpu-vm ssh", "tpu-vm ssh", "queued-resources delete",
    ]  # fmt: skip
    assert "training on host 0" in done.stdout and "training on host 1" not in done.stdout
    called = ["-m", "chinchilla_jax.sweep", *SWEEP]
    assert sorted(sweeps(tmp_path)) == [["0", *called], ["1", *called]]
    create = json.loads((tmp_path / "calls").read_text().splitlines()[1])
    assert create[2:] == [
        "queued-resources", "create", "grid", "--node-id=grid", "--zone=us-central2-b",
        "--accelerator-type=v4-32", "--runtime-version=tpu-ubuntu2204-base", "--spot",
    ]  # fmt: skip
    assert not (tmp_path / "state").exists()


def test_pre_empted_twice_it_is_made_anew_and_goes_on(cloud, tmp_path):
    (tmp_path / "plan").write_text("preempted\npreempted\n")
    done = run(cloud, *GRID)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path).count("queued-resources create") == 3
    assert calls(tmp_path).count("queued-resources delete") == 3
    assert [host for host, *_ in sweeps(tmp_path)].count("0") == 3
    assert len({tuple(flags) for _, *flags in sweeps(tmp_path)}) == 1
    assert "grid: SUSPENDED" in done.stderr or "grid: SUSPENDING" in done.stderr


def test_a_mistake_in_the_call_is_not_tried_again_and_kept_on_request(cloud, tmp_path):
    done = run(cloud | {"SWEEP_STATUS": "2"}, *GRID, "--keep")
    assert done.returncode == 2
    assert calls(tmp_path).count("queued-resources create") == 1
    assert "queued-resources delete" not in calls(tmp_path)
    assert run(cloud, "--delete", *GRID, sweep=()).returncode == 0
    assert not (tmp_path / "state").exists()


def test_the_same_command_follows_a_sweep_that_runs(cloud, tmp_path):
    """Machine and installation are there; the sweep runs or not, and is not started twice."""
    assert run(cloud, *GRID, "--keep").returncode == 0
    # As if it still ran: a process that lives until it is followed again, and its status to come.
    followed = f"(( $(grep -c 'tpu_host.sh follow' {tmp_path}/calls) == 2 ))"
    command = (
        f"(until {followed}; do sleep .1; done; sleep .1; echo 0 >sweep.status) >/dev/null & "
        "echo $! >sweep.pid"
    )
    for number in range(2):
        home = tmp_path / f"host{number}" / "chinchilla_jax"
        subprocess.run(["bash", "-c", command], cwd=home, check=True)
    done = run(cloud, *GRID, "--keep")
    assert done.returncode == 0
    assert calls(tmp_path).count("queued-resources create") == 1
    assert len(sweeps(tmp_path)) == 2
    assert (tmp_path / "host0" / "uv").read_text().count("uv venv") == 1


def test_a_dry_run_shows_every_call_and_makes_none(cloud, tmp_path):
    shown = run(cloud, *GRID, "--dry-run")
    assert shown.returncode == 0 and not (tmp_path / "calls").exists()
    dry = re.findall(r"^\+ gcloud compute tpus (\S+ \S+)", shown.stderr, re.MULTILINE)
    assert run(cloud, *GRID).returncode == 0
    assert set(dry) == set(calls(tmp_path))
    assert all("--zone=us-central2-b" in line for line in shown.stderr.splitlines())


@pytest.mark.parametrize(
    "arguments,sweep,words",
    [
        (("--zone=z", "--type=v4-8"), SWEEP, "--name: is required"),
        (("--name=n", "--type=v4-8"), SWEEP, "--zone: is required"),
        (("--name=n", "--zone=z"), SWEEP, "--type: is required"),
        (GRID, (), "the sweep's own flags are missing"),
        ((*GRID, "--nmae=x"), SWEEP, "--nmae=x: unexpected"),
        (GRID, ["--config=c.py", "--workdir=/tmp/w"], "--workdir: must be in a bucket"),
    ],
)
def test_a_mistake_is_one_line(cloud, tmp_path, arguments, sweep, words):
    done = run(cloud, *arguments, sweep=sweep)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


def test_help_is_the_whole_of_it_and_calls_nothing(cloud, tmp_path):
    done = run(cloud, "--help", sweep=())
    assert done.returncode == 0 and not done.stderr
    assert all(flag in done.stdout for flag in ("--name", "--dry-run", "--delete", "--on-demand"))
    assert "set -e" not in done.stdout
    assert not (tmp_path / "calls").exists()


def test_an_account_that_may_not_look_is_told_so(cloud, tmp_path):
    (tmp_path / "bin" / "gcloud").write_text(
        "#!/usr/bin/env bash\necho 'ERROR: PERMISSION_DENIED: tpu.nodes.list' >&2\nexit 1\n"
    )
    done = run(cloud, *GRID)
    assert done.returncode == 2 and "PERMISSION_DENIED" in done.stderr
