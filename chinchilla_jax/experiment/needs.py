"""The runs that a run needs before it can begin: a teacher, whose weights it takes, for example.

A configuration names another run in one of four ways:

* by its run id, `3e12-48x3-s0`: that run of the same grid;
* by budget and size, `3e12-48x3`: of the runs of the same grid that have the techniques of the
  experiment itself, not of its panel or of what varies, the one that is otherwise as the run that
  needs it, its seed included;
* by a setting of the panel, `c_source`, or one at a budget, `1e12-c_source`: the run of that
  setting that has its own shape and is otherwise as the run that needs it, its seed included;
* by a path, with a / in it: the folder of a run that is done, of one of its checkpoints,
  `.../checkpoints/5000`, or of an exported model.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chinchilla_jax import techniques
from chinchilla_jax.experiment import earlier, exported, json_data, storage
from chinchilla_jax.experiment.config import Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.ledger import facts, ledger
from chinchilla_jax.experiment.other_run import OtherRun
from chinchilla_jax.experiment.schema import from_json, nearest, replace_values

CHECKPOINTS = "checkpoints"  # in the folder of a run
RECORD = "record.json"  # of a checkpoint, in its folder


@dataclass(frozen=True)
class Planned:
    """A run of a grid."""

    run: RunConfig
    variant: Experiment  # that it is of
    reason: str  # why it is not run; empty where it is


def settled(grid: Sequence[Planned], experiment: Experiment) -> list[Planned]:
    """The runs of a grid, of which each knows those that it needs.

    One that has to end with a checkpoint, since another one needs it, does. One that cannot go
    with those that it needs is rejected.

    Args:
      experiment: that the grid is of.
    Raises:
      UserError: a need that is no run, is not run, or is met by a run that needs this one.
    """
    by_id = {planned.run.run_id: planned for planned in grid}
    found: dict[str, Planned] = {}
    base = techniques.reduced(experiment.techniques)
    # By what decides numbers: a plain run may be measured in further ways at its end.
    without = [p for p in grid if fingerprint(p.run.techniques) == fingerprint(base)]
    kinds = {
        key: fingerprint(replace(variant, techniques=base))
        for key, variant in {id(p.variant): p.variant for p in grid}.items()
    }

    def alike(planned: Planned) -> list[Planned]:
        return [p for p in without if kinds[id(p.variant)] == kinds[id(planned.variant)]]

    def of_setting(planned: Planned, asked: str) -> list[Planned]:
        return [
            p
            for p in grid
            if asked in _of_panel(p.run) and p.run.model == planned.run.model
            if _without_setting(p, experiment) == _without_setting(planned, experiment)
        ]

    def settle(planned: Planned, waiting: tuple[str, ...]) -> Planned:
        run_id = planned.run.run_id
        if run_id in found or planned.reason:
            return found.setdefault(run_id, planned)
        others, chain, reason = [], (*waiting, run_id), ""
        for where, asked in _asked(planned.run):
            if is_path(asked):
                others.append(_of_folder(where, asked))
                continue
            exact = [p for p in grid if p.run.run_id == asked] or of_setting(planned, asked)
            other = _of_grid(where, asked, planned, exact, alike(planned))
            if other in chain:
                raise UserError(f"{where}: {_circle((*chain, other))}")
            met = settle(by_id[other], chain)
            others.append(other_run(asked, other, met.run))
            if met.reason:
                reason = f"needs {other}, which is not run: {met.reason}"
        run = replace(planned.run, needs=tuple(others))
        reason = reason or techniques.misfit(run.techniques, facts(run))
        found[run_id] = replace(planned, run=run, reason=reason)
        return found[run_id]

    for planned in grid:
        settle(planned, ())
    needed = {other.run for planned in found.values() for other in planned.run.needs}
    return [
        _with_final(found[planned.run.run_id], planned.run.run_id in needed) for planned in grid
    ]


def _with_final(planned: Planned, needed: bool) -> Planned:
    execution = planned.run.execution
    if not needed or execution.save_final:
        return planned
    return replace(planned, run=replace(planned.run, execution=replace(execution, save_final=True)))


def is_path(asked: str) -> bool:
    """Whether another run is named by its folder."""
    return "/" in asked


def other_run(asked: str, name: str, run: RunConfig, step: int | None = None) -> OtherRun:
    """What a run that needs `run` as it is after `step` updates, or at its end, knows of it."""
    step = run.steps if step is None else step
    return OtherRun(
        asked=asked,
        run=name,
        fingerprint=fingerprint(run),
        step=step,
        model=run.model,
        parametrization=run.optimizer.parametrization,
        base_width=run.optimizer.base_width,
        tokens=run.tokens * step // run.steps + sum(other.tokens for other in run.needs),
        flops=ledger(run).flops_matmul * step // run.steps + sum(o.flops for o in run.needs),
    )


def of_export(asked: str, folder: Path) -> OtherRun:
    """The run that an exported model is of; its fingerprint is that of the arrays in the folder.

    Raises:
      UserError: the folder is not whole.
    """
    of = exported.read(folder)
    return OtherRun(
        asked=asked,
        run=asked,
        fingerprint=exported.digest(folder),
        step=of.step,
        model=of.model,
        parametrization=of.parametrization,
        base_width=of.base_width,
        tokens=of.tokens,
        flops=of.flops,
    )


def read_run(file: Path) -> RunConfig:
    """The run of a `config.json`.

    Raises:
      UserError: no such file, or not the configuration of a run.
    """
    return from_json(RunConfig, earlier.upgraded(json_data.read_json(file)), str(file))


def place(other: OtherRun, runs: Path) -> Path:
    """The folder of another run; `runs` is where those of the same grid are."""
    return _folder_and_step(other.run)[0] if is_path(other.run) else runs / other.run


def is_checkpoint(other: OtherRun) -> bool:
    """Whether the checkpoint is named itself, of a run that need not be done."""
    return is_path(other.run) and _folder_and_step(other.run)[1] is not None


def of_grid(run: RunConfig) -> list[str]:
    """The run ids of those it needs of its own work folder, its trunk among them."""
    trunk = [run.parent.run] if run.parent else []
    return trunk + [other.run for other in run.needs if not is_path(other.run)]


def chains(runs: Sequence[RunConfig]) -> dict[str, int]:
    """By run id, how many runs wait behind each in the longest chain of needs."""
    behind: dict[str, list[str]] = {run.run_id: [] for run in runs}
    for run in runs:
        for name in of_grid(run):
            behind.setdefault(name, []).append(run.run_id)

    def length(run_id: str) -> int:
        return max((1 + length(student) for student in behind.get(run_id, ())), default=0)

    return {run.run_id: length(run.run_id) for run in runs}


def check(runs: Sequence[RunConfig], where: str) -> None:
    """That what runs of a plan need can be met, as it is when they are planned.

    Raises:
      UserError: it was damaged: a need is missing, is none of `runs`, or no order of them meets it.
    """
    left = {run.run_id: set(of_grid(run)) for run in runs}
    for run in runs:
        for path, asked in _asked(run):
            if asked not in {other.asked for other in run.needs}:
                raise UserError(f"{where}: {run.run_id}: {path} is not among its needs")
        for name in of_grid(run):
            if name not in left:
                raise UserError(f"{where}: {run.run_id} needs {name}, which is no planned run")
    while met := [name for name, others in left.items() if not others & left.keys()]:
        for name in met:
            del left[name]
    if left:
        raise UserError(f"{where}: {' and '.join(left)} can never begin: they need each other")


def _asked(run: RunConfig) -> Iterator[tuple[str, str]]:
    """What a run needs: (where its configuration says so, how it calls it)."""
    for name, asked in techniques.needs(run.techniques).items():
        yield f"{name} = {json.dumps(asked)}", asked


def _of_grid(
    where: str, asked: str, planned: Planned, exact: Sequence[Planned], plain: Sequence[Planned]
) -> str:
    """The run id of the run of the grid that is called so, `exact` or one of `plain`, which are
    otherwise like `planned`."""
    found = exact or [other for other in plain if other.run.run_id.startswith(f"{asked}-")]
    runs = [other.run.run_id for other in found if not other.reason]
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise UserError(f"{where}: could be {' or '.join(runs)}; give one of these")
    if found:
        raise UserError(f"{where}: {found[0].run.run_id} is not run: {found[0].reason}")
    names = [other.run.run_id for other in plain if not other.reason]
    there = f"has {', '.join(names)}" if names else "has none"
    raise UserError(
        f"{where}: is neither a run of the grid nor a path, which has a /{nearest(asked, names)} "
        f"(of plain runs otherwise like {planned.run.run_id} the grid {there})"
    )


def _of_panel(run: RunConfig) -> tuple[str, ...]:
    """What a run of a setting of the panel may be called by."""
    return (run.panel, f"{run.run_id.partition('-')[0]}-{run.panel}") if run.panel else ()


def _without_setting(planned: Planned, experiment: Experiment) -> Experiment:
    """The variant that a run is of, without what its setting of the panel has set."""
    setting = experiment.panel.get(planned.run.panel)
    values = {
        path: functools.reduce(getattr, path.split("."), experiment)
        for path in (setting.values if setting else ())
    }
    return replace_values(planned.variant, values)


def _circle(chain: Sequence[str]) -> str:
    first = chain[-1]
    circle = [*chain[chain.index(first) :]]
    if len(circle) == 2:
        return f"the run {first} would need itself; vary it, with a value for the runs without"
    return f"the runs need each other in a circle: {' -> '.join(circle)}"


def _of_folder(where: str, asked: str) -> OtherRun:
    folder, step = _folder_and_step(asked)
    if not storage.exists(folder / "config.json"):
        raise UserError(
            f"{where}: {folder} is no folder of a run, which has a config.json, nor of one of its "
            f"checkpoints, RUN/{CHECKPOINTS}/STEP"
        )
    if exported.section_of(folder) is not None:
        return of_export(asked, folder)
    run = read_run(folder / "config.json")
    if step is not None and step > run.steps:
        raise UserError(f"{where}: the run has {run.steps} steps")
    return other_run(asked, asked, run, step)


def _folder_and_step(asked: str) -> tuple[Path, int | None]:
    path = storage.path(asked)
    if path.parent.name == CHECKPOINTS and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None
