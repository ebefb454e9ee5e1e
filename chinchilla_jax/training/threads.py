"""On how many threads a run is computed on a CPU, which decides its last digits.

XLA cuts sums and products into as many parts as its pool has threads, and so rounds differently on
two than on one, whatever cores they run on. So the number belongs to the run, not to the share of
the machine that it happens to get: a sweep computes a cell on one thread, at any width and beside
any others, and a run goes on with as many as it began with, which its `config.json` tells. Several
devices have a pool of their own, which is left to XLA.

One thread is as fast as two below width 64 (tests/benchmarks/workers.py). From there a run by
itself, by the program `train`, gains from all cores and begins with as many.

No JAX here: the number is set before JAX makes its pool.
"""

import os
from collections.abc import Sequence

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import MOST_THREADS
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import distributed
from chinchilla_jax.training.placement import this_host, usable_cores

SHARED_FROM_WIDTH = 64  # products of narrower models are on one thread anyway
_VARIABLE = "PJRT_NPROC"  # by which XLA's CPU client sizes its pool, jax 0.10 and 0.11


def of_cell(run: RunConfig, directory: RunDirectory) -> int:
    """Of a run in a sweep; raises UserError where what it was begun with is damaged."""
    return _begun_with(run, directory) or run.execution.threads or 1


def alone(run: RunConfig, directory: RunDirectory) -> int:
    """Of a run that has the machine for itself; raises as `of_cell`."""
    all_cores = len(usable_cores()) if run.model.width >= SHARED_FROM_WIDTH else 1
    return _begun_with(run, directory) or run.execution.threads or all_cores


def check(run: RunConfig, directory: RunDirectory) -> None:
    """Of a run on the threads of this process.

    Raises:
      UserError: it, or its trunk, has been begun on others since its place was chosen.
    """
    begun, now = _begun_with(run, directory), run.execution.threads
    if begun and now and begun != now:
        raise UserError(
            f"{directory.path}: was begun meanwhile, on {begun} threads and not on {now}, on which "
            "it would differ in its last digits; the same command continues it"
        )


def advice(runs: Sequence[RunConfig], cores: int) -> str:
    """A line where cells that could use several cores each leave some idle; empty elsewhere."""
    each = min(cores // max(len(runs), 1), MOST_THREADS)
    wide = [r for r in runs if r.model.width >= SHARED_FROM_WIDTH and not r.execution.threads]
    if each < 2 or not wide:
        return ""
    few = f"{len(runs)} cells" if len(runs) > 1 else "one cell"
    return (
        f"{few} on {cores} cores: a sweep computes each on one thread, wherever it runs; wide ones "
        f"not begun are faster by --config.execution.threads={each}, and differ in last digits"
    )


def serving(widths: Sequence[int]) -> int:
    """To write text by models of these widths."""
    return len(usable_cores()) if max(widths) >= SHARED_FROM_WIDTH else 1


def _begun_with(run: RunConfig, directory: RunDirectory) -> int:
    """A branch was begun by its trunk."""
    begun = directory.configuration()
    if begun is None and run.parent:
        begun = RunDirectory(directory.path.parent / run.parent.run).configuration()
    return begun.execution.threads if begun else 0


def environment(count: int) -> dict[str, str]:
    """What tells XLA."""
    return {_VARIABLE: str(count)}


def use(count: int) -> None:
    """Computes on so many threads from now on, in a process by itself that has one CPU device."""
    one = os.environ.get("JAX_NUM_CPU_DEVICES", "1") in ("", "-1", "1")
    if one and distributed.process_count() == 1 and this_host().platform == "cpu":
        os.environ |= environment(count)


def used() -> int:
    """Those of this process, of a CPU; 0 where they were left to XLA."""
    return int(os.environ.get(_VARIABLE, 0))
