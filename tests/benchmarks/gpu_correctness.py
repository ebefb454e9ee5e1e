"""What an accelerator computes against what a CPU does: attention, steps, whole runs.

    python tests/benchmarks/gpu_correctness.py                   # two minutes on a GPU
    python tests/benchmarks/gpu_correctness.py --platform=cpu    # tiny, anywhere

* **attention**: cuDNN's kernel against our own in float32 on the same bfloat16 numbers, forward and
  gradients, as |out - ref| / |ref|; with grouped keys too.
* **runs**: the loop itself, under its guards. Interrupted and continued on the device it ends
  bit-identical; what was begun there continues on the CPU.
* **steps**: eight updates and an evaluation of both definitions, in float32 with exact products, in
  float32 as it comes (TF32 on NVIDIA GPUs) and in bfloat16, against the same in float32 on the CPU:
  losses and the first gradient of each parameter; layers scanned and unrolled and every remat
  policy against those that `auto` takes.

Each device has processes of its own. A check that fails, or whose process dies, is a line of the
table with its reason, and the next begins.
"""

import argparse
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu_device import STEPS, Device, Sizes, Steps
from peers import Peer
from results import save

from chinchilla_jax.experiment.model import DEFINITIONS

Result = Steps | str  # or why there are none
Results = dict[str, Result]  # by definition
# Relative: the largest difference of a loss, whose roundings are carried on by the next steps, and
# that of a parameter's first gradient, |g - ref| / |ref|. The text is drawn token by token, so that
# a loss would hardly tell what attention did wrong; gradients do.
EXACT_PRODUCTS, TF32, BFLOAT16 = (1e-4, 1e-3), (1e-3, 2e-2), (3e-3, 5e-2)
ATTENTION = 1e-2  # bfloat16 keeps 8 bits, and the reference has them all
ATTENTION_SHAPES = ((8, 8, 64), (8, 2, 64), (4, 4, 128))  # heads, keys and values, size of a head
AUTOMATIC = {"layers": "scan", "remat": "dots"}  # what `auto` means on accelerators
PROGRAMS = (
    {"layers": "unrolled", "remat": "none"},
    {"layers": "unrolled", "remat": "dots"},
    {"layers": "scan", "remat": "none"},
    {"layers": "scan", "remat": "attention"},
    {"layers": "scan", "remat": "full"},
)


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    error: float | None  # None where it was not computed
    tolerance: float
    reason: str = ""

    @property
    def met(self) -> bool:
        return self.error is not None and self.error <= self.tolerance  # NaN is not


def losses_compared(name: str, one: np.ndarray, other: np.ndarray, tolerance: float) -> Check:
    """The largest relative difference."""
    if one.shape != other.shape:
        return Check(name, None, tolerance, f"{one.size} losses against {other.size}")
    return Check(name, float(np.max(np.abs(one - other) / np.abs(other))), tolerance)


def compared(
    name: str, one: Result, other: Result, tolerances: tuple[float, float]
) -> Iterator[Check]:
    """Losses and gradients, and evaluations where both have one; or why there are none."""
    if isinstance(one, str) or isinstance(other, str):
        yield Check(name, None, min(tolerances), one if isinstance(one, str) else str(other))
        return
    yield losses_compared(f"{name}: losses", one.losses, other.losses, tolerances[0])
    if one.evaluation.size and other.evaluation.size:
        evaluations = one.evaluation, other.evaluation
        yield losses_compared(f"{name}: evaluation", *evaluations, tolerances[0])
    errors = {
        path: float(np.linalg.norm(one.gradients[path] - g) / np.linalg.norm(g))
        for path, g in other.gradients.items()
    }
    worst = max(errors, key=errors.__getitem__)
    yield Check(f"{name}: gradients", errors[worst], tolerances[1], f"(most at {worst})")


def result_of(peer: Peer) -> Result:
    """What the call that was started returned, or why it could not."""
    try:
        return peer.result()
    except SystemExit as reason:
        return str(reason)


