"""A sweep over the cells of a plan: who runs what, how far it is, and what came of it.

The cells' folders are the only state. Workers are processes that walk over the cells and take
those that are neither over nor locked, so that several sweeps, hosts or schedulers share a plan
without talking to each other. No JAX here: the parent must leave the devices to its workers.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chinchilla_jax import techniques
from chinchilla_jax.data.store import Corpus, open_corpus
from chinchilla_jax.experiment import estimate, grid, lock, needs, storage, vary
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.records import (
    continued_plan,
    has_plan,
    planned_text,
    read_plan,
    run_directory,
    write_plan,
    write_results,
)
from chinchilla_jax.experiment.storage import StorageError
from chinchilla_jax.experiment.version import code_version
from chinchilla_jax.training import placement
from chinchilla_jax.training.placement import Group, Host

POLL_SECONDS = 0.5
REMOTE_LOOK_SECONDS = 10.0  # between looks at an object store, where each costs requests


@dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    flops: float  # done, of the selected cells
    flops_total: float
    over: int  # cells: done, diverged or failed
    cells: int


def freeze_plan(experiment: Experiment, workdir: Path) -> list[Cell]:
    """Opens (or builds) every corpus, plans the grid on them and writes `plan.json`.

    Raises:
      UserError: no corpus or too little of it held out, no cell to run, or a work folder with
        runs of another plan.
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
    cells = grid.plan(experiment, {data: c.train_tokens for data, c in corpora.items()})
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
    write_plan(workdir, experiment, cells, facts)
    return cells


def opened_plan(asked: Experiment | None, workdir: Path) -> tuple[Experiment, list[Cell]]:
    """The plan to be carried out: that of `asked`, frozen now, or the one that is in `workdir`.

    Raises:
      UserError: as `freeze_plan`.
    """
    if asked is not None:
        freeze_plan(asked, workdir)
    return continued_plan(workdir)


