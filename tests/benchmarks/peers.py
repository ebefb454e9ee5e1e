"""Training in processes of their own, so that side-by-side runs share no threads and no memory.

A peer lives in a spawned process with its own cores and answers calls of its methods; while
another one is measured it waits and uses nothing.
"""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DISPATCH = 64  # most steps in one call of the device, as on every CPU run


class Peer:
    """`factory()` in a process of its own, on the CPU and restricted to `cores` where given."""

    def __init__(self, factory: Callable[[], Any], cores: Sequence[int] = ()) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, factory, cores), daemon=True)
        self._process.start()

    def start(self, method: str, *arguments: Any) -> None:
        """Calls a method and returns at once."""
        self._connection.send((method, arguments))

    def result(self) -> Any:
        """What the call that was started returned.

        Raises:
          SystemExit: the peer could not, with its reason.
        """
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            error = f"the process ended with status {self._process.exitcode}"
        if error:
            raise SystemExit(error)
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        self.start(method, *arguments)
        return self.result()

    def close(self) -> None:
        """Ends the process, and with it all that it holds."""
        self._connection.close()
        self._process.join()


def usable_cores(count: int) -> list[int]:
    """The first `count` cores of this process; says so when others are at work on them.

    Raises:
      SystemExit: there are fewer, or the system cannot pin processes to cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this benchmark pins processes to cores, which only Linux can")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        raise SystemExit(f"this benchmark needs {count} cores; there are {len(cores)}")
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is busy (load {os.getloadavg()[0]:.1f}): repeat when it is quiet")
    return cores[:count]


def _serve(connection: Any, factory: Callable[[], Any], cores: Sequence[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)  # before JAX or PyTorch count them
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # peers share a GPU's memory
    peer = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            peer = peer or factory()
            connection.send((None, getattr(peer, method)(*arguments)))
        except Exception as error:
            connection.send((f"{type(error).__name__}: {error}", None))


def windows(steps: int, batch: int, sequence: int, seed: int) -> np.ndarray:
    """Token windows [N, B, S + 1] of a skewed source, so that there is something to learn."""
    shape = (steps, batch, sequence + 1)
    generator = np.random.default_rng(seed)
    return np.minimum(*generator.integers(0, 256, (2, *shape)))


def process_peak_bytes() -> int:
    """The most memory that this process has had at once, its libraries included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def unstacked(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of scanned layers as those of single ones."""
    single = {}
    for path, value in params.items():
        if path.startswith("layers/"):
            for i, layer in enumerate(value):
                single[path.replace("layers/", f"layers_{i}/", 1)] = layer
        else:
            single[path] = value
    return single


def run_of(
    shape: Any, batch: int, sequence: int, training: Any = None, rate: float = 1e-3, **changes: Any
) -> Any:
    """The RunConfig of a model on one device, for a thousand steps unless `changes` say else.

    Args:
      training: fields of TrainingConfig.
      changes: fields of RunConfig.
    """
    from chinchilla_jax.experiment import config, recipe
    from chinchilla_jax.experiment.execution import Execution

    fields = {"run_id": "benchmark", "data": config.DataConfig(), "steps": 1000, "seed": 0,
              "execution": Execution(data_parallel=1)} | changes  # fmt: skip
    return config.RunConfig(
        experiment="benchmark",
        budget=1.0,
        flops_convention="matmul",
        model=shape,
        optimizer=recipe.optimizer_for(fields["steps"], rate, config.RecipeConfig()),
        training=config.TrainingConfig(**(training or {})),
        batch_size=batch,
        sequence_length=sequence,
        **fields,
    )


class JaxTraining:
    """The compiled step of `chinchilla_jax.training`, as `loop.py` calls it, on one device."""

    def build(
        self, shape: Any, batch: int, sequence: int, training: Any = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """The run of a model, ready to train, and its initial weights by path."""
        import jax

        from chinchilla_jax.models.module import path_name
        from chinchilla_jax.training import compiled, devices, initial

        run = run_of(shape, batch, sequence, training)
        self._run, self._length = run, min(DISPATCH, devices.steps_per_dispatch(run.execution))
        self._compiled = compiled.compiled_for(run)
        with jax.set_mesh(self._compiled.mesh):
            self._state = initial.initial_state(
                self._compiled.method, self._compiled.shardings, run.seed
            )
        params = {
            path_name(path): np.asarray(leaf).copy()
            for path, leaf in jax.tree.leaves_with_path(self._state.params)
        }
        return run, unstacked(params)

    def train(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of `steps` steps at a constant rate, and the loss of each."""
        import jax

        run, length = self._run, self._length
        rates = np.full(length, run.optimizer.learning_rate, np.float32)
        decay = np.float32(run.optimizer.weight_decay)
        tokens = windows(DISPATCH, run.batch_size, run.sequence_length, seed=0).astype(np.int32)
        losses = []
        begin = time.perf_counter()
        with jax.set_mesh(self._compiled.mesh):
            for first in range(0, steps, length):
                count, begun = min(length, steps - first), first % DISPATCH
                self._state, metrics = self._compiled.train(
                    self._state, tokens[begun : begun + length], rates, decay, np.int32(count)
                )
                losses.append(metrics["loss"][:count])
            jax.block_until_ready(self._state)
        seconds = time.perf_counter() - begin
        return seconds, np.concatenate([np.asarray(part) for part in losses]).tolist()

    def peak_bytes(self) -> int:
        """The most that was in use at once: on the device, or by the process."""
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use") or process_peak_bytes()

    def device(self, dtype: str) -> tuple[str, str, Any]:
        """The device's kind, what `training.dtype` means there, and its peak FLOP/s if known."""
        import jax

        from chinchilla_jax.experiment import config
        from chinchilla_jax.training import devices

        kind = jax.local_devices()[0].device_kind
        dtype = str(devices.compute_dtype(config.TrainingConfig(dtype=dtype)))
        return kind, dtype, devices.peak_flops(kind)

    def matmul_flops_per_second(
        self, size: int = 2048, times: int = 8, dtype: str = "float32"
    ) -> float:
        """The ceiling: products of large square matrices, the median of `times`."""
        import jax
        import jax.numpy as jnp

        product = jax.jit(jnp.matmul)
        # Random: a GPU at its power limit multiplies ones faster than it does numbers.
        x = jax.random.normal(jax.random.key(0), (size, size), dtype)
        seconds = []
        for _ in range(times + 1):
            begin = time.perf_counter()
            product(x, x).block_until_ready()
            seconds.append(time.perf_counter() - begin)
        return 2 * size**3 / float(np.median(seconds[1:]))
