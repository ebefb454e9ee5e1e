"""A configuration file and its overrides, as a person gives them on the command line."""

import dataclasses
import logging
import os
import re
import runpy
import sys
import traceback
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.earlier import MOVED
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.schema import closest, replace_paths, unknown_field
from chinchilla_jax.experiment.storage import expanded, is_remote

log = logging.getLogger(__name__)

OVERRIDE = "--config."
CONFIGS = Path(__file__).resolve().parent.parent / "configs"  # a link in a checkout


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Parts `--config.a.b=value` (or `--config.a.b value`) from the other arguments.

    Returns:
      The other arguments, and the overrides as (`a.b`, `value`).
    Raises:
      UserError: an override without a value.
    """
    others: list[str] = []
    overrides: list[tuple[str, str]] = []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith(OVERRIDE):
            others.append(argument)
            continue
        path, separator, value = argument.removeprefix(OVERRIDE).partition("=")
        if not separator:
            following = next(remaining, None)
            if following is None or following.startswith("--"):
                raise UserError(f"{argument}: has no value; write {argument}=VALUE")
            value = following
        overrides.append((path, value))
    return others, overrides


def load_experiment(path: str, overrides: Sequence[tuple[str, str]] = ()) -> Experiment:
    """Runs `get_config()` of a configuration file and applies the overrides in order.

    Where there is no file `configs/NAME.py`, or NAME alone is given, it is the one of that name
    that the package carries.

    Raises:
      UserError: no such file, an error in it, or an override that does not fit.
    """
    file = Path(path)
    try:
        found = file.is_file()
    except OSError as error:
        raise UserError(f"--config={path}: cannot be a file: {error.strerror}") from None
    if not found and (carried := _carried(file)):
        file, found = carried, True
    if not found:
        raise UserError(f"--config={path}: {_missing(file)}")
    for name, _ in overrides:
        if name in MOVED:
            raise UserError(f"config.{name}: is now config.{MOVED[name]}")
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        experiment = get_config() if callable(get_config) else None
    except UserError as error:
        raise UserError(f"{_place(file)}: {error}") from None
    except TypeError as error:
        raise UserError(f"{_place(file)}: {_unknown_argument(error)}") from None
    except SystemExit:
        raise UserError(f"{_place(file)}: ends the program; define get_config() there") from None
    except Exception as error:
        raise UserError(f"{_place(file)}: {type(error).__name__}: {error}") from None
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: must define get_config() that returns an Experiment")
    return replace_paths(experiment, overrides)


def _carried(file: Path) -> Path | None:
    """The file of the package that `configs/NAME.py` or `NAME` stands for, where there is one."""
    if file.parent not in (Path(), Path("configs")) or file.is_dir():
        return None
    carried = CONFIGS / f"{file.stem}.py"
    if file.suffix not in ("", ".py") or not carried.is_file():
        return None
    log.info("--config=%s: the one of %s", file, CONFIGS)
    return carried


def _missing(file: Path) -> str:
    """What is wrong with a configuration that is not there, the nearest one, and what there is."""
    if file.is_dir():
        return f"is a folder; give a file of it ({file}/ has {_listed(_files(file))})"
    bare = file.parent == Path()
    folders = (Path("configs"),) if bare else (file.parent, Path("configs"))
    folder = next((folder for folder in folders if folder.is_dir()), None)
    there = _files(CONFIGS if folder is None else folder)
    spelled = {p.stem: f"configs/{p.name}" if folder is None else str(p) for p in there}
    if bare:  # a file here, or one that the package carries, goes by its name
        spelled |= {p.stem: p.name for p in _files(Path())} | {
            p.stem: p.stem for p in _files(CONFIGS)
        }
    near = closest(file.stem, list(spelled))
    place = "the package" if folder is None else f"{folder}/"
    did = f"; did you mean {spelled[near]}?" if near else ""
    return f"no such file{did} ({place} has {_listed(there)})"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.is_file())


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(path.name for path in files) or "no configs"


def _unknown_argument(error: TypeError) -> str:
    """What is wrong in one line, where a group of the configuration was given no field of it."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    named = {hint: f"{group}." for group, hint in _groups(Experiment)}
    groups = {Experiment: "", Setting: "panel.", Point: "points.", **named}
    for cls, group in groups.items():
        if found and cls.__name__ == found[1]:
            name = found[2]
            if now := MOVED.get(group + name):
                _, _, path = now.partition("vary.")
                example = f', as vary={{"{path}": (...)}}' if path else ""
                return f"{cls.__name__}({name}=...): {name} is now {now}{example}"
            return str(unknown_field(cls.__name__, name, [f.name for f in dataclasses.fields(cls)]))
    return f"TypeError: {error}"


def _groups(within: Any) -> Iterator[tuple[str, Any]]:
    """The fields of an experiment that are groups of fields, by path, and their types."""
    for name, hint in typing.get_type_hints(within).items():
        if dataclasses.is_dataclass(hint):
            yield name, hint
            yield from ((f"{name}.{path}", inner) for path, inner in _groups(hint))


def _place(file: Path) -> str:
    """`file:line` of the innermost frame in `file` of the exception being handled."""
    error = sys.exc_info()[1]
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{file}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)


def cache_folder(configured: str = "") -> Path:
    """Where corpora and compiled programs are kept between runs.

    The configured folder, else $CHINCHILLA_JAX_CACHE, else ~/.cache/chinchilla_jax.

    Raises:
      UserError: it is in an object store, and memory maps and XLA want files; or there is no home.
    """
    chosen = configured or os.environ.get("CHINCHILLA_JAX_CACHE", "")
    if is_remote(chosen):
        raise UserError(f"cache {chosen}: corpora and compiled programs are kept on a local disk")
    if chosen:
        return expanded(chosen)
    try:
        return Path.home() / ".cache" / "chinchilla_jax"
    except RuntimeError:
        raise UserError(
            "this user has no home for prepared corpora; set CHINCHILLA_JAX_CACHE to a folder"
        ) from None
