"""One run, from its configuration to its result: begin or resume, train, evaluate, record."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.counting import flops_per_step
from chinchilla_jax.experiment.epochs import unique_tokens
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.models import decoder
from chinchilla_jax.training import devices, distributed, sharding
from chinchilla_jax.training.announce import announce
from chinchilla_jax.training.checkpoints import Checkpoints, Meta
from chinchilla_jax.training.compiled import Compiled, compiled_for
from chinchilla_jax.training.evaluation import evaluate
from chinchilla_jax.training.heartbeat import Heartbeat
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.metrics import MetricsWriter, divergence
from chinchilla_jax.training.profiling import NO_STEPS, Profiler
from chinchilla_jax.training.schedules import learning_rates
from chinchilla_jax.training.step import TrainState

log = logging.getLogger(__name__)

DISPATCH_SECONDS = 0.5  # about as long as a call of the device may take, so that we stay alert


class Interrupted(Exception):
    """The run was asked to stop; its state is saved and it continues from there next time."""


def train(
    run: RunConfig,
    corpus: Corpus,
    directory: RunDirectory,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, float], None] = lambda step, loss: None,
    profiled: range = NO_STEPS,
) -> dict[str, Any]:
    """Trains `run` to its end, from the start or from where it was, and returns its result row.

    A run that is over is returned as it is. Exactly `run.steps` updates are made, each on the
    examples that its number says, so that interruptions leave no trace in the result. Several
    processes call it alike, and only process 0 writes (`distributed`).

    Args:
      should_stop: asked between dispatches; when true the state is saved and `Interrupted` raised.
      on_progress: told the updates done and the last training loss, between dispatches.
      profiled: updates of which a trace is written to `profile` in the run's folder.
    Raises:
      UserError: the run does not fit the devices or the corpus, or its folder is another run's.
      Interrupted: `should_stop` said so.
    """
    if (result := distributed.on_writer(directory.result)) is not None:
        return result
    run = devices.resolved(run)
    compiled = compiled_for(run)
    held_out = corpus.validation_windows(run.measurement.eval_windows, run.sequence_length)
    distributed.on_writer(lambda: directory.start(run))
    started = time.perf_counter()
    meta: Meta = {
        "horizon": run.steps,
        "batch_size": run.batch_size,
        "data": corpus.data_fingerprint,
        "tokenizer": corpus.tokenizer_fingerprint,
        "model_version": decoder.VERSION,
        "fingerprint": fingerprint(run),
    }
    with (
        jax.set_mesh(compiled.mesh),
        Checkpoints(
            directory.checkpoints,
            run.execution.keep_checkpoints,
            meta,
            devices.async_checkpoints(run.execution),
        ) as checkpoints,
        Heartbeat(run, directory if distributed.is_writer() else None) as heartbeat,
        Profiler(profiled, directory.path / "profile") as profiler,
    ):
        announce(run, compiled, corpus)
        restored = checkpoints.restore_latest(compiled.abstract_state)
        state, step = restored or (
            initial_state(compiled.model, compiled.tx, compiled.shardings, run.seed),
            0,
        )
        distributed.on_writer(lambda: directory.rewind_metrics(step))
        before = max((row["seconds"] for row in directory.metrics()), default=0.0)
        log.info("%s: %s at step %d", run.run_id, "resumed" if restored else "begun", step)
        profiler.begin_at(step)
        origin = started - before
        loop = _Loop(run, corpus, compiled, directory, checkpoints, origin, heartbeat, profiler)
        state, reason = loop.advance(state, step, should_stop, on_progress)
        measured: dict[str, Any] = loop.speed() | {
            "unique_tokens": min(
                run.tokens, unique_tokens(corpus.train_tokens, run.sequence_length)
            ),
            "data_fingerprint": corpus.data_fingerprint,
            "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
        }
        if not reason:
            heartbeat.doing("evaluating")
            measured |= evaluate(compiled, state.params, *held_out)
            measured["train_loss"] = float(state.smoothed_loss)
            if run.execution.save_final:
                checkpoints.save(run.steps, state)
    measured["wall_seconds"] = before + time.perf_counter() - started
    distributed.on_writer(
        lambda: directory.finish(run, "diverged" if reason else "done", reason, measured)
    )
    result = distributed.on_writer(directory.result)
    assert result is not None
    return result


class _Loop:
    """The loop over dispatches and what it needs to know."""

    def __init__(
        self,
        run: RunConfig,
        corpus: Corpus,
        compiled: Compiled,
        directory: RunDirectory,
        checkpoints: Checkpoints,
        origin: float,  # when the run would have started, had it not been interrupted
        heartbeat: Heartbeat,
        profiler: Profiler,
    ) -> None:
        self._run = run
        self._corpus = corpus
        self._compiled = compiled
        self._checkpoints = checkpoints
        self._writer = MetricsWriter(run, directory) if distributed.is_writer() else None
        self._origin = origin
        self._heartbeat = heartbeat
        self._profiler = profiler
        self._timed_steps = 0
        self._timed_seconds = 0.0
        self._last_read: float | None = None
        self._input_seconds = 0.0  # in which a device may have waited for its next batch

    def advance(
        self,
        state: TrainState,
        step: int,
        should_stop: Callable[[], bool],
        on_progress: Callable[[int, float], None],
    ) -> tuple[TrainState, str]:
        """Trains from `step` to the end; the second result says why the run diverged, if so."""
        run = self._run
        most = devices.steps_per_dispatch(run.execution)
        decay = np.float32(run.optimizer.weight_decay)
        count, reason, saved = 1, "", time.perf_counter()
        pending: tuple[int, int, dict[str, Any]] | None = None
        ballot = distributed.Ballot(self._compiled.mesh)
        while step < run.steps and not reason:
            self._profiler.at(step, state)
            count = min(count, most, run.steps - step, self._profiler.room(step))
            begun = time.perf_counter()
            tokens, rates = self._inputs(step, count, most)
            # Idle already? Then it waited for its input, at most since we began to gather it.
            if pending and self._timed_steps and pending[2]["loss"].is_ready():
                self._input_seconds += time.perf_counter() - begun
            dispatched = self._compiled.train(state, tokens, rates, decay, np.int32(count))
            # Metrics are read one dispatch late: the device never waits for the host.
            if pending:
                reason = self._read(*pending, on_progress)
            state, pending = dispatched[0], (step, count, dispatched[1])
            step += count
            # Any process may be told to stop; the clock of process 0 is that of all.
            due = time.perf_counter() - saved > run.execution.checkpoint_seconds
            clock = (due, self._next_count(count)) if distributed.is_writer() else (0, 0)
            stop, save, count = ballot(should_stop(), *clock)
            if stop or save:
                reason, pending = reason or self._read(*pending, on_progress), None
                if not reason and step < run.steps:
                    self._heartbeat.doing("saving")
                    if self._writer:
                        self._writer.flush()
                    self._checkpoints.save(step, state)
                    saved = time.perf_counter()
                    ballot = distributed.Ballot(self._compiled.mesh)  # of what led to this
                if stop and not reason:
                    raise Interrupted(run.run_id)
        self._profiler.at(step, state)
        if pending and not reason:
            reason = self._read(*pending, on_progress)
        if self._writer:
            self._writer.close()
        return state, reason

    def speed(self) -> dict[str, Any]:
        """Tokens per second, and model FLOP/s over the devices' peak where that is known."""
        run, mesh = self._run, self._compiled.mesh
        kind = mesh.devices.flat[0].device_kind
        peak = devices.peak_flops(kind)
        rate = self._timed_steps / self._timed_seconds if self._timed_seconds else None
        matmul = flops_per_step(run.model, run.batch_size, run.sequence_length, "matmul")
        return {
            "tokens_per_second": rate and rate * run.batch_size * run.sequence_length,
            "mfu": rate and peak and rate * matmul / (peak * mesh.size),
            "input_share": rate and self._input_seconds / self._timed_seconds,
            "device_kind": kind,
            "device_count": mesh.size,
        }

    def _inputs(self, step: int, count: int, most: int) -> tuple[jax.Array, np.ndarray]:
        """Tokens [most, B, S + 1], on their way to the devices, and rates [most] of updates `step`
        .. `step + count - 1`."""
        run = self._run
        rates = np.zeros(most, np.float32)
        rates[:count] = learning_rates(run.optimizer, run.steps, step, count)
        shape = (most, run.batch_size, run.sequence_length + 1)
        where = NamedSharding(self._compiled.mesh, sharding.TRAIN_BATCH)

        @functools.cache  # devices that share rows, along the tensor axis
        def rows(first: int, last: int) -> np.ndarray:
            """Examples `first` .. `last - 1` of each batch, zeros after the last update."""
            batch = np.arange(first, last)
            examples = (step + np.arange(count))[:, None] * run.batch_size + batch
            windows = np.zeros((most, len(batch), shape[2]), np.int32)
            windows[:count] = self._corpus.examples(run.seed, examples, run.sequence_length)
            return windows

        # Called for the devices of this process alone: nobody reads the rows of another.
        def part(index: Any) -> np.ndarray:
            return rows(*index[1].indices(run.batch_size)[:2])

        return jax.make_array_from_callback(shape, where, part), rates

    def _read(
        self,
        first: int,
        count: int,
        metrics: dict[str, jax.Array],
        on_progress: Callable[[int, float], None],
    ) -> str:
        """Waits for a dispatch, logs it and judges it."""
        values = {name: np.asarray(value)[:count] for name, value in metrics.items()}
        now = time.perf_counter()
        if self._last_read is not None:  # the first dispatch of a process compiles
            self._timed_seconds += now - self._last_read
            self._timed_steps += count
        self._last_read = now
        rate = self._timed_steps / self._timed_seconds if self._timed_seconds else 0.0
        if self._writer:
            self._writer.write(first, values, now - self._origin, rate)
        self._heartbeat.beat(first + count, loss=float(values["loss"][-1]))
        on_progress(first + count, float(values["loss"][-1]))
        return divergence(first, values, self._run.measurement.divergence_factor)

    def _next_count(self, count: int) -> int:
        """Steps of the next dispatch, by the speed so far."""
        if not self._timed_steps:
            return 2 * count
        return max(1, int(DISPATCH_SECONDS * self._timed_steps / self._timed_seconds))
