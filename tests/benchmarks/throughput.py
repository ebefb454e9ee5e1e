"""Training throughput of our step against PyTorch on one device, side by side in one run.

    pip install -U "jax[cuda13]" torch       # on a machine with an NVIDIA GPU
    python tests/benchmarks/throughput.py
    python tests/benchmarks/throughput.py --sizes tiny      # anywhere, in seconds

The peer is the same model in PyTorch as a person tunes it: SDPA flash attention, bfloat16 autocast
over float32 weights, `torch.compile`, fused AdamW (on a CPU: eager, float32). Both start from the
same weights, read the same tokens, and must report the same losses before anything is timed. Each
lives in a process of its own, they take turns, and speeds are medians over turns.

Model FLOPs are those of the convention `matmul` (`experiment/counting.py`): every product forward
and backward with the full S x S attention, nothing for what is computed again. MFU is their share
of the data sheet's dense bfloat16 peak, and is not given for a device that
`experiment/hardware.py` does not know; the share of the measured ceiling, large bfloat16 products
on this very device, stands beside it. Memory is the peak of the allocator that each framework
keeps on the GPU; on a CPU, of the whole process. The plan's memory and step time
(`experiment/estimate.py`) stand beside those measured, where it knows the device.

`--apart` has one come after the other, for a GPU that does not hold both. With `--out` the figures
are in a file as well, as they come.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peers import JaxTraining, Peer, usable_cores
from results import save
from torch_peer import INSTALL, TorchTraining

from chinchilla_jax.experiment import config, counting, estimate
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.experiment.meshes import MeshShape
from chinchilla_jax.experiment.model import ModelConfig


@dataclass(frozen=True)
class Size:
    """A shape of `modern` with the batch it is trained on."""

    width: int
    depth: int
    head_size: int
    ff_size: int
    sequence: int
    batch: int  # sequences
    vocab_size: int = 32_000

    @property
    def shape(self) -> ModelConfig:
        heads = self.width // self.head_size
        return ModelConfig(
            vocab_size=self.vocab_size,
            width=self.width,
            depth=self.depth,
            heads=heads,
            kv_heads=heads,
            head_size=self.head_size,
            ff_size=self.ff_size,
        )


# GPT-2's widths, depths and heads (Radford et al. 2019; 1.3b: GPT-3 XL, Brown et al. 2020, with
# heads of 128). SwiGLU takes 8/3 D, to a multiple of 128, and the readout is not tied, so that
# they count 32M, 134M, 374M and 1.35B parameters.
SIZES = {
    "tiny": Size(64, 2, 16, 192, 64, 8, vocab_size=256),
    "30m": Size(384, 4, 64, 1024, 2048, 32),
    "124m": Size(768, 12, 64, 2048, 2048, 16),
    "350m": Size(1024, 24, 64, 2816, 2048, 8),
    "1.3b": Size(2048, 24, 128, 5504, 2048, 8),
}


def facts(ours: Peer, cores: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """What is known of the device before a model is on it: kind, what `auto` means there, peak of
    the data sheet or None, measured ceiling."""
    kind, dtype, peak = ours.call("device", arguments.dtype)
    ceiling = ours.call("matmul_flops_per_second", 2048 if cores else 8192, 8, dtype)
    return {"device": kind, "dtype": dtype, "peak_flops": peak, "ceiling_flops": ceiling}


def pytorch(dtype: str, cores: list[int], arguments: argparse.Namespace) -> Peer | None:
    """PyTorch's process, None where it is not wanted."""
    gpu = not cores
    torch = functools.partial(
        TorchTraining,
        arguments.threads,
        fused=gpu,  # not on a CPU, as in throughput_cpu.py
        device="cuda" if gpu else "cpu",
        compiled=gpu or arguments.compile,
        bfloat16=dtype == "bfloat16",
    )
    return None if arguments.alone else Peer(torch, cores)


def planned(run: config.RunConfig, device: str, dtype: str) -> dict[str, float] | None:
    """What the plan says of the run on one device, None where it does not know the device.

    Returns:
      memory, bytes; step_seconds, as expected; least_seconds, what a step takes at least.
    """
    if (hardware := by_device_kind(device)) is None:
        return None
    run = replace(run, training=replace(run.training, dtype=dtype))
    found = estimate.on_mesh(run, MeshShape(1, 1, 1), 1, hardware)
    return {
        "memory": found.memory.total,
        "step_seconds": 3600 * found.hours / run.steps,
        "least_seconds": found.step_seconds,
    }


