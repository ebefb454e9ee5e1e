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
keeps on the GPU; on a CPU, of the whole process.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers import JaxTraining, Peer, usable_cores
from torch_peer import INSTALL, TorchTraining

from chinchilla_jax.experiment import config, counting
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
    "30m": Size(384, 4, 64, 1024, 1024, 64),
    "124m": Size(768, 12, 64, 2048, 1024, 32),
    "350m": Size(1024, 24, 64, 2816, 1024, 16),
    "1.3b": Size(2048, 24, 128, 5504, 2048, 8),
}


def peers(dtype: str, cores: list[int], arguments: argparse.Namespace) -> tuple[Peer, Peer | None]:
    """Ours and PyTorch's processes, new ones: a framework's peak of memory is of all its life."""
    gpu = not cores
    torch = functools.partial(
        TorchTraining,
        arguments.threads,
        fused=gpu,  # not on a CPU, as in throughput_cpu.py
        device="cuda" if gpu else "cpu",
        compiled=gpu or arguments.compile,
        bfloat16=dtype == "bfloat16",
    )
    return Peer(JaxTraining, cores), None if arguments.alone else Peer(torch, cores)


def compare(
    name: str, dtype: str, cores: list[int], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Speeds and memory of both at one size, after a check that they do the same work."""
    size = SIZES[name]
    batch = arguments.batch or size.batch
    sequence = arguments.sequence or size.sequence
    ours, theirs = peers(dtype, cores, arguments)
    training = {"remat": arguments.remat, "layers": arguments.layers, "dtype": dtype}
    run, params = ours.call("build", size.shape, batch, sequence, training)
    running = {"ours": ours}
    _, our_losses = ours.call("train", 8)
    if theirs is not None:
        running["theirs"] = theirs
        counted = theirs.call("build", run, params)
        total = counting.count_params(run.model).total
        if counted != total:
            raise SystemExit(f"{name}: {total} parameters here, {counted} in PyTorch")
        _, their_losses = theirs.call("train", 8)
        tolerance = 1e-4 if dtype == "float32" else 2e-2
        if not np.allclose(our_losses, their_losses, rtol=tolerance):
            raise SystemExit(f"{name}: losses {our_losses} here, {their_losses} in PyTorch")
    speeds: dict[str, list[float]] = {who: [] for who in running}
    steps = {}
    for who, peer in running.items():  # as many steps as fill a turn
        peer.call("train", 4)
        steps[who] = max(4, int(8 * arguments.seconds / peer.call("train", 8)[0]))
    for _ in range(arguments.turns):
        for who, peer in running.items():
            speeds[who].append(steps[who] / peer.call("train", steps[who])[0])
    rates = {who: statistics.median(values) for who, values in speeds.items()}
    memory = {who: peer.call("peak_bytes") for who, peer in running.items()}
    for peer in running.values():
        peer.close()
    flops = counting.flops_per_step(run.model, batch, sequence, "matmul")
    return {
        "params": counting.count_params(run.model).total,
        "batch": f"{batch} x {sequence}",
        "tokens": {who: rate * batch * sequence for who, rate in rates.items()},
        "flops": {who: rate * flops for who, rate in rates.items()},
        "memory": memory,
    }


def line(name: str, row: dict[str, Any], peak: float | None, ceiling: float) -> str:
    """One size, as a line of the table; - for what is not known or was not run."""

    def cell(values: dict[str, float], who: str, unit: float, form: str) -> str:
        return format(values[who] / unit, form) if who in values else "-"

    tokens, flops, memory = row["tokens"], row["flops"], row["memory"]
    ratio = f"{tokens['ours'] / tokens['theirs']:.2f}x" if "theirs" in tokens else "-"
    mfu = f"{flops['ours'] / peak:.1%}" if peak else "-"
    return (
        f"{name:>5s} {row['params'] / 1e6:7.1f}M {row['batch']:>10s}"
        f" {cell(tokens, 'ours', 1, ',.0f'):>11s} {cell(tokens, 'theirs', 1, ',.0f'):>11s}"
        f" {ratio:>6s} {cell(flops, 'ours', 1e12, '.3g'):>9s} {mfu:>6s}"
        f" {flops['ours'] / ceiling:8.1%}"
        f" {cell(memory, 'ours', 1e9, '.2f'):>8s} {cell(memory, 'theirs', 1e9, '.2f'):>8s}"
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
    arguments = parser.parse_args()
    if not arguments.alone and importlib.util.find_spec("torch") is None:
        sys.exit(f"PyTorch is not installed (or use --alone): {INSTALL}")
    cores = [] if arguments.device == "gpu" else usable_cores(arguments.threads)
    first = Peer(JaxTraining, cores)
    kind, dtype, peak = first.call("device", arguments.dtype)
    ceiling = first.call("matmul_flops_per_second", 2048 if cores else 8192, 8, dtype)
    first.close()
    known = f"peak {peak / 1e12:.0f} TFLOP/s" if peak else "peak not known, so no MFU"
    print(f"{kind}: {dtype}, {known}; matmul ceiling {ceiling / 1e12:.3g} TFLOP/s")
    print("FLOPs by the convention `matmul`; memory: " + ("GPU" if not cores else "whole process"))
    print(
        " size   params      batch  tokens/s: us     PyTorch  ratio   TFLOP/s    MFU  ceiling"
        "  GB: us  PyTorch"
    )
    for name in arguments.sizes:
        print(line(name, compare(name, dtype, cores, arguments), peak, ceiling), flush=True)


if __name__ == "__main__":
    main()
