"""What techniques measure at the end of a run, measured of runs that are over: nothing is trained.

A plan may come to ask for it after runs are done, since it decides no number of them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax import techniques as declared
from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import results
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.training import devices, given, techniques
from chinchilla_jax.training.checkpoints import Checkpoints, meta
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import at_end
from chinchilla_jax.training.transfers import guards
from chinchilla_jax.training.worker import Corpora, locked, open_planned_corpus, prepare_jax

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the runs that were to be measured."""

    measured: int
    not_done: int
    left: Mapping[str, str]  # why a run that is done was left out, by its id
    before: int = 0  # that have all that the plan asks for already


def measure(
    workdir: Path, cells: Sequence[Cell], on_progress: Callable[[int], None] = lambda done: None
) -> Outcome:
    """Measures those of `cells` that are done and lack a measurement, and rebuilds `results.csv`.

    A run that cannot be measured, since it, its text, its checkpoint or a run that it needs is gone
    or another one than it was, is left out, and the others go on.

    Args:
      on_progress: told how many were looked at.
    Raises:
      UserError: the results cannot be rebuilt.
    """
    left: dict[str, str] = {}
    done = measured = before = 0
    corpora: Corpora = {}
    try:
        for number, run in enumerate(cell.run for cell in cells):
            directory = run_directory(workdir, run.run_id)
            on_progress(number)
            try:
                result = directory.result() or {}
                if result.get("status") != "done":
                    continue
                done += 1
                asked = declared.asked(run.techniques)
                if asked and result.keys() >= {*asked}:
                    before += 1
                elif techniques.hooked(run):
                    measured += _amended(workdir, run, directory, corpora)
            except UserError as error:
                left[run.run_id] = str(error)
        on_progress(len(cells))
    finally:  # an interruption loses nothing that was measured
        results.write(workdir)
    return Outcome(measured=measured, not_done=len(cells) - done, left=left, before=before)


def _amended(workdir: Path, run: RunConfig, directory: RunDirectory, corpora: Corpora) -> bool:
    """Measures a run and notes it; whether there was something to measure.

    Raises:
      UserError: it cannot be measured.
    """
    prepare_jax(cache_folder(run.data.cache))
    if run.data not in corpora:
        corpora[run.data] = open_planned_corpus(workdir, run)
    with locked(directory, patient=False) as lock:
        if lock is None:
            raise UserError(f"it is being run by {directory.owner()}")
        found = _measured(run, corpora[run.data], directory)
        if found is None:
            raise UserError("it has no checkpoint of its end (execution.save_final)")
        directory.amend(found)
    return bool(found)


def _measured(run: RunConfig, corpus: Corpus, directory: RunDirectory) -> dict[str, Any] | None:
    """By the checkpoint of the run's last step; None where that is not there."""
    run = devices.resolved(run)
    corpus = techniques.corpus_of(run, corpus)
    sources = techniques.sources_of(run, corpus, directory)
    compiled = compiled_for(run)
    held_out = corpus.validation_windows(run.measurement.eval_windows, run.sequence_length)
    keep = run.execution.keep_checkpoints
    with (
        guards(),
        jax.set_mesh(compiled.mesh),
        Checkpoints(directory.checkpoints, keep, meta(run, corpus)) as checkpoints,
    ):
        restored = checkpoints.restore_latest(given.without(compiled.abstract_state))
        if restored is None or restored[1] < run.steps:
            return None
        state = techniques.completed(run, restored[0], compiled.abstract_state, sources)
        log.info("%s: measured at its end", run.run_id)
        return at_end(run, compiled, state, held_out, sources)[1]