def attention(device: Callable[[], Peer], cpu: Callable[[], Peer], sizes: Sizes) -> Iterator[Check]:
    """The kernel, at each of ATTENTION_SHAPES."""
    peer = device()
    for heads, kv_heads, size in ATTENTION_SHAPES:
        errors = peer.call("attention", heads, kv_heads, size, sizes.sequence)
        for name, error in zip(("y", "dq", "dk", "dv"), errors, strict=True):
            what = f"attention, {heads} heads of {size}, {kv_heads} of keys: {name}"
            yield Check(what, error, ATTENTION)
    peer.close()


def runs(device: Callable[[], Peer], cpu: Callable[[], Peer], sizes: Sizes) -> Iterator[Check]:
    """The loop, interrupted half-way."""
    peer, other = device(), cpu()
    with tempfile.TemporaryDirectory() as name:
        for dtype in ("bfloat16", "float32"):
            run, folder = sizes.run(dtype=dtype), str(Path(name) / dtype)
            whole = peer.call("train", run, f"{folder}-whole")
            peer.call("train", run, folder, STEPS)
            shutil.copytree(folder, f"{folder}-elsewhere")
            here = peer.call("train", run, folder)
            yield losses_compared(f"runs, {dtype}: interrupted, against whole", here, whole, 0.0)
        elsewhere = other.call("train", run, f"{folder}-elsewhere")
        what, tolerance = "runs, float32: continued on the CPU", EXACT_PRODUCTS[0]
        yield losses_compared(what, elsewhere, whole, tolerance)
    peer.close()
    other.close()


def steps(device: Callable[[], Peer], cpu: Callable[[], Peer], sizes: Sizes) -> Iterator[Check]:
    """Updates of both definitions, at the same time: most of it is compilation."""
    peers = {definition: (device(), cpu()) for definition in DEFINITIONS}
    DEVICE, CPU = 0, 1

    def both(which: int, exact: bool = False, evaluated: bool = True, **training: Any) -> Results:
        for definition, pair in peers.items():
            pair[which].start("steps", sizes.run(definition, **training), exact, evaluated)
        return {definition: result_of(pair[which]) for definition, pair in peers.items()}

    reference = both(CPU, exact=True, dtype="float32")
    automatic = both(DEVICE, dtype="bfloat16", **AUTOMATIC)
    precisions = [
        ("bfloat16", automatic, BFLOAT16),
        ("float32, exact products", both(DEVICE, exact=True, dtype="float32"), EXACT_PRODUCTS),
        ("float32", both(DEVICE, dtype="float32"), TF32),
    ]
    for name, found, tolerances in precisions:
        for d in DEFINITIONS:
            what = f"steps, {d}, {name}, against the CPU"
            yield from compared(what, found[d], reference[d], tolerances)
    for program in PROGRAMS:
        found = both(DEVICE, evaluated=False, dtype="bfloat16", **program)
        for d in DEFINITIONS:
            what = f"steps, {d}, bfloat16, {program['layers']}, {program['remat']}, against auto"
            yield from compared(what, found[d], automatic[d], BFLOAT16)
    for pair in peers.values():
        for peer in pair:
            peer.close()


def attempted(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks up to the one that ends them, with its reason."""
    try:
        yield from checks
    except SystemExit as reason:
        yield Check(name, None, 0.0, str(reason))


CHECKS = {"attention": attention, "runs": runs, "steps": steps}


def line(check: Check) -> str:
    """A check as a line of the table."""
    error = "-" if check.error is None else f"{check.error:.2g}"
    verdict = "met" if check.met else "NOT MET"
    return f"{check.name:76s} {error:>8s} {check.tolerance:8.0e}  {verdict} {check.reason}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--out", type=Path, help="a JSON file of the checks, written as they come")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    small = arguments.platform == "cpu"
    sizes = Sizes(width=32, depth=2, head_size=16, sequence=64) if small else Sizes()

    def cpu() -> Peer:
        return Peer(Device, cores)

    def device() -> Peer:
        return Peer(Device, cores if small else ())

    kind = (first := device()).call("kind")
    first.close()
    print(f"{kind} against the CPU: difference, tolerance")
    checks: list[Check] = []
    for name in arguments.only:
        for check in attempted(name, CHECKS[name](device, cpu, sizes)):
            checks.append(check)
            print(line(check), flush=True)
            rows = [dataclasses.asdict(c) | {"met": c.met} for c in checks]
            save(arguments.out, device=kind, checks=rows)


if __name__ == "__main__":
    main()