def compare(
    name: str,
    ours: Peer,
    theirs: Peer | None,
    known: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """Speeds and memory of both at one size, as they come, after a check that they do the same
    work.

    Both are new processes: a framework's peak of memory is of all its life.
    """
    size = SIZES[name]
    batch = arguments.batch or size.batch
    sequence = arguments.sequence or size.sequence
    dtype = known["dtype"]
    training = {"remat": arguments.remat, "layers": arguments.layers, "dtype": dtype}
    run, params = ours.call("build", size.shape, batch, sequence, training)
    _, our_losses = ours.call("train", 8)
    row: dict[str, Any] = {
        "params": counting.count_params(run.model).total,
        "batch": batch,
        "sequence": sequence,
        "step_flops": counting.flops_per_step(run.model, batch, sequence, "matmul"),
        "plan": planned(run, known["device"], dtype),
        "step_seconds": {},
        "memory": {},
    }
    running = {"ours": ours}
    if arguments.apart or theirs is None:
        measure(row, running, arguments)
        yield row  # PyTorch may take too long to compile
        running = {}
    if theirs is not None:
        counted = theirs.call("build", run, params)
        if counted != row["params"]:
            raise SystemExit(f"{name}: {row['params']} parameters here, {counted} in PyTorch")
        _, their_losses = theirs.call("train", 8)
        tolerance = 1e-4 if dtype == "float32" else 2e-2
        if not np.allclose(our_losses, their_losses, rtol=tolerance):
            raise SystemExit(f"{name}: losses {our_losses} here, {their_losses} in PyTorch")
        measure(row, running | {"theirs": theirs}, arguments)
        yield row


def measure(
    row: dict[str, Any], running: Mapping[str, Peer], arguments: argparse.Namespace
) -> None:
    """Adds step times and memory of peers that take turns, and ends them."""
    speeds: dict[str, list[float]] = {who: [] for who in running}
    steps = {}
    for who, peer in running.items():  # as many steps as fill a turn
        peer.call("train", 4)
        steps[who] = max(4, int(8 * arguments.seconds / peer.call("train", 8)[0]))
    for _ in range(arguments.turns):
        for who, peer in running.items():
            speeds[who].append(steps[who] / peer.call("train", steps[who])[0])
    for who, peer in running.items():
        row["step_seconds"][who] = 1 / statistics.median(speeds[who])
        row["memory"][who] = peer.call("peak_bytes")
        peer.close()


def heading(known: Mapping[str, Any], cores: list[int]) -> str:
    """The device, and the columns of the table."""
    peak, ceiling = known["peak_flops"], known["ceiling_flops"] / 1e12
    told = f"peak {peak / 1e12:.0f} TFLOP/s" if peak else "peak not known, so no MFU"
    return "\n".join(
        (
            f"{known['device']}: {known['dtype']}, {told}; matmul ceiling {ceiling:.3g} TFLOP/s",
            "FLOPs by the convention `matmul`; memory: " + ("whole process" if cores else "GPU"),
            " size   params        batch  tokens/s: us     PyTorch  ratio   TFLOP/s    MFU  ceiling"
            "   GB: us  PyTorch     plan   ms: us     plan",
        )
    )


def line(name: str, row: dict[str, Any], peak: float | None, ceiling: float) -> str:
    """One size, as a line of the table; - for what is not known or was not run."""

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    seconds, memory, plan = row["step_seconds"], row["memory"], row["plan"]
    tokens = {who: row["batch"] * row["sequence"] / value for who, value in seconds.items()}
    theirs = tokens.get("theirs")
    flops = row["step_flops"] / seconds["ours"]
    gigabytes = [memory["ours"], memory.get("theirs"), plan and plan["memory"]]
    shown = " ".join(cell(value and value / 1e9, ".2f").rjust(8) for value in gigabytes)
    return (
        f"{name:>5s} {row['params'] / 1e6:7.1f}M {row['batch']:>4d} x {row['sequence']:<4d}"
        f" {tokens['ours']:>11,.0f} {cell(theirs, ',.0f'):>11s}"
        f" {cell(theirs and tokens['ours'] / theirs, '.2f'):>6s} {flops / 1e12:>9.3g}"
        f" {cell(peak and flops / peak, '.1%'):>6s} {flops / ceiling:8.1%} {shown}"
        f" {1e3 * seconds['ours']:8.1f} {cell(plan and 1e3 * plan['step_seconds'], '.1f'):>8s}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    gpu = importlib.util.find_spec("jax_cuda12_plugin") or importlib.util.find_spec(
        "jax_cuda13_plugin"
    )
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu" if gpu else "cpu")
    parser.add_argument(
        "--sizes", nargs="+", choices=list(SIZES), default=list(SIZES)[1:] if gpu else ["tiny"]
    )
    parser.add_argument("--batch", type=int, default=0, help="sequences a step; 0: the size's own")
    parser.add_argument("--sequence", type=int, default=0, help="tokens; 0: the size's own")
    parser.add_argument("--dtype", choices=config.DTYPES, default="auto")
    parser.add_argument("--compile", action="store_true", help="PyTorch's model, on a CPU too")
    parser.add_argument("--remat", choices=config.REMAT_POLICIES, default="auto")
    parser.add_argument("--layers", choices=config.LAYER_LOOPS, default="auto")
    parser.add_argument("--threads", type=int, default=2, help="of each peer on a CPU")
    parser.add_argument("--turns", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--apart", action="store_true", help="one after the other")
    parser.add_argument("--out", type=Path, help="a JSON file of the figures, written as they come")
    arguments = parser.parse_args()
    if not arguments.alone and importlib.util.find_spec("torch") is None:
        sys.exit(f"PyTorch is not installed (or use --alone): {INSTALL}")
    cores = [] if arguments.device == "gpu" else usable_cores(arguments.threads)
    known: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for name in arguments.sizes:
        ours = Peer(JaxTraining, cores)
        if not known:
            known = facts(ours, cores, arguments)
            print(heading(known, cores), flush=True)

        theirs = pytorch(known["dtype"], cores, arguments)
        for row in compare(name, ours, theirs, known, arguments):
            rows[name] = row
            save(arguments.out, **known, sizes=rows)
        print(line(name, rows[name], known["peak_flops"], known["ceiling_flops"]), flush=True)


if __name__ == "__main__":
    main()
