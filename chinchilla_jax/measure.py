"""Measures finished runs by their last checkpoints, and adds that to their results.

    python -m chinchilla_jax.measure --config=configs/quickstart.py --workdir=runs/quickstart \\
        --config.techniques.quantisation.after=8,4,3

What techniques measure at the end of a run: the loss with weights of so many bits (`quantisation`),
how far a student is from its teacher (`distillation`), how even experts are loaded (`experts`). It
decides no number of the training, so a plan may come to ask for it when runs are done; nothing is
trained. Runs that have all that is asked for are passed over. One process does the others, on what
devices there are.

Exit status: 0 all that is done is measured; 1 some was left out; 2 a mistake in the call;
130 interrupted.
"""

import sys

from absl import flags

from chinchilla_jax import program, shared_flags
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.training import sweep, threads

_CONFIG = shared_flags.define_config(required=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the plan and the runs.", required=True)
_CELLS = flags.DEFINE_string("cells", "", "Which cells, as sweep takes them. Default: all.")


def main(_: list[str]) -> None:
    workdir = storage.path(_WORKDIR.value)
    asked = program.experiment_to_plan(_CONFIG.value, workdir)
    read_plan(workdir)  # nothing is begun in a folder that has none
    with sweep.opened_plan(asked, workdir) as (experiment, planned):
        cells = sweep.select(planned, _CELLS.value, experiment.order)
        from chinchilla_jax.training.measure import measure  # after the mistakes that need no JAX

        threads.use(1)
        found = measure(workdir, cells)
    for run_id, reason in found.left.items():
        print(f"{run_id}: not measured: {reason}", file=sys.stderr)
    before = f", {found.before} were before" if found.before else ""
    print(f"measured {found.measured} of {len(cells)} runs{before}, {found.not_done} not done")
    print(f"results: {workdir / 'results.csv'}")
    sys.exit(1 if found.left else 0)


if __name__ == "__main__":
    program.run(main, program.CONTINUES)
