"""Shows the grid of an experiment: every cell, its size, tokens and steps, or why it is not run.

    python -m chinchilla_jax.plan --config=configs/quickstart.py

With --workdir the corpus is built, the grid is checked against it and frozen in plan.json.
"""

from absl import flags

from chinchilla_jax import program
from chinchilla_jax.experiment import grid, storage, tables

_CONFIG = program.define_config()
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder in which to freeze the plan.")


def main(_: list[str]) -> None:
    experiment = program.experiment_from_flags(_CONFIG.value)
    if _WORKDIR.value:
        from chinchilla_jax.training.sweep import freeze_plan

        cells = freeze_plan(experiment, storage.path(_WORKDIR.value))
    else:
        cells = grid.plan(experiment)
    print(tables.plan(cells))
    if _WORKDIR.value:
        print(f"plan: {storage.path(_WORKDIR.value) / 'plan.json'}")
    else:
        print("The corpus was not looked at; with --workdir its repetition is checked too.")


if __name__ == "__main__":
    program.run(main)
