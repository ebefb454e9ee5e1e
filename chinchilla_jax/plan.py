"""Shows the grid of an experiment: every cell, its size, tokens and steps, or why it is not run.

    python -m chinchilla_jax.plan --config=configs/quickstart.py
    python -m chinchilla_jax.plan --config=configs/chinchilla.py --devices=256 --hardware=h200
    python -m chinchilla_jax.plan --next --runs=runs/quickstart --flops=2e13 --write_config=more.py

With --workdir the corpus is built, the grid is checked against it and frozen in plan.json.
With --devices and --hardware it also shows, for each cell that is run: the mesh (data x fsdp x
tensor) that communicates least and fits, sequences of a device in one pass (x passes a step), its
bytes, two bounds of a step and the hours to expect. Nothing is allocated and no device is needed.

--next shows which runs, of --flops together, narrow the forecast of N* and L* at --target most, and
the interval to expect, by the runs there are; --write_config extends their work folder by them.
--enough=1.5 shows the smallest grid that is expected to tell N* there within this factor.
"""

from absl import flags

from chinchilla_jax import flag_values, program, shared_flags
from chinchilla_jax.experiment import grid, hardware, source, storage, tables
from chinchilla_jax.experiment.errors import UserError

_CONFIG = shared_flags.define_config(required=False)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder in which to freeze the plan.")
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Devices that each cell may use; with --hardware.", lower_bound=1
)
_HARDWARE = flags.DEFINE_string(
    "hardware", None, f"Their kind: {', '.join(h.name for h in hardware.HARDWARE)}; with --devices."
)
_NEXT = flags.DEFINE_bool("next", False, "Show which runs to make next; with --runs and --flops.")
_RUNS = flags.DEFINE_string("runs", "", "A sweep's folder or a table, for --next and --enough.")
_AIM = shared_flags.define_aim()
_WHERE = flags.DEFINE_list("where", [], "Only runs with these values: optimizer=adamw,bits=4.")
_WRITE_CONFIG = flags.DEFINE_string("write_config", "", "Where --next writes the runs it chose.")
_ENOUGH = flags.DEFINE_float("enough", None, "Show the least grid to tell N* within this factor.")
_LAW = flags.DEFINE_string("law", "", "A published law, by which --enough chooses instead.")
_NOISE = flags.DEFINE_float("noise", None, "Scatter of ln loss, by which --enough goes: 0.01.", 0.0)

_TAKES = {  # by what is asked for
    "": {"config", "devices", "hardware", "workdir"},
    "next": {"runs", "flops", "target", "where", "write_config"},
    "enough": {"runs", "target", "where", "law", "noise", "config"},
}


def _enough() -> str:
    """What is said of the smallest grid."""
    from chinchilla_jax.scaling.design.enough import enough_for
    from chinchilla_jax.scaling.report import design

    experiment = program.experiment_from_flags(_CONFIG.value) if _CONFIG.value else None
    asked = _ENOUGH.value or 0.0, _AIM()[1], _RUNS.value, experiment, _LAW.value, _NOISE.value
    return design.smallest(enough_for(*asked, flag_values.pairs("where", _WHERE.value)))


def _next() -> str:
    """What is said of the runs to make next."""
    from chinchilla_jax.scaling.design.next_runs import next_runs
    from chinchilla_jax.scaling.report import design

    budget, target = _AIM()
    if not _RUNS.value or budget is None:
        raise UserError("--next: give --runs, a sweep's folder or a table, and --flops to spend")
    if file := _WRITE_CONFIG.value:
        source.new_file(file)  # before what takes a while
    found = next_runs(_RUNS.value, budget, target, flag_values.pairs("where", _WHERE.value))
    return "\n".join([design.chosen(found), *([design.written(found, file)] if file else [])])


def main(_: list[str]) -> None:
    mode = "next" * _NEXT.value + "enough" * (_ENOUGH.value is not None)
    flag_values.refuse_flags_of_others(mode, _TAKES)
    if mode:
        print(_next() if _NEXT.value else _enough())
        return
    if (_DEVICES.value is None) != (_HARDWARE.value is None):
        raise UserError("--devices and --hardware: give both or neither")
    experiment = program.experiment_from_flags(_CONFIG.value)
    machine = None if _HARDWARE.value is None else hardware.by_name(_HARDWARE.value)
    if _WORKDIR.value:
        from chinchilla_jax.training import branch_points, sweep

        cells = sweep.freeze_plan(experiment, storage.path(_WORKDIR.value))
        print(tables.plan(cells, branch_points.begun(cells, storage.path(_WORKDIR.value))))
    else:
        cells = grid.plan(experiment)
        print(tables.plan(cells))
    if machine:
        print(f"\n{tables.hardware_plan(cells, _DEVICES.value or 0, machine)}")
    if _WORKDIR.value:
        print(f"plan: {storage.path(_WORKDIR.value) / 'plan.json'}")
    else:
        print("The corpus was not looked at; with --workdir its repetition is checked too.")


if __name__ == "__main__":
    program.run(main)
