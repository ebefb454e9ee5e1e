"""Trains one run to its end, or continues it: a cell of a plan, or a resolved configuration.

    python -m chinchilla_jax.train --config=configs/quickstart.py --workdir=runs/quickstart --cell=3
    python -m chinchilla_jax.train --run=some/config.json --workdir=runs/alone

Exit status: 0 done; 1 diverged, or another process has the run; 2 a mistake in the call;
130 interrupted (the state is saved).
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

from absl import flags

from chinchilla_jax import program, shared_flags
from chinchilla_jax.experiment import needs, plans, records, results, storage, tables
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.training import distributed, threads
from chinchilla_jax.training.sweep import opened_plan, single

_JOIN = shared_flags.define_processes()
_CONFIG = shared_flags.define_config(required=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_CELL = flags.DEFINE_integer("cell", None, "Index of the cell in the plan.", lower_bound=0)
_PROFILE = flags.DEFINE_string(
    "profile_steps", "", "Write a trace of these updates, as 10:13, to profile in the run's folder."
)
_RUN = flags.DEFINE_string("run", "", "In the place of a cell: the config.json of a resolved run.")


def _chosen(workdir: Path, opened: contextlib.ExitStack) -> RunConfig:
    """The run, which does not leave the plan before `opened` ends."""
    if bool(_RUN.value) == (_CELL.value is not None):
        raise UserError(
            "give either --cell=INDEX of the plan or --run=FILE, a resolved config.json"
        )
    if _RUN.value:
        return needs.read_run(storage.path(_RUN.value))

    def select_one() -> str:
        asked = program.experiment_to_plan(_CONFIG.value, workdir)
        _, cells = opened.enter_context(opened_plan(asked, workdir))
        return single(cells, _CELL.value or 0).run.run_id

    return plans.cells_of(workdir, [distributed.on_writer(select_one)])[0].run


def _train(workdir: Path) -> dict[str, Any]:
    """The result row."""
    with contextlib.ExitStack() as opened:
        return _carry_out(workdir, _chosen(workdir, opened))


def _carry_out(workdir: Path, run: RunConfig) -> dict[str, Any]:
    from chinchilla_jax.training import worker  # after the mistakes that need no JAX
    from chinchilla_jax.training.loop import Interrupted, train
    from chinchilla_jax.training.profiling import steps_named

    profiled = steps_named(_PROFILE.value, run.steps)
    directory = records.run_directory(workdir, run.run_id)
    threads.use(threads.alone(run, directory))
    worker.prepare_jax(cache_folder(run.data.cache))
    corpus = worker.open_planned_corpus(workdir, run)
    total = ledger(run).training_flops(run.flops_convention)

    def show(step: int, loss: float) -> None:
        if distributed.is_writer():
            bar.show(total * step // run.steps, total, f"step {step}, loss {loss:.4f}")

    with worker.locked(directory, patient=True) as lock, tables.ProgressBar() as bar:
        if lock is None:
            raise UserError(f"{run.run_id}: is being run by {directory.owner()}; left alone")
        distributed.on_writer(directory.forget_failure)
        try:
            should_stop = lock.guard(worker.stop_requested())
            row = train(run, corpus, directory, should_stop, show, profiled)
        except Interrupted:
            raise KeyboardInterrupt from None
    if plans.has_plan(workdir):
        distributed.on_writer(lambda: results.note(workdir, [run]))
    return row


def main(_: list[str]) -> None:
    _JOIN()
    row = distributed.in_all_processes(lambda: _train(storage.path(_WORKDIR.value)))
    if distributed.is_writer():
        print(tables.results([row]))
    if row["status"] != "done":
        sys.exit(f"{row['run_id']}: {row['status']}: {row['reason']}")


if __name__ == "__main__":
    program.run(main, program.CONTINUES)
