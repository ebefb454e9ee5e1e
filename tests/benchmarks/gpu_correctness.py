"""What an accelerator computes against what a CPU does: attention, steps, whole runs.

    python tests/benchmarks/gpu_correctness.py                   # two minutes on a GPU
    python tests/benchmarks/gpu_correctness.py --platform=cpu    # tiny, anywhere

* **attention**: cuDNN's kernel against our own in float32 on the same bfloat16 numbers, forward and
  gradients, as |out - ref| / |ref|; with grouped keys too.
* **runs**: the loop itself, under its guards. Interrupted and continued on the device it ends
  bit-identical; what was begun there continues on the CPU.
* **steps**: eight updates and an evaluation of both definitions, in float32 with exact products, in
  float32 as it comes (TF32 on NVIDIA GPUs) and in bfloat16, against the same in float32 on the CPU;
  layers scanned and unrolled and every remat policy against those that `auto` takes. The largest
  relative difference of a loss.

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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, run_of, windows
from results import save

from chinchilla_jax.experiment.config import Measurement, RunConfig
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.model import DEFINITIONS, ModelConfig

Result = np.ndarray | str  # losses, or why there are none
Losses = dict[str, Result]  # by definition

STEPS = 8
# Relative, of losses: roundings of one step are carried on by the next seven.
EXACT_PRODUCTS, TF32, BFLOAT16 = 1e-4, 2e-3, 1e-2
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


@dataclass(frozen=True)
class Sizes:
    """What is trained; every dimension of it suits the kernels."""

    width: int = 256
    depth: int = 2
    head_size: int = 64
    batch: int = 8
    sequence: int = 256

    def run(self, definition: str = "modern", **training: Any) -> RunConfig:
        heads = self.width // self.head_size
        model = ModelConfig(
            definition=definition, vocab_size=256, width=self.width, depth=self.depth, heads=heads,
            kv_heads=heads, head_size=self.head_size, ff_size=2 * self.width,
        )  # fmt: skip
        return run_of(
            model,
            self.batch,
            self.sequence,
            training,
            rate=1e-2,
            steps=2 * STEPS,
            # So that it can be stopped anywhere, and every loss is seen.
            execution=Execution(data_parallel=1, steps_per_dispatch=1, log_every=1),
            measurement=Measurement(eval_windows=16),
        )


class Device:
    """The program on the device of its process."""

    def kind(self) -> str:
        """JAX's name of the device."""
        import jax

        return jax.devices()[0].device_kind

    def steps(self, run: Any, exact: bool = False, evaluated: bool = True) -> np.ndarray:
        """Losses of the first updates and then of an evaluation's sequences, [STEPS + B] nats.

        Args:
          exact: whether float32 products are of float32 numbers.
          evaluated: whether there is an evaluation, another program to compile.
        """
        import jax

        from chinchilla_jax.training.compiled import compiled_for
        from chinchilla_jax.training.initial import initial_state

        tokens = windows(STEPS + 1, run.batch_size, run.sequence_length, seed=1).astype(np.int32)
        rate = np.full(1, run.optimizer.learning_rate, np.float32)
        decay, one = np.float32(run.optimizer.weight_decay), np.int32(1)
        losses = []
        with jax.default_matmul_precision("highest" if exact else None):
            compiled = compiled_for(run)
            with jax.set_mesh(compiled.mesh):
                state = initial_state(compiled.method, compiled.shardings, run.seed)
                for step in range(STEPS):
                    batch = tokens[step : step + 1]
                    state, metrics = compiled.train(state, batch, rate, decay, one)
                    losses.append(metrics["loss"][:1])
                if evaluated:
                    losses.append(compiled.evaluate(state.params, state.techniques, tokens[STEPS]))
        return np.concatenate([np.asarray(part) for part in losses])

    def attention(self, heads: int, kv_heads: int, head_size: int, sequence: int) -> list[float]:
        """Relative differences of y, dq, dk and dv between the platform's kernel and our own.

        On a CPU, which has none, the kernel is XLA's.
        """
        import jax
        import jax.numpy as jnp

        from chinchilla_jax.models.attention import attend, scores
        from chinchilla_jax.training import devices, kernels

        def library(q: Any, k: Any, v: Any) -> Any:
            return jax.nn.dot_product_attention(q, k, v, is_causal=True)

        def own(q: Any, k: Any, v: Any) -> Any:
            k, v = (jnp.repeat(a, heads // kv_heads, axis=2) for a in (k, v))
            q, k, v = (jnp.moveaxis(a, 1, 2) for a in (q, k, v))
            return jnp.moveaxis(attend(scores(q, k), v), 2, 1)

        kernel = kernels.KERNELS.get(devices.platform())
        shapes = [(2, sequence, n, head_size) for n in (heads, kv_heads, kv_heads, heads)]
        keys = jax.random.split(jax.random.key(0), 4)
        drawn = [jax.random.normal(*pair, jnp.bfloat16) for pair in zip(keys, shapes, strict=True)]

        def computed(function: Callable[..., Any], *arrays: Any) -> list[Any]:
            y, back = jax.vjp(function, *arrays[:3])
            return [y, *back(arrays[3])]

        outputs = jax.jit(partial(computed, kernel.attend if kernel else library))(*drawn)
        with jax.default_matmul_precision("highest"):
            wide = [a.astype(jnp.float32) for a in drawn]
            references = jax.jit(partial(computed, own))(*wide)
        pairs = zip(outputs, references, strict=True)
        return [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs]

    def train(self, run: Any, folder: str, stop_after: int = 0) -> np.ndarray:
        """The run by its loop, from where its folder is; the losses of its log and of its result.

        Args:
          stop_after: updates after which it is interrupted, 0 for none; then there is no result.
        """
        import jax

        from chinchilla_jax.experiment.records import RunDirectory
        from chinchilla_jax.training.loop import Interrupted, train

        exact = run.training.dtype == "float32"
        done, directory = [0], RunDirectory(Path(folder))
        try:
            with jax.default_matmul_precision("highest" if exact else None):
                row = train(
                    run,
                    made_up_corpus(),
                    directory,
                    lambda: bool(stop_after) and done[0] >= stop_after,
                    lambda step, loss: done.__setitem__(0, step),
                )
            result = [row["loss"]]
        except Interrupted:
            result = []
        if bool(result) == bool(stop_after):
            raise RuntimeError(f"a run to be stopped after {stop_after} updates: {result}")
        return np.array([line["loss"] for line in directory.metrics()] + result)


def made_up_corpus() -> Any:
    """Skewed bytes, as a corpus that was built before."""
    from chinchilla_jax.data.layout import CorpusMeta, PartMeta
    from chinchilla_jax.data.store import Corpus

    train, held = (windows(1, 1, 100_000, seed)[0, 0].astype(np.uint8) for seed in (0, 1))
    part = PartMeta(tokens=len(train), bytes=len(train), documents=1, crc32=0)
    meta = CorpusMeta(
        version=1, builder="made up", path="", tokenizer="bytes", vocab_size=256,
        data_fingerprint="made up", tokenizer_fingerprint="bytes", train=part, validation=part,
        overlap_windows=0, overlap_shared=0, skipped={},
    )  # fmt: skip
    return Corpus(Path(), meta, train, held, np.ones(256, np.int64))


def compared(name: str, one: Result, other: Result, tolerance: float) -> Check:
    """The largest relative difference; the reason where one of them is that."""
    for result in (one, other):
        if isinstance(result, str):
            return Check(name, None, tolerance, result)
    if one.shape != other.shape:
        return Check(name, None, tolerance, f"{one.size} losses against {other.size}")
    return Check(name, float(np.max(np.abs(one - other) / np.abs(other))), tolerance)


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
            yield compared(f"runs, {dtype}: interrupted, against whole", here, whole, 0.0)
        elsewhere = other.call("train", run, f"{folder}-elsewhere")
        yield compared("runs, float32: continued on the CPU", elsewhere, whole, EXACT_PRODUCTS)
    peer.close()
    other.close()


def steps(device: Callable[[], Peer], cpu: Callable[[], Peer], sizes: Sizes) -> Iterator[Check]:
    """Losses of both definitions, at the same time: most of it is compilation."""
    peers = {definition: (device(), cpu()) for definition in DEFINITIONS}
    DEVICE, CPU = 0, 1

    def losses(which: int, exact: bool = False, evaluated: bool = True, **training: Any) -> Losses:
        for definition, pair in peers.items():
            pair[which].start("steps", sizes.run(definition, **training), exact, evaluated)
        return {definition: result_of(pair[which]) for definition, pair in peers.items()}

    reference = losses(CPU, exact=True, dtype="float32")
    bfloat16 = losses(DEVICE, dtype="bfloat16", **AUTOMATIC)
    precisions = [
        ("bfloat16", bfloat16, BFLOAT16),
        ("float32, exact products", losses(DEVICE, exact=True, dtype="float32"), EXACT_PRODUCTS),
        ("float32", losses(DEVICE, dtype="float32"), TF32),
    ]
    for name, found, tolerance in precisions:
        for d in DEFINITIONS:
            what = f"steps, {d}, {name}: against the CPU"
            yield compared(what, found[d], reference[d], tolerance)
    for program in PROGRAMS:
        found = losses(DEVICE, evaluated=False, dtype="bfloat16", **program)
        for d in DEFINITIONS:
            what = f"steps, {d}, bfloat16, {program['layers']}, {program['remat']}: against auto"
            automatic = bfloat16[d] if isinstance(bfloat16[d], str) else bfloat16[d][:STEPS]
            yield compared(what, found[d], automatic, BFLOAT16)
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
    verdict = "met" if check.met else f"NOT MET {check.reason}"
    return f"{check.name:72s} {error:>8s} {check.tolerance:8.0e}  {verdict}".rstrip()


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
