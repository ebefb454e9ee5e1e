"""What a device computes, to be compared with what another one does (`gpu_correctness.py`).

A `Device` lives in a process of its own (`peers.Peer`), which sees that device alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import run_of, unstacked, windows

from chinchilla_jax.experiment.config import Measurement, RunConfig
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.model import ModelConfig

STEPS = 8  # that are compared


class Steps(NamedTuple):
    """Some updates."""

    losses: np.ndarray  # of each, nats
    evaluation: np.ndarray  # losses of its sequences; empty where there was none
    gradients: dict[str, np.ndarray]  # of the first, by parameter


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

    def steps(self, run: RunConfig, exact: bool = False, evaluated: bool = True) -> Steps:
        """The first updates of a run, and an evaluation after them.

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
        losses, evaluation, gradients = [], np.zeros(0), {}
        with jax.default_matmul_precision("highest" if exact else None):
            compiled = compiled_for(run)
            with jax.set_mesh(compiled.mesh):
                state = initial_state(compiled.method, compiled.shardings, run.seed)
                for step in range(STEPS):
                    batch = tokens[step : step + 1]
                    state, metrics = compiled.train(state, batch, rate, decay, one)
                    losses.append(metrics["loss"][:1])
                    gradients = gradients or first_gradients(state.opt_state)
                if evaluated:
                    evaluation = compiled.evaluate(state.params, state.techniques, tokens[STEPS])
        numbers = np.concatenate([np.asarray(part) for part in losses])
        return Steps(numbers, np.asarray(evaluation), gradients)

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

    def train(self, run: RunConfig, folder: str, stop_after: int = 0) -> np.ndarray:
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


def first_gradients(opt_state: Any) -> dict[str, np.ndarray]:
    """The clipped gradient of each parameter after one update, to a constant factor: Adam's first
    moments, by path. Layers are single ones."""
    import jax

    from chinchilla_jax.models.module import path_name

    moments = {
        name: np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(opt_state)
        if "/mu/" in (name := path_name(path))
    }
    return unstacked({name.partition("/mu/")[2]: leaf for name, leaf in moments.items()})


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
