"""One run, from its configuration to its result: begin or resume, train, evaluate, record."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import energy, trunks
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import (
    branch_points,
    branches,
    devices,
    distributed,
    given,
    sinks,
    techniques,
    threads,
)
from chinchilla_jax.training.announce import announce
from chinchilla_jax.training.ballot import Ballot
from chinchilla_jax.training.batches import Batches
from chinchilla_jax.training.checkpoints import Checkpoints, meta
from chinchilla_jax.training.compiled import Compiled, compiled_for
from chinchilla_jax.training.energy import Meter, counters
from chinchilla_jax.training.evaluation import at_end
from chinchilla_jax.training.heartbeat import Heartbeat
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.metrics import MetricsWriter, divergence
from chinchilla_jax.training.profiling import NO_STEPS, Profiler
from chinchilla_jax.training.sources import Sources
from chinchilla_jax.training.speed import Speed
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.transfers import fetch, guards

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
    runs = directory.path.parent
    if (result := distributed.on_writer(directory.result)) is not None:
        if run.parent or run.branches:  # it may have been killed before
            distributed.on_writer(lambda: branch_points.prune(run, runs))
        return result
    run = devices.resolved(run)
    distributed.on_writer(lambda: threads.check(run, directory))
    sinks.check(run, directory)
    if run.model.vocab_size < corpus.meta.vocab_size:
        raise UserError(
            f"{run.run_id}: model.vocab_size = {run.model.vocab_size}: the tokens of its text are "
            f"of {corpus.meta.vocab_size} kinds"
        )
    corpus = techniques.corpus_of(run, corpus)
    sources = techniques.sources_of(run, corpus, directory)
    compiled = compiled_for(run)
    held_out = corpus.validation_windows(run.measurement.eval_windows, run.sequence_length)
    if run.first_step:
        run = distributed.on_writer(lambda: branch_points.as_it_began(run, directory))
    if run.first_step:  # before it counts as begun
        distributed.on_writer(lambda: directory.begun() or branches.checked(run, runs))
    distributed.on_writer(lambda: directory.start(run))
    started, meter = time.perf_counter(), Meter(counters(compiled.mesh))
    with (
        guards(),
        jax.set_mesh(compiled.mesh),
        Checkpoints(
            directory.checkpoints,
            run.execution.keep_checkpoints,
            meta(run, corpus),
            devices.async_checkpoints(run.execution),
            {branch.step for branch in run.branches},
        ) as checkpoints,
        Heartbeat(run, directory if distributed.is_writer() else None) as heartbeat,
        Profiler(profiled, directory.path / "profile") as profiler,
        contextlib.ExitStack() as opened,
    ):
        announce(run, compiled, corpus)
        kept = given.without(compiled.abstract_state)
        restored = checkpoints.restore_latest(kept)
        if restored:
            state, step = restored
        elif run.first_step and (of_trunk := branches.begun(run, corpus, runs, kept)):
            state, step = of_trunk
        else:
            if run.first_step:  # its trunk has lost that state
                run = trunks.from_start(run)
                distributed.on_writer(lambda: directory.start(run))
            state, step = _initial(run, compiled, sources), 0
        state = techniques.completed(run, state, compiled.abstract_state, sources)
        distributed.on_writer(
            lambda: directory.rewind_metrics(step, run.execution.log_every, run.first_step)
        )
        before = max((row.get("seconds") or 0.0 for row in directory.metrics()), default=0.0)
        log.info("%s: %s at step %d", run.run_id, "resumed" if restored else "begun", step)
        if distributed.is_writer():  # once for all processes
            meter.continue_from(checkpoints.joules if restored else energy.NOTHING)
        profiler.begin_at(step)
        writer = None
        if distributed.is_writer():
            writer = MetricsWriter(run, directory, started - before)
            opened.push(writer.stopped)
        loop = _Loop(run, compiled, Batches(run, corpus, compiled), checkpoints, writer, heartbeat,
                     profiler, on_progress, meter)  # fmt: skip
        state, reason = loop.advance(state, step, should_stop)
        measured: dict[str, Any] = loop.speed.columns(run, compiled.mesh) | {
            "unique_tokens": corpus.unique_tokens(run.tokens, run.sequence_length),
            "held_out_in_training": corpus.held_out_in_training,
            "text_left_out": corpus.left_out,
            "metrics_lost": distributed.on_writer(lambda: directory.metrics_and_damage()[1]),
            "data_fingerprint": corpus.data_fingerprint,
            "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
        }
        if not reason:
            heartbeat.doing("evaluating")
            outcomes, more = at_end(run, compiled, state, held_out, sources)
            measured |= outcomes | more
            measured["train_loss"] = float(fetch(state.smoothed_loss))
            if run.execution.save_final:
                checkpoints.save(run.steps, given.without(state), meter.joules())
    seconds = before + time.perf_counter() - started
    measured |= {"wall_seconds": seconds} | energy.columns(
        energy.added(*distributed.gather(meter.joules())),
        seconds,
        compiled.mesh.size,
        by_device_kind(measured["device_kind"]),
        run.execution.grams_co2e_per_kwh,
    )
    status = "diverged" if reason else "done"
    if writer:
        writer.end(measured | {"status": status, "reason": reason})
    distributed.on_writer(lambda: directory.finish(run, status, reason, measured))
    distributed.on_writer(lambda: branch_points.prune(run, runs))
    result = distributed.on_writer(directory.result)
    assert result is not None
    return result


def _initial(run: RunConfig, compiled: Compiled, sources: Sources) -> TrainState:
    state = initial_state(compiled.method, compiled.shardings, run.seed)
    return techniques.started(run, state, sources)


@dataclass(frozen=True)
class _Dispatch:
    """Updates that the devices were given and whose metrics nobody has read yet."""

    first: int  # updates before them
    count: int
    metrics: dict[str, Any]  # arrays [most of a dispatch], of each


class _Loop:
    """The dispatches of a run, from one to the next."""

    def __init__(
        self,
        run: RunConfig,
        compiled: Compiled,
        batches: Batches,
        checkpoints: Checkpoints,
        writer: MetricsWriter | None,
        heartbeat: Heartbeat,
        profiler: Profiler,
        on_progress: Callable[[int, float], None],
        meter: Meter,
    ) -> None:
        self.speed = Speed()
        self._run = run
        self._compiled = compiled
        self._batches = batches
        self._checkpoints = checkpoints
        self._writer = writer
        self._heartbeat = heartbeat
        self._profiler = profiler
        self._on_progress = on_progress
        self._meter = meter
        self._points = sorted(branch.step for branch in run.branches)
        self._saved = time.perf_counter()  # when, or when this process began
        self._ballot = Ballot(compiled.mesh)

    def advance(
        self, state: TrainState, step: int, should_stop: Callable[[], bool]
    ) -> tuple[TrainState, str]:
        """Trains from `step` to the end; the second result says why the run diverged, if so.

        The host gathers and sends a dispatch while the devices do the one before, and reads that
        one's metrics while they do the next. So no device waits for the host, and a run that has
        diverged is stopped one dispatch late:

            host      gather n | send n | read n-1 | vote | (read n, save) | gather n+1 | send n+1
            devices   n-1 . . . . . . . . n . . . . . . . . . . . . . . . . . . . . . . . n+1 . . .
        """
        run, unread, count, reason = self._run, None, 1, ""
        while step < run.steps and not reason:
            self._profiler.at(step, state)
            point = next((point for point in self._points if point > step), run.steps)
            count = min(count, self._batches.most, point - step, self._profiler.room(step))
            batch = self._gather(step, count, unread)
            state, metrics = self._compiled.train(state, *batch)
            reason = self._read(unread)
            unread, step = _Dispatch(step, count, metrics), step + count
            stop, save, count = self._vote(should_stop(), count)
            if stop or save or step in self._points:
                reason, unread = reason or self._read(unread), None
                if not reason and step < run.steps:
                    self._save(step, state)
                if stop and not reason:
                    raise Interrupted(run.run_id)
        self._profiler.at(step, state)
        reason = reason or self._read(unread)
        if self._writer:
            self._writer.flush()
        return state, reason

    def _gather(self, step: int, count: int, unread: _Dispatch | None) -> tuple[jax.Array, ...]:
        """What `Compiled.train` takes beside the state for updates `step` .. `step + count - 1`."""
        begun = time.perf_counter()
        batch = self._batches.of(step, count)
        # Idle already? Then a device waited for its input, at most since we began to gather it.
        if unread and unread.metrics["loss"].is_ready():
            self.speed.waited(time.perf_counter() - begun)
        return batch

    def _read(self, unread: _Dispatch | None) -> str:
        """Waits for a dispatch, logs it and judges it: why the run has diverged, or nothing."""
        if unread is None:
            return ""
        first, count = unread.first, unread.count
        values = {name: fetch(array)[:count] for name, array in unread.metrics.items()}
        now, loss = time.perf_counter(), float(values["loss"][-1])
        self.speed.read(count, now)
        self._meter.update()
        if self._writer:
            self._writer.write(first, values, now, self.speed.steps_per_second or 0.0)
        self._heartbeat.beat(first + count, loss=loss)
        self._on_progress(first + count, loss)
        factor = self._run.measurement.divergence_factor
        return divergence(first, values, factor, self._compiled.method.fault)

    def _vote(self, stop: bool, count: int) -> tuple[int, ...]:
        """(whether to stop, whether to save, steps of the next dispatch), of all processes.

        Any of them may be told to stop; the clock of process 0 is that of all.
        """
        if not distributed.is_writer():
            return self._ballot(stop, 0, 0)
        due = time.perf_counter() - self._saved > self._run.execution.checkpoint_seconds
        rate = self.speed.steps_per_second
        following = max(1, int(DISPATCH_SECONDS * rate)) if rate else 2 * count
        return self._ballot(stop, due, following)

    def _save(self, step: int, state: TrainState) -> None:
        self._heartbeat.doing("saving")
        if self._writer:
            self._writer.flush()
        self._checkpoints.save(step, given.without(state), self._meter.joules())
        self._saved = time.perf_counter()
        self._ballot = Ballot(self._compiled.mesh)  # without the votes that led to this
