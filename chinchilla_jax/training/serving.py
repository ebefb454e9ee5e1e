"""What it takes to write by a finished run: measured here, beside what its ledger says.

One text at a time, the likeliest token always, with contexts as long as the run's sequences, for
which its ledger counts too. Seconds are the least of several times: what else a machine does only
adds to them. The columns join those of the run's result:

    first_token_seconds         from a prompt of the whole window W to the first new token
    prefill_seconds_per_token   the same over W
    decode_seconds_per_token    of the tokens after the first, once it is W/2 tokens long
    inference_bytes_decode      that the program reads and writes for one of them, by XLA's count
    inference_bytes_ledger      of the weights at rest that a token meets, and of what is kept of W
    decode_memory_bytes         of the programs at their peak, weights included, by XLA's plan
    joules_per_token            where a counter is: of the accelerators, or else of the processors
    decode_hardware             what it was measured on
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from chinchilla_jax.experiment import results, tables
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.energy import UNKNOWN, Joules, added
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.finished import folders_of
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.numbers import data_size
from chinchilla_jax.experiment.parameters import is_tied
from chinchilla_jax.experiment.plans import has_plan
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.sampling import Sampling
from chinchilla_jax.training import sharding, threads, transfers, weights
from chinchilla_jax.training.energy import Meter, counters
from chinchilla_jax.training.generation import MOST, Generator, asked_by_flag
from chinchilla_jax.training.sources import Source
from chinchilla_jax.training.worker import locked, prepare_jax

log = logging.getLogger(__name__)

_SECONDS = 1.0  # that each of the two speeds is measured for, at least
_TIMES = 5  # at least


@dataclass(frozen=True)
class Outcome:
    """What became of the runs that were to be measured."""

    rows: Sequence[Mapping[str, Any]]
    left: Mapping[str, str]  # why a run was left out, by its folder

    def text(self) -> str:
        """A table, a run a line."""
        header = ("run", "prefill/s", "first token", "tokens/s", "memory", "bytes/token", "ledger")
        lines = [
            (
                row["run_id"],
                f"{1 / row['prefill_seconds_per_token']:,.0f}",
                f"{1e3 * row['first_token_seconds']:.3g} ms",
                f"{1 / row['decode_seconds_per_token']:,.0f}",
                *(
                    "-" if row[name] is None else data_size(row[name])
                    for name in (
                        "decode_memory_bytes",
                        "inference_bytes_decode",
                        "inference_bytes_ledger",
                    )
                ),
            )
            for row in self.rows
        ]
        hardware = {row["decode_hardware"] for row in self.rows}
        return f"{tables.table(header, lines)}\nmeasured on {' and '.join(sorted(hardware))}"


def measure(place: Path, tensor: int = 1) -> Outcome:
    """Measures the run at `place`, or all finished runs of a work folder, and notes it of them.

    A run that cannot be measured is left out, and the others go on.

    Args:
      tensor: devices that a layer is split over.
    Raises:
      UserError: there is no run, or none that can be measured.
    """
    found: dict[Path, Source] = {}
    rows, left = [], {}
    for folder in folders_of(place):
        try:
            found[folder] = weights.finished(folder)
        except UserError as error:
            left[folder.name] = str(error)
    if not found:
        raise UserError(next(iter(left.values())))
    threads.use(threads.serving([source.run.model.width for source in found.values()]))
    prepare_jax(cache_folder())
    for folder, source in found.items():
        directory = RunDirectory(folder)
        try:
            with asked_by_flag(tensor):
                mesh = sharding.make_mesh(Execution(data_parallel=1, tensor=tensor))
                trained = weights.load(source, mesh)
            with locked(directory, patient=False) as lock:
                if lock is None:
                    raise UserError(f"{folder}: is being run by {directory.owner()}")
                columns = measured(trained, mesh)
                directory.amend(columns)
        except UserError as error:
            left[folder.name] = str(error)
            continue
        rows.append({"run_id": source.run.run_id, **columns})
        log.info("%s: measured", source.run.run_id)
    if not rows:
        raise UserError(next(iter(left.values())))
    for workdir in {folder.absolute().parents[1] for folder in found}:
        if has_plan(workdir):
            results.write(workdir)
    return Outcome(rows, left)


def measured(trained: weights.Trained, mesh: Mesh) -> dict[str, Any]:
    """The columns of one run, its arrays on `mesh`."""
    run, window = trained.run, trained.run.sequence_length
    generator = Generator(trained, mesh, Sampling(temperature=0.0))
    random = np.random.default_rng(0)
    prompt = random.integers(1, trained.tokenizer.vocab_size, window).tolist()
    half, count = max(1, window // 2), max(1, min(MOST, window // 2))
    meter = Meter(counters(mesh))
    spent: list[Joules] = []

    def first_token() -> float:
        began = time.perf_counter()
        transfers.fetch(generator.prompted([prompt], 0, 0)[0])
        return time.perf_counter() - began

    def next_tokens() -> float:
        if not generator.cached:
            return first_token() * count
        token_B, cache = generator.prompted([prompt[:half]], 0, count)
        transfers.fetch(token_B)
        before = meter.joules()
        began = time.perf_counter()
        transfers.fetch(generator.continued(token_B, cache, 1, count)[0])
        seconds = time.perf_counter() - began
        spent.append(_difference(meter.joules(), before))
        return seconds

    with transfers.guards():
        first = _least(first_token)
        later = _least(next_tokens) / count
    program = generator.program(half, count)
    joules = added(*spent[1:]) if len(spent) > 1 else UNKNOWN
    counted = next((j for part in ("gpu", "cpu") if (j := joules[part]) is not None), None)
    return {
        "first_token_seconds": first,
        "prefill_seconds_per_token": first / window,
        "decode_seconds_per_token": later,
        "inference_bytes_decode": program.bytes_accessed,
        "inference_bytes_ledger": ledger_bytes(run, generator.number_bytes),
        "decode_memory_bytes": program.peak_bytes,
        "joules_per_token": counted and counted / (count * (len(spent) - 1)),
        "decode_hardware": hardware(mesh),
    }


def hardware(mesh: Mesh) -> str:
    """Of what the speeds are: `cpu, 2 threads`, `4 x NVIDIA H100`."""
    kind = mesh.devices.flat[0].device_kind
    several = f"{mesh.size} x {kind}" if mesh.size > 1 else kind
    used = threads.used()
    return f"{several}, {used} thread{'s' * (used > 1)}" if used else several


def ledger_bytes(run: RunConfig, number_bytes: int) -> float:
    """Bytes that a generated token is to read: of the weights at rest that it meets, and of the
    keys, values and projected distances of a whole window.

    Args:
      number_bytes: of one of the latter.
    """
    model, window = run.model, run.sequence_length
    total = 0.0
    for w in ledger(run).weights:
        if w.kind == "hidden" and not w.decode:
            continue  # of distances: their products are kept
        met = w.active / w.stored
        if w.kind == "input" and not is_tied(model):
            met = 1 / model.vocab_size  # a row of the table
        total += w.bytes_at_rest * met
    kept = 2 * window * model.kv_heads
    if model.definition == "chinchilla":
        kept += (window + 1) * model.heads
    return total + model.depth * kept * model.head_size * number_bytes


def _least(seconds: Callable[[], float]) -> float:
    """Of several times, after one that compiles."""
    seconds()
    found: list[float] = []
    while len(found) < _TIMES or sum(found) < _SECONDS:
        found.append(seconds())
    return min(found)


def _difference(now: Joules, before: Joules) -> Joules:
    pairs = {part: (now.get(part), before.get(part)) for part in now}
    return {p: None if a is None or b is None else a - b for p, (a, b) in pairs.items()}
