"""Where a training step's time and memory go on a GPU: for when a bar is not met.

    python tests/benchmarks/gpu_profile.py --size=1.3b
    python tests/benchmarks/gpu_profile.py --platform=cpu    # tiny, anywhere

Time: a trace of a few steps, its kernels added up by what they do and the longest by name; what no
kernel takes of a step is the GPU waiting for its host. Memory: XLA's plan of the step's arrays
beside our own (`experiment/memory.py`). On a CPU, whose threads work at the same time, the sum is
more than the step.
"""

import argparse
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import JaxTraining, Peer
from results import save
from throughput import SIZES, planned

# What a kernel does, by the first of these that its name or its operation has.
KINDS = (
    ("attention", "fmha|flash|cudnn"),
    ("products", "gemm|nvjet|cutlass|xmma|cublas|dot"),
    ("copies", "memcpy|memset|copy|transpose"),
    ("sums and scatters", "reduce|scatter|sort|scan"),
    ("elementwise", "fusion|loop|add|multiply|convert|select|broadcast|slice|concatenate"),
)
LONGEST = 12


def kind_of(kernel: str) -> str:
    """Which of KINDS a kernel is."""
    return next((kind for kind, names in KINDS if re.search(names, kernel, re.I)), "other")


def kernels(folder: Path) -> Iterator[tuple[str, float]]:
    """(name, seconds) of everything that a trace in `folder` has a device do.

    Streams of a GPU; on a CPU, whose trace has no device, the operations of compiled programs.
    """
    from jax.profiler import ProfileData

    (file,) = folder.rglob("*.xplane.pb")
    planes = list(ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):
                continue  # the same again, by program and by operation
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if devices or operation:
                    name = event.name if operation in (None, event.name) else (
                        f"{operation} {event.name}"
                    )  # fmt: skip
                    yield name, event.duration_ns / 1e9


class Profiled(JaxTraining):
    """A run whose steps are traced."""

    def profile(self, steps: int) -> dict[str, Any]:
        """Seconds of a step: by the clock without a trace, by kind and the longest kernels."""
        import jax

        self.train(steps)
        seconds, _ = self.train(steps)
        with tempfile.TemporaryDirectory() as folder:
            jax.profiler.start_trace(folder)
            self.train(steps)
            jax.profiler.stop_trace()
            by_name: Counter[str] = Counter()
            for name, taken in kernels(Path(folder)):
                by_name[name] += taken / steps
        by_kind: Counter[str] = Counter()
        for name, taken in by_name.items():
            by_kind[kind_of(name)] += taken
        return {
            "step_seconds": seconds / steps,
            "kinds": dict(by_kind.most_common()),
            "longest": dict(by_name.most_common(LONGEST)),
        }

    def memory(self) -> dict[str, int]:
        """Bytes of the compiled step: its arguments, which are the state and a batch, and the
        arrays between."""
        import jax

        run = self._run
        shape = (self._length, run.batch_size, run.sequence_length + 1)
        rates, scalar, count = (
            jax.ShapeDtypeStruct(shape, dtype)
            for shape, dtype in (((self._length,), np.float32), ((), np.float32), ((), np.int32))
        )
        tokens = jax.ShapeDtypeStruct(shape, np.int32)
        program = self._compiled
        with jax.set_mesh(program.mesh):
            lowered = program.train.lower(program.abstract_state, tokens, rates, scalar, count)
        found = lowered.compile().memory_analysis()
        return {"arguments": found.argument_size_in_bytes, "between": found.temp_size_in_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--size", choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=3, help="that are traced")
    parser.add_argument("--out", type=Path, help="a JSON file of the figures")
    arguments = parser.parse_args()
    cpu = arguments.platform == "cpu"
    name = arguments.size or ("tiny" if cpu else "1.3b")
    size = SIZES[name]
    peer = Peer(Profiled, sorted(os.sched_getaffinity(0)) if cpu else ())
    device, dtype, _ = peer.call("device", "auto")
    run, _ = peer.call("build", size.shape, size.batch, size.sequence)
    found = peer.call("profile", arguments.steps)
    plan = planned(run, device, dtype)
    found |= {"memory": peer.call("memory") | ({"plan": plan["memory"]} if plan else {})}
    save(arguments.out, device=device, dtype=dtype, size=name, **found)
    step = found["step_seconds"]
    print(f"{device}: {name}, {dtype}, {1e3 * step:.2f} ms a step")
    for what in ("kinds", "longest"):
        print()
        for kernel, seconds in found[what].items():
            print(f"{1e3 * seconds:10.3f} ms {seconds / step:7.1%}  {kernel[:100]}")
    idle = 1 - sum(found["kinds"].values()) / step
    print(f"\nno kernel: {idle:.1%}" if not cpu else "")
    for what, size_in_bytes in found["memory"].items():
        print(f"{size_in_bytes / 1e9:10.3f} GB  {what}")


if __name__ == "__main__":
    main()
