"""A file, or a folder with a file per run as several programs leave them, as one table."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from chinchilla_jax.experiment import plans, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table.readers import SUFFIXES, Cell, Raw, read_raw
from chinchilla_jax.scaling.table.shapes import SHAPES, Shape, run_of, shape_of

_PATIENCE, _PAUSE = 1.0, 5.0  # seconds to the first word on how far it is, and to each further one


def is_sweep(path: Path) -> bool:
    """Whether it is a work folder of ours, or what is left of one."""
    return path.is_dir() and (plans.has_plan(path) or storage.exists(path / "results.csv"))


def read_file(path: Path) -> Raw:
    """The rows of a file; one that is a run's has the name of the run, told by the path."""
    raw = read_raw(path)
    shape = shape_of(raw.columns)
    return _named(raw, run_of(path), shape) if shape and shape.one_run else raw


def read_folder(folder: Path) -> Raw:
    """The rows of all files below `folder` that are known to be one run's each.

    `run_id` is told by the path (`shapes.run_of`). Of several files of one run, such as those of
    its checkpoints, the longest counts. Other files are counted in a note. How far it is stands on
    standard error where it takes long: the folder may be any.

    Raises:
      UserError: there is no such file.
    """
    runs: dict[str, Raw] = {}
    others: dict[str, str] = {}
    found = _told(storage.each_file(folder), lambda n: f"{folder}: {n:,} files so far")
    names = [name for name in sorted(found) if _may_be_a_table(name)]
    kinds = _kinds(names)
    for name in _told(names, lambda n: f"{folder}: read {n:,} of {len(names):,} files ({kinds})"):
        path = folder / name
        try:
            raw = read_raw(path)
        except UserError as error:
            others[name] = str(error)
            continue
        shape, run = shape_of(raw.columns), run_of(path, folder)
        if shape is None or not (shape.one_run or len(raw.line) == 1):
            others[name] = f"{path}: {shape.instead}" if shape and shape.instead else ""
            continue
        key = run if shape.table else name  # a run may have several results
        if key not in runs or len(raw.line) > len(runs[key].line):
            runs[key] = _named(raw, run, shape)
    if not runs:
        known = ", ".join(shape.name for shape in SHAPES if shape.one_run)
        why = next(filter(None, others.values()), "")
        several = f"; none of {len(names):,} files is one ({kinds})" if len(names) > 1 else ""
        raise UserError(
            f"{folder}: neither a sweep's folder (plan.json or results.csv) nor one with a file "
            f"per run ({known}){several}{f'; {why}' if why else ''}"
        )
    titles = dict.fromkeys(name for raw in runs.values() for name in raw.columns)
    columns: dict[str, list[Cell]] = {
        name: [
            cell for raw in runs.values() for cell in raw.columns.get(name, [None] * len(raw.line))
        ]
        for name in titles
    }
    said = f"{len(runs)} files are a run each"
    if others:
        said += f"; {len(others)} others are not ('{next(iter(others))}' first)"
    lines = [line for raw in runs.values() for line in raw.line]
    return Raw(str(folder), columns, lines, notes=(said,))


def _may_be_a_table(name: str) -> bool:
    return PurePath(name).suffix.lower() in SUFFIXES and not name.startswith("report/")


def _kinds(names: Sequence[str]) -> str:
    """How many files are of which kind: 300 .json, 2 .csv."""
    found = Counter(PurePath(name).suffix.lower() for name in names)
    return ", ".join(f"{count:,} {suffix}" for suffix, count in found.most_common())


def _told(names: Iterable[str], so_far: Callable[[int], str]) -> Iterator[str]:
    """The names, and now and then a line on standard error where they take long."""
    due = time.monotonic() + _PATIENCE
    for count, name in enumerate(names):
        if time.monotonic() > due:
            print(so_far(count), file=sys.stderr, flush=True)
            due = time.monotonic() + _PAUSE
        yield name


def _named(raw: Raw, run: str, shape: Shape) -> Raw:
    """With the run's name, and what it tells."""
    known: dict[str, list[Cell]] = {
        name: [value] * len(raw.line)
        for name, value in {"run_id": run, **shape.of_run(run)}.items()
    }
    return replace(raw, columns={**raw.columns, **known})
