"""What techniques measure at the end of a run, measured of runs that are over: nothing is trained.

A plan may come to ask for it after runs are done, since it decides no number of them.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.records import RunDirectory, run_directory, write_results
from chinchilla_jax.training import devices, given, techniques
from chinchilla_jax.training.checkpoints import Checkpoints, meta
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import at_end
from chinchilla_jax.training.transfers import guards
from chinchilla_jax.training.worker import Corpora, locked, open_planned_corpus, prepare_jax

log = logging.getLogger(__name__)


def measure(
    workdir: Path, cells: Sequence[Cell], on_progress: Callable[[int], None] = lambda done: None
) -> dict[str, str]:
    """Measures those of `cells` that are done, and rebuilds `results.csv`.

    Args:
      on_progress: told how many were looked at.
    Returns:
      why a run that is done was left out, by its id.
    Raises:
      UserError: a run, its text or its checkpoint is another one than it was.
    """
    left: dict[str, str] = {}
    corpora: Corpora = {}
    for number, run in enumerate(cell.run for cell in cells):
        directory = run_directory(workdir, run.run_id)
        on_progress(number)
        if (directory.result() or {}).get("status") != "done" or not techniques.hooked(run):
            continue
        prepare_jax(cache_folder(run.data.cache))
        if run.data not in corpora:
            corpora[run.data] = open_planned_corpus(workdir, run)
        with locked(directory, patient=False) as lock:
            if lock is None:
                left[run.run_id] = f"is being run by {directory.owner()}"
                continue
            measured = _measured(run, corpora[run.data], directory)
            if measured is None:
                left[run.run_id] = "has no checkpoint of its end (execution.save_final)"
            else:
                directory.amend(measured)
    on_progress(len(cells))
    write_results(workdir)
    return left


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
