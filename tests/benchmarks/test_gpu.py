"""The figures from a GPU, as far as they can be had without one: `gpu.sh` and its report."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experts_dispatch import differences, drawn
from gpu_correctness import Check, attempted, compared, losses_compared
from gpu_device import Device, Sizes, Steps
from gpu_profile import kind_of
from gpu_report import bars, lines, read
from peers import run_of
from results import save
from throughput import SIZES, planned

from chinchilla_jax.experiment import counting, memory
from chinchilla_jax.experiment.meshes import MeshShape
from chinchilla_jax.training import kernels, sharding

SCRIPT = Path(__file__).with_name("gpu.sh")
CARD = "NVIDIA H100 80GB HBM3"
PARTS = (
    "correctness.json",
    "throughput-tiny.json",
    "cells.json",
    "techniques-sparsity.txt",
    "techniques-quantisation.txt",
    "techniques-distillation.txt",
    "techniques-experts.txt",
    "techniques-dispatch.txt",
)

# Notes its program; writes the file of --out where there is one, and fails where it is told to.
STAND_IN_PYTHON = """#!/bin/sh
printf '%s\\n' "$(basename "$1")" >>"$CALLS"
[ "$(basename "$1")" = "$WAITS" ] && echo $$ >"$CALLS.pid" && exec sleep 100
for argument; do case $argument in --out=*) echo '{"n": 1}' >"${argument#--out=}" ;; esac; done
[ "$(basename "$1")" = gpu_report.py ] && echo "the report of $2"
[ "$(basename "$1")" != "$FAILS" ]
"""


def call(folder, *arguments, **variables):
    """(what gpu.sh printed, the programs it called) with a stand-in for Python."""
    python, calls = folder / "python", folder / "calls"
    python.write_text(STAND_IN_PYTHON)
    python.chmod(0o755)
    calls.unlink(missing_ok=True)
    environment = {
        "PYTHON": str(python), "RESULTS": str(folder / "results"), "CALLS": str(calls), "FAILS": "",
        "WAITS": "",
    }  # fmt: skip
    script = subprocess.Popen(
        [SCRIPT, "--platform=cpu", *arguments], env=os.environ | environment | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if "WAITS" in variables:
        while not (pid := folder / "calls.pid").exists() or not pid.read_text().strip():
            time.sleep(0.05)
        script.terminate()
    out, err = script.communicate()
    done = subprocess.CompletedProcess(script.args, script.returncode, out, err)
    return done, calls.read_text().split() if calls.exists() else []


def test_all_ways_to_experts_compute_the_same():
    found = differences(drawn(48, 8, 16, experts=4, picks=2, dtype="float32"))
    assert max(found.values()) < 1e-5 and found.keys() == {"blocks", "ragged_dot", "all"}


def test_a_part_whose_result_is_there_is_not_run_again(tmp_path):
    done, calls = call(tmp_path)
    assert done.returncode == 0, done.stderr
    programs = ["gpu_correctness.py", "throughput.py", "gpu_cells.py"]
    programs += [*4 * ["techniques_overhead.py"], "experts_dispatch.py"]
    assert calls == [*programs, "gpu_report.py"]
    found = {path.name for path in (tmp_path / "results").iterdir()}
    assert found >= {*PARTS, "report.md"} and not any(name.endswith(".part") for name in found)
    assert (tmp_path / "results" / "report.md").read_text() == f"the report of {tmp_path}/results\n"
    (tmp_path / "results" / "cells.json").unlink()
    done, calls = call(tmp_path)
    assert calls == ["gpu_cells.py", "gpu_report.py"]
    assert done.stdout.count("there already") == len(PARTS) - 1


def test_a_part_that_fails_stops_no_other_and_is_run_again(tmp_path):
    done, calls = call(tmp_path, FAILS="throughput.py")
    assert done.returncode == 0 and len(calls) == len(PARTS) + 1
    assert "throughput-tiny.json: failed with status 1" in done.stdout
    assert (tmp_path / "results" / "throughput-tiny.json.part").exists()  # as far as it came
    assert not (tmp_path / "results" / "throughput-tiny.json").exists()
    assert call(tmp_path)[1] == ["throughput.py", "gpu_report.py"]


def test_without_time_left_nothing_is_begun(tmp_path):
    done, calls = call(tmp_path, BUDGET="5")
    assert calls == ["gpu_report.py"] and done.stdout.count("no time left") == len(PARTS)


def test_told_to_stop_it_leaves_no_process_behind(tmp_path):
    done, calls = call(tmp_path, WAITS="throughput.py")
    assert done.returncode == 130 and calls == ["gpu_correctness.py", "throughput.py"]
    assert (tmp_path / "results" / "correctness.json").exists()
    pid = int((tmp_path / "calls.pid").read_text())
    for _ in range(200):  # it was told so, and ends
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            time.sleep(0.05)
            continue
        break
    else:
        pytest.fail("still there")
    assert call(tmp_path)[1][0] == "throughput.py"


def test_without_a_gpu_is_one_line(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--platform=cpu" in done.stderr and not done.stdout


def test_an_unknown_part_or_platform_is_one_line(tmp_path):
    done, calls = call(tmp_path, "speed")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not calls
    done = subprocess.run([SCRIPT, "--platform=tpu"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def made_up(folder):
    """Results of a GPU that meets some bars."""
    folder.mkdir()
    checks = [
        {"name": "a", "error": 1e-3, "tolerance": 1e-2, "reason": "", "met": True},
        {"name": "b", "error": 2e-2, "tolerance": 1e-2, "reason": "", "met": False},
        {"name": "c", "error": None, "tolerance": 1e-2, "reason": "no kernel", "met": False},
    ]
    save(folder / "correctness.json", device=CARD, checks=checks)
    for name, ours, theirs, peak in (
        ("30m", 0.010, 0.012, 1.05e10),
        ("124m", 0.020, 0.019, 1.2e10),
        ("1.3b", 0.250, 0.250, 0.95e10),
    ):
        row = {
            "params": 1e9,
            "batch": 8,
            "sequence": 2048,
            "step_flops": 0.51 * 0.25 * 989e12,
            "plan": {"memory": 1e10, "step_seconds": 0.3, "least_seconds": 0.15},
            "step_seconds": {"ours": ours, "theirs": theirs},
            "memory": {"ours": peak, "theirs": 2e10},
        }
        save(folder / f"throughput-{name}.json", device=CARD, dtype="bfloat16",
             peak_flops=989e12, ceiling_flops=800e12, sizes={name: row})  # fmt: skip
    rates = {"1": 100.0, "2": 190.0, "4": 240.0}
    save(folder / "cells.json", device=CARD, size="30m", batch="4 x 2048", rates=rates)
    return folder


def verdicts(folder):
    return {bar.what: (bar.found, bar.met) for bar in bars(read(folder))}


def test_bars_are_met_not_met_or_not_measured(tmp_path):
    found = verdicts(made_up(tmp_path / "results"))
    assert found == {
        "every check of correctness": ("1 of 3", False),
        "30m: at least 1.0 x PyTorch": ("1.20", True),
        "30m: memory within 10% of the plan": ("+5.0%", True),
        "124m: at least 1.0 x PyTorch": ("0.95", False),
        "124m: memory within 10% of the plan": ("+20.0%", False),
        "350m: at least 1.0 x PyTorch": ("-", None),
        "350m: memory within 10% of the plan": ("-", None),
        "1.3b: at least 1.0 x PyTorch": ("1.00", True),
        "1.3b: at least 50% MFU": ("51.0%", True),
        "1.3b: memory within 10% of the plan": ("-5.0%", True),
        "4 cells on the GPU at least 2.5 x one": ("2.40", False),
    }


def test_the_report_is_made_of_what_is_there(tmp_path):
    folder = made_up(tmp_path / "results")
    (folder / "techniques-sparsity.txt.part").write_text("sparsity .5 1.02\n")
    program = [sys.executable, Path(__file__).with_name("gpu_report.py"), folder]
    report = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert report.startswith(f"{CARD}, ") and report.count(CARD) == 1
    assert "| 124m: at least 1.0 x PyTorch | 0.95 | **not met** |" in report
    assert "| 350m: memory within 10% of the plan | - | not measured |" in report
    unmet = [line for line in report.splitlines() if line.startswith("*")]
    assert unmet == ["* b: 0.02, at most 0.01.", "* c: not computed, at most 0.01. no kernel"]
    row = next(line for line in report.splitlines() if line.startswith("| 1.3b, 1B, 8 x 2048"))
    assert row.split(" | ")[1:] == [
        "65,536", "65,536", "1.00", "51.0%", "51.0%", "9.50", "20.00", "10.00", "250.0", "300.0 |"
    ]  # fmt: skip
    assert "| 4 | 240 | 2.40 |" in report and "sparsity .5 1.02" in report
    (folder / "cells.json").write_text((folder / "cells.json").read_text().replace("H100", "H200"))
    origins = [line for line in lines(read(folder)) if line.startswith("NVIDIA")]
    assert origins[0].endswith(": cells") and "H200" in origins[0] and CARD in origins[1]
    assert list(lines({})) == ["No bar was measured."]


def test_a_part_that_did_not_end_counts_as_far_as_it_came(tmp_path):
    """PyTorch at 1.3b ran out of time; of an unknown device there is no plan and no MFU."""
    folder = made_up(tmp_path / "results")
    content = json.loads((folder / "throughput-1.3b.json").read_text())
    (folder / "throughput-1.3b.json").unlink()
    for who in ("step_seconds", "memory"):
        del content["sizes"]["1.3b"][who]["theirs"]
    part = folder / "throughput-1.3b.json.part"
    part.write_text(json.dumps(content))
    assert verdicts(folder)["1.3b: at least 1.0 x PyTorch"] == ("-", None)
    assert verdicts(folder)["1.3b: at least 50% MFU"] == ("51.0%", True)
    content["peak_flops"] = content["sizes"]["1.3b"]["plan"] = None
    part.write_text(json.dumps(content))
    assert verdicts(folder)["1.3b: at least 50% MFU"] == ("-", None)
    assert verdicts(folder)["1.3b: memory within 10% of the plan"] == ("-", None)
    assert any(line.startswith("| 1.3b") and " - " in line for line in lines(read(folder)))


def test_the_plan_stands_beside_what_is_measured():
    size = SIZES["1.3b"]
    run = run_of(size.shape, size.batch, size.sequence)
    plan = planned(run, CARD, "bfloat16")
    flops = counting.flops_per_step(run.model, size.batch, size.sequence, "matmul")
    assert plan["least_seconds"] == pytest.approx(flops / 989e12)
    assert plan["step_seconds"] == pytest.approx(2 * flops / 989e12)  # at half of the peak
    one = MeshShape(1, 1, 1)
    whole = memory.estimate(run, one, microbatches=1, compute=2, fused=True)
    assert plan["memory"] == whole.total < 0.9 * 80e9
    assert plan["memory"] < planned(run, "NVIDIA H200", "float32")["memory"]
    assert planned(run, "cpu", "float32") is None


def test_every_size_that_is_compared_has_the_kernel_of_its_gpu():
    mesh = jax.make_mesh((1, 1, 1), sharding.AXES, devices=jax.devices()[:1])
    for name in ("30m", "124m", "350m", "1.3b"):
        size = SIZES[name]
        assert size.sequence == 2048
        assert kernels.fused_attention("cuda", mesh, size.shape, jnp.bfloat16, size.sequence)
    run = Sizes().run()
    assert kernels.fused_attention("cuda", mesh, run.model, jnp.bfloat16, run.sequence_length)


def test_a_profile_tells_kernels_by_what_they_do():
    """Names as XLA, cuBLAS and cuDNN give them on Hopper, with the operation before."""
    found = {
        "custom-call.3 cudnn_generated_fort_native_sdpa_sm90_flash_fprop": "attention",
        "custom-call.7 nvjet_tst_256x128_64x4_1x2_h_bz_coopA_TNN": "products",
        "gemm_fusion_dot.5": "products",
        "MemcpyD2D": "copies",
        "input_reduce_fusion.1": "sums and scatters",
        "loop_add_fusion": "elementwise",
        "command_buffer": "other",
    }
    assert {name: kind_of(name) for name in found} == found


def test_checks_know_what_is_not_the_same():
    a = np.array([2.0, 4.0])
    assert losses_compared("", a, a, 0.0).met
    check = losses_compared("", a, a * [1, 1.01], 1e-2)
    assert check.error == pytest.approx(0.01 / 1.01) and check.met
    assert not losses_compared("", a, a * [1, 1.02], 1e-2).met
    assert not losses_compared("", a * np.nan, a, 1e-2).met
    assert losses_compared("", a, a[:1], 1e-2).reason == "2 losses against 1"

    one = Steps(a, a, {"query": a, "key": a})
    other = Steps(a * 1.001, np.zeros(0), {"query": a, "key": a * [1, 1.1]})
    assert [(c.name, c.met) for c in compared("", one, one, (0.0, 0.0))] == [
        (": losses", True), (": evaluation", True), (": gradients", True)
    ]  # fmt: skip
    losses, gradients = compared("", other, one, (1e-2, 1e-2))
    assert losses.met and not gradients.met and "key" in gradients.reason
    assert gradients.error == pytest.approx(0.4 / 20**0.5)
    (died,) = compared("", one, "the process ended with status -11", (1e-2, 1e-2))
    assert died.error is None and not died.met and died.reason.endswith("-11")

    def ends():
        yield Check("one", 0.0, 0.0)
        raise SystemExit("no such kernel")

    assert [(c.name, c.met, c.reason) for c in attempted("all", ends())] == [
        ("one", True, ""), ("all", False, "no such kernel"),
    ]  # fmt: skip


def test_attention_is_compared_with_an_exact_reference():
    """The library's kernel in bfloat16 differs, and by no more than bfloat16 may."""
    for heads, kv_heads in ((4, 4), (4, 2)):
        errors = Device().attention(heads, kv_heads, 16, 32)
        assert len(errors) == 4 and all(1e-4 < error < 1e-2 for error in errors)


