"""Training throughput of our step against PyTorch on the CPU, side by side in one run.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    python tests/benchmarks/throughput_cpu.py

The peer is a plain nanoGPT-style model in eager PyTorch: the same architecture, initial weights,
tokens and AdamW, in float32, on as many threads. Their losses agree, step by step, before anything
is timed. They run in processes of their own and take turns; speeds are medians over turns.

AdamW is not fused on the CPU, as in nanoGPT; `--fused` is PyTorch's best.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
from typing import Any

import numpy as np
from peers import JaxTraining, Peer, usable_cores
from torch_peer import INSTALL, TorchTraining

from chinchilla_jax.experiment import config, counting, recipe


def compare(ours: Peer, theirs: Peer, width: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of both at one width, after a check that they do the same work."""
    shape = recipe.shape_for_width(width, config.RecipeConfig(), 256)
    run, params = ours.call("build", shape, arguments.batch, arguments.sequence)
    counted = theirs.call("build", run, params)
    total = counting.count_params(run.model).total
    if counted != total:
        raise SystemExit(f"width {width}: {total} parameters here, {counted} in PyTorch")
    _, our_losses = ours.call("train", 8)
    _, their_losses = theirs.call("train", 8)
    if not np.allclose(our_losses, their_losses, rtol=1e-4):
        raise SystemExit(f"width {width}: losses {our_losses} here, {their_losses} in PyTorch")
    speeds: dict[Peer, list[float]] = {ours: [], theirs: []}
    steps = {}
    for peer in speeds:  # as many steps as fill a turn
        peer.call("train", 8)
        steps[peer] = max(4, int(8 * arguments.seconds / peer.call("train", 8)[0]))
    for _ in range(arguments.turns):
        for peer, values in speeds.items():
            values.append(steps[peer] / peer.call("train", steps[peer])[0])
    tokens = arguments.batch * arguments.sequence
    step_flops = counting.flops_per_step(run.model, arguments.batch, arguments.sequence, "matmul")
    mine, other = (statistics.median(values) for values in speeds.values())
    return {
        "params": total,
        "ours": mine * tokens,
        "theirs": other * tokens,
        "ratio": mine / other,
        "flops": mine * step_flops,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--sequence", type=int, default=64, help="tokens a sequence")
    parser.add_argument("--turns", type=int, default=7, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=0.7, help="of one turn")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit(f"PyTorch is not installed: {INSTALL}")
    cores = usable_cores(arguments.threads)
    ours, theirs = (
        Peer(JaxTraining, cores),
        Peer(functools.partial(TorchTraining, arguments.threads, arguments.fused), cores),
    )
    ceiling = ours.call("matmul_flops_per_second")
    print(
        f"{arguments.threads} threads, {arguments.batch} x {arguments.sequence} tokens a step, "
        f"float32; matmul ceiling {ceiling / 1e9:.0f} GFLOP/s"
    )
    print(" width    params   tokens/s: ours     PyTorch   ratio   share of ceiling")
    for width in arguments.widths:
        row = compare(ours, theirs, width, arguments)
        print(
            f"{width:6d} {row['params']:9,d} {row['ours']:16,.0f} {row['theirs']:11,.0f}"
            f" {row['ratio']:6.2f}x {row['flops'] / ceiling:15.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