def select(cells: Sequence[Cell], selection: str, order: str, flag: str = "cells") -> list[Cell]:
    """The planned cells that `selection` names, in the order they are to run.

    Args:
      selection: empty for all; indices as `0,3,7`; or the part `i/n`, i from 0, of a division
        of the planned cells into n, with all that those need: whoever comes first makes it.
      order: smallest, largest (by FLOPs) or planned; what others need comes before.
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
        by_index = {str(cell.index): cell for cell in cells}
        chosen = []
        for item in selection.split(","):
            cell = by_index.get(item.strip())
            if cell is None:
                raise UserError(
                    f"{where}: there is no cell {item.strip()!r}; indices run from 0 "
                    f"to {len(cells) - 1}"
                )
            if cell.status != "planned":
                raise UserError(f"{where}: cell {cell.index}: {cell.reason}")
            chosen.append(cell)
        planned = chosen
    keys: dict[str, Callable[[Cell], float]] = {
        "smallest": lambda cell: cell.flops,
        "largest": lambda cell: -cell.flops,
        "planned": lambda cell: cell.index,
    }
    behind = needs.chains([cell.run for cell in planned])
    return sorted(planned, key=lambda cell: (-behind[cell.run.run_id], keys[order](cell)))


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


def progress(workdir: Path, cells: Sequence[Cell]) -> Progress:
    """How far the cells are, from their folders."""
    flops, over = 0.0, 0
    for cell in cells:
        directory = run_directory(workdir, cell.run.run_id)
        if directory.result() or directory.failure():
            flops, over = flops + cell.flops, over + 1
        else:
            flops += directory.last_flops()
    return Progress(flops, float(sum(cell.flops for cell in cells)), over, len(cells))


def unmeasured(workdir: Path, cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> str:
    """A line where cells are done without all that the plan asks to be measured at their end."""
    done = {row["run_id"]: row for row in rows if row["status"] == "done"}
    asked = [(done.get(c.run.run_id), techniques.asked(c.run.techniques)) for c in cells]
    if not (count := sum(row is not None and not row.keys() >= {*names} for row, names in asked)):
        return ""
    command = f"python -m chinchilla_jax.measure --workdir={workdir}"
    return f"\n{count} runs lack measurements that the plan asks for: run {command}"


def run(
    workdir: Path,
    cells: Sequence[Cell],
    on_progress: Callable[[Progress], None],
    devices_per_cell: int = 0,
    cells_per_device: int = 1,
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Runs those of `cells` that are not over, and returns the result rows of the whole plan.

    SIGTERM and SIGINT are passed on to the workers, which save their state.

    Args:
      devices_per_cell: what a cell gets of this host, see `devices_for`.
      cells_per_device: at once, of the cells that get one device.
      workers: most processes at once; 0 for as many as there is place for.
    Raises:
      UserError: a cell that does not fit this host, or a division it does not know.
      KeyboardInterrupt: after an orderly stop by a signal.
    """
    todo = [c for c in cells if run_directory(workdir, c.run.run_id).result() is None]
    host = placement.this_host()
    groups = placement.groups(
        host, todo, lambda run: devices_for(run, host, devices_per_cell), cells_per_device
    )
    for cell in todo:
        run_directory(workdir, cell.run.run_id).forget_failure()
    interrupted: list[int] = []
    previous = {
        number: signal.signal(number, lambda received, frame: interrupted.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        complaint = _supervise(
            workdir, groups, cells, workers or len(groups), interrupted, on_progress
        )
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    rows = write_results(workdir)
    if interrupted:
        raise KeyboardInterrupt
    if complaint and progress(workdir, cells).over < len(cells):
        raise UserError(complaint)
    return rows


def _supervise(
    workdir: Path,
    groups: Sequence[Group],
    cells: Sequence[Cell],
    most: int,
    interrupted: Sequence[int],
    on_progress: Callable[[Progress], None],
) -> str:
    """Keeps up to `most` workers at their places until all cells are over or a signal comes.

    Returns:
      What a worker said that ended without being at a cell; empty when none did.
    """
    waiting = dict(enumerate(groups))
    alive: dict[int, subprocess.Popen[bytes]] = {}
    stopping, complaint = False, ""
    next_look, remote = 0.0, storage.is_remote(workdir)
    while alive or waiting:
        for number, group in list(waiting.items()):
            before = [groups[n] for n in {*alive, *waiting} if n < number]
            if len(alive) < most and placement.may_start(group, before):
                alive[number] = _spawn(workdir, group, number)
                del waiting[number]
        time.sleep(POLL_SECONDS)
        if interrupted and not stopping:
            waiting.clear()
            for process in alive.values():
                process.terminate()
            stopping = True
        for number, process in list(alive.items()):
            status = process.poll()
            if status is None:
                continue
            del alive[number]
            group = groups[number]
            if not status or interrupted:
                continue
            if _blame(workdir, group.cells, process.pid, status):
                waiting[number] = group
            else:
                complaint = _last_line(_log_file(workdir, number))
        if not alive or time.monotonic() >= next_look:
            with contextlib.suppress(StorageError):  # the bar can wait for the store to come back
                on_progress(progress(workdir, cells))
            next_look = time.monotonic() + (REMOTE_LOOK_SECONDS if remote else 0.0)
    if remote:  # so far they lie on this host
        for log in storage.children(_logs(workdir)):
            storage.write_bytes_atomic(workdir / "logs" / log.name, log.read_bytes())
    return complaint


def _spawn(workdir: Path, group: Group, number: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "chinchilla_jax.sweep", f"--workdir={workdir}",
        f"--cells={','.join(str(cell.index) for cell in group.cells)}",
        f"--pin={','.join(map(str, group.place.cores))}", "--worker",
    ]  # fmt: skip
    file = _log_file(workdir, number)

    def opened() -> IO[bytes]:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("ab")

    with storage.attempt(file, "written", opened) as log:
        # A session of its own: Ctrl-C reaches the workers once, through us.
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=placement.environment(group.place, os.environ),
        )


def _logs(workdir: Path) -> Path:
    """Where workers write what they say: beside the runs, or on this host until the sweep ends."""
    if not storage.is_remote(workdir):
        return workdir / "logs"
    here = f"chinchilla_jax-{os.getuid()}-{workdir.name}-{os.getpid()}"
    return Path(tempfile.gettempdir()) / here


def _log_file(workdir: Path, number: int) -> Path:
    return _logs(workdir) / f"{socket.gethostname()}-{number}.log"


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1].removeprefix('error: ') if lines else 'a worker ended'} (see {file})"


def _blame(workdir: Path, cells: Sequence[Cell], pid: int, status: int) -> bool:
    """Notes the death of a worker in the cell it was at; whether there was one."""
    for cell in cells:
        directory = run_directory(workdir, cell.run.run_id)
        was_there = directory.owner() == lock.process(pid)
        if was_there and directory.result() is None:
            what = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            if status == -signal.SIGKILL:
                what += ", as where memory runs out (--config.execution.microbatch=1 takes least)"
            directory.fail(f"its process ended {what}; see {_logs(workdir)}")
            return True
    return False
