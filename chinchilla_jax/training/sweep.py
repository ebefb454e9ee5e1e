"""A sweep over the cells of a plan: which of them, in what order, how far it is.

The cells' folders are the only state. Workers are processes that walk over the cells and take
those that are neither over nor locked, so that several sweeps, hosts or schedulers share a plan
without talking to each other. `supervise` has the workers of one host.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.data.store import Corpus, open_corpus
from chinchilla_jax.experiment import (
    claims,
    commands,
    estimate,
    fitted_recipe,
    grid,
    needs,
    results,
    tables,
    vary,
)
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.plans import (
    continued_plan,
    has_plan,
    planned_text,
    read_plan,
    write_plan,
)
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.version import code_version
from chinchilla_jax.training import branch_points, placement
from chinchilla_jax.training.placement import Host

log = logging.getLogger(__name__)

_RANGE = re.compile(r"\d+-\d+")  # of cells


def freeze_plan(
    experiment: Experiment, workdir: Path, then: Callable[[], object] = lambda: None
) -> list[Cell]:
    """Opens (or builds) every corpus, plans the grid on them and writes `plan.json`.

    Args:
      then: as of `write_plan`.
    Raises:
      UserError: no corpus or too little of it held out, no cell to run, or a work folder with
        runs of another plan, or where one is being carried out.
    """
    planned = read_plan(workdir)[2] if has_plan(workdir) else {}
    corpora: dict[DataConfig, Corpus] = {}
    for variant in vary.variants(experiment):
        source, data = variant.experiment, variant.experiment.data
        if data not in corpora:
            known = planned_text(planned, data) or data.fingerprint or None
            corpora[data] = open_corpus(data, cache_folder(data.cache), known)
        # Told now, not by every cell when it is about to train.
        windows = source.measurement.eval_windows
        corpora[data].validation_windows(windows, source.recipe.sequence_length)
    _tell_other_text(experiment, corpora)
    cells = grid.plan(experiment, {data: c.train_tokens for data, c in corpora.items()})
    cells = branch_points.as_begun(cells, workdir)
    facts = {
        "code_version": code_version(),
        "corpora": {
            fingerprint(data): {
                "train_tokens": corpus.train_tokens,
                "data_fingerprint": corpus.data_fingerprint,
                "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
            }
            for data, corpus in corpora.items()
        },
    }
    write_plan(workdir, experiment, cells, facts, then)
    results.renew(workdir)
    return cells


def _tell_other_text(experiment: Experiment, corpora: Mapping[DataConfig, Corpus]) -> None:
    """Of fitted recipes, whether the text is another than they were tuned on."""
    said = set()
    for source in (variant.experiment for variant in vary.variants(experiment)):
        if (fitted := fitted_recipe.check(source)) is not None:
            other = fitted_recipe.of_other_text(fitted, corpora[source.data].data_fingerprint)
            said |= {f"recipe.source = {source.recipe.source}: {other}"} if other else set()
    for line in sorted(said):
        log.warning("%s", line)


@contextlib.contextmanager
def opened_plan(asked: Experiment | None, workdir: Path) -> Iterator[tuple[Experiment, list[Cell]]]:
    """The plan to be carried out: that of `asked`, frozen now, or the one that is in `workdir`.

    It loses no cell while the context lasts.

    Raises:
      UserError: as `freeze_plan`.
    """
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(claims.claim(workdir))

        if asked is not None:
            freeze_plan(asked, workdir, claim)
        else:
            with claims.alone(workdir):
                claim()
            results.renew(workdir)
        yield continued_plan(workdir)


def select(cells: Sequence[Cell], selection: str, order: str, flag: str = "cells") -> list[Cell]:
    """The planned cells that `selection` names, in the order they are to run.

    Args:
      selection: empty for all; indices and ranges as `0,3,5-7`, of a range the planned cells, with
        the trunks of branches among them; or the part `i/n`, i from 0, of a division of the planned
        cells into n, with all that those need: whoever comes first makes it.
      order: smallest, largest (by FLOPs) or planned; what others need comes before, and branches of
        a trunk follow each other, since they share a program.
      flag: which gave the selection.
    Raises:
      UserError: a selection that is not of that form, or an index that is not planned.
    """
    where = f"--{flag}={selection}"
    planned = [cell for cell in cells if cell.status == "planned"]
    if "/" in selection:
        part, _, parts = selection.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise UserError(f"{where}: a part i/n has i from 0 to n - 1, for example 0/4")
        planned = _with_needs(planned[int(part) :: int(parts)], planned)
    elif selection:
        chosen = {
            cell.index: cell
            for item in selection.split(",")
            for cell in _named(item.strip(), cells, where)
        }
        by_id = {cell.run.run_id: cell for cell in planned}
        parents = [cell.run.parent for cell in chosen.values()]
        trunks = [by_id[parent.run] for parent in parents if parent]
        planned = list({cell.index: cell for cell in (*trunks, *chosen.values())}.values())
    keys: dict[str, Callable[[Cell], float]] = {
        "smallest": lambda cell: cell.flops,
        "largest": lambda cell: -cell.flops,
        "planned": lambda cell: cell.index,
    }
    behind = needs.chains([cell.run for cell in planned])
    by_id = {cell.run.run_id: cell for cell in planned}

    def place(cell: Cell) -> tuple[float, ...]:
        first = by_id[cell.run.parent.run] if cell.run.parent else cell
        return -behind[cell.run.run_id], keys[order](first), first.index, keys[order](cell)

    return sorted(planned, key=place)


def _named(item: str, cells: Sequence[Cell], where: str) -> list[Cell]:
    """The cell `3`, or of a range `3-7` the planned ones, both ends among them."""
    if not item:
        raise UserError(f"{where}: names no cell beside a comma; write it like 0,3,5-7")
    ends = item.split("-") if _RANGE.fullmatch(item) else [item]
    by_index = {str(cell.index): cell for cell in cells}
    for end in ends:
        if end not in by_index:
            raise UserError(
                f"{where}: there is no cell {end!r}; indices run from 0 to {len(cells) - 1}"
            )
    first, last = by_index[ends[0]].index, by_index[ends[-1]].index
    if first > last:
        raise UserError(f"{where}: a range goes up; did you mean {last}-{first}?")
    inside = [cell for cell in cells if first <= cell.index <= last]
    found = [cell for cell in inside if cell.status == "planned"]
    if not found:
        raise UserError(f"{where}: cell {first}: {inside[0].reason}")
    return found


def single(cells: Sequence[Cell], index: int) -> Cell:
    """The planned cell of an index, which --cell gave; raises UserError as `select`."""
    chosen = select(cells, str(index), "planned", "cell")  # with its trunk, of a branch
    return next(cell for cell in chosen if cell.index == index)


def _with_needs(chosen: Sequence[Cell], planned: Sequence[Cell]) -> list[Cell]:
    """`chosen` with the cells that they need, in the order of the plan."""
    by_id = {cell.run.run_id: cell for cell in planned}
    found: dict[str, Cell] = {}
    left = list(chosen)
    while left:
        cell = left.pop()
        found[cell.run.run_id] = cell
        left += [by_id[name] for name in needs.of_grid(cell.run) if name not in found]
    return sorted(found.values(), key=lambda cell: cell.index)


def chosen(workdir: Path, cells: Sequence[Cell], selection: str, order: str) -> list[Cell]:
    """`select`, where no cell lacks another that it needs.

    Raises:
      UserError: as `select`, or a cell needs one that is neither chosen nor over.
    """
    found = select(cells, selection, order)
    by_id = {cell.run.run_id: cell.index for cell in cells}
    there = {cell.run.run_id for cell in found}
    for cell in found:
        for name in needs.of_grid(cell.run):
            if name not in there and run_directory(workdir, name).result() is None:
                raise UserError(
                    f"--cells={selection}: cell {cell.index} ({cell.run.run_id}) needs cell "
                    f"{by_id[name]} ({name}), which is not over; choose both"
                )
    return found


def devices_for(run: RunConfig, host: Host, asked: int = 0) -> int:
    """How many of the host's devices a run gets: those `asked`, or as many as it can use well.

    Never more than its mesh takes. Where nothing is known of the devices it gets one, unless its
    configuration chooses a mesh. So on a CPU: two single-thread processes, each pinned to a core,
    beat one process of two threads 1.2 to 2.2 times on small models (tests/benchmarks/workers.py,
    tests/benchmarks/sweep_placement.py).

    Raises:
      UserError: the mesh that the configuration chooses needs more.
    """
    hardware = by_device_kind(host.kind)
    useful = estimate.useful_devices(run, len(host.devices), hardware) if hardware else 1
    fixed = min(placement.fixed_devices(run), len(host.devices))
    most = asked or max(useful, fixed)
    return placement.mesh_devices(estimate.resolve(run, most, hardware), most)


def outcome(
    workdir: Path, cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """What is said of a sweep that ended: its results, and a line for each cell that is left."""
    names = {cell.run.run_id for cell in cells}
    left = [r for r in rows if r["run_id"] in names and r["status"] not in ("done", "diverged")]
    lacking = unmeasured(workdir, cells, rows)
    return (
        f"{tables.results(rows)}\nresults: {workdir / 'results.csv'}{lacking}",
        [f"{row['run_id']}: {row['status']}: {row['reason'] or 'not run'}" for row in left],
    )


def unmeasured(workdir: Path, cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> str:
    """A line where cells are done without all that the plan asks to be measured at their end."""
    done = {row["run_id"]: row for row in rows if row["status"] == "done"}
    asked = [(done.get(c.run.run_id), techniques.asked(c.run.techniques)) for c in cells]
    if not (count := sum(row is not None and not row.keys() >= {*names} for row, names in asked)):
        return ""
    said = commands.command("measure", workdir=workdir)
    return f"\n{count} runs lack measurements that the plan asks for: run {said}"