def test_a_run_is_interrupted_or_the_check_says_so(tmp_path):
    run = Sizes(width=16, depth=1, head_size=16, batch=2, sequence=16).run(dtype="float32")
    device = Device()
    stopped = device.train(run, tmp_path / "run", 4)
    assert 4 <= len(stopped) < run.steps
    continued = device.train(run, tmp_path / "run")
    assert len(continued) == run.steps + 1 and np.isfinite(continued).all()
    with pytest.raises(RuntimeError, match="stopped after 4"):  # it is over
        device.train(run, tmp_path / "run", 4)


@pytest.mark.slow
def test_all_of_it_on_a_cpu(tmp_path):
    """The script itself, tiny: every check is met, speeds are there."""
    environment = {"PYTHON": sys.executable, "RESULTS": str(tmp_path), "BUDGET": "2000"}
    done = subprocess.run(
        [SCRIPT, "--platform=cpu", "correctness", "cells", "profile",
         "techniques-sparsity", "techniques-quantisation", "techniques-distillation"],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    results = read(tmp_path)
    checks = results["correctness"]["checks"]
    assert len(checks) == 53 and all(check["met"] for check in checks), done.stdout
    assert set(results["cells"]["rates"]) == {"1", "2"}
    for name in ("sparsity", "quantisation", "distillation"):
        assert f"\n{name}" in (tmp_path / f"techniques-{name}.txt").read_text(), done.stdout
    assert results["profile"]["kinds"]["products"] > 0
