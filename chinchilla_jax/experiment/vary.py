"""What varies between the runs of an experiment besides budget and size: a product over paths.

`Experiment.vary` maps paths of the experiment to values, `{"seed": (0, 1), "recipe.base_lr": (.004,
.006)}`. Each combination is a variant: the experiment with these values set and nothing left to
vary. The first path changes slowest; a value that is appended leaves the others in their order.
Settings of a panel (`panel.py`) follow, each with every combination.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chinchilla_jax.experiment import panel
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.panel import PLAIN, Setting
from chinchilla_jax.experiment.schema import field_type, replace_values, to_json, typed

T = TypeVar("T")

# Of an experiment, what its grid has one of.
_OF_THE_GRID = {
    "budgets": "budgets are an axis of the grid already",
    "ladder": "the ladder is an axis of the grid already",
    "flops_convention": "a run's FLOPs are recorded in every convention",
}
MOST_CHARACTERS = 150  # of a run id; files of a run have longer names, and file systems take 255


@dataclass(frozen=True)
class Variant(Generic[T]):
    """One combination of the values that vary."""

    experiment: T
    name: str  # its part of a run id, `base_lr_0.004-s1`
    setting: Setting  # which cells of the grid it runs
    panel: str = ""  # the name of that setting


def checked(experiment: Any) -> dict[str, tuple[Any, ...]]:
    """`experiment.vary` with every value of the type of its field.

    Raises:
      UserError: a path that is unknown, a group, or of a field that decides no number of a run;
        one that a grid has one of; no value, a value of another type, or one twice.
    """
    found = {}
    for path, values in experiment.vary.items():
        where = f"vary.{path}"
        hint = _type_of(experiment, path, "vary")
        if not isinstance(values, list | tuple):
            raise UserError(f"{where} = {values!r}: expected a list of values")
        if not values:
            raise UserError(f"{where}: must have at least one value")
        items = tuple(typed(hint, value, f"{where}[{i}]") for i, value in enumerate(values))
        for i, item in enumerate(items):
            if item in items[:i]:
                raise UserError(f"{where}: has the value {item!r} twice")
        found[path] = items
    return found


def checked_panel(experiment: Any) -> dict[str, Setting]:
    """`experiment.panel` with every value of the type of its field.

    Raises:
      UserError: as `checked` and `panel.check` do, or a path that varies already.
    """
    found = {}
    for name, setting in experiment.panel.items():
        where = f"panel.{name}"
        if not isinstance(setting, Setting):
            example = 'Setting(values={"seed": 1})'
            raise UserError(f"{where} = {setting!r:.60}: expected a Setting, as {example}")
        panel.check(where, name, setting, experiment.budgets)
        values = {}
        for path, value in setting.values.items():
            if not isinstance(path, str):
                raise UserError(f"{where}.values: has {path!r}; expected the path of a field")
            # Beside what makes it another run a setting may say how it is run or measured.
            hint = _type_of(experiment, path, f"{where}.values", operation="." in path)
            if path in experiment.vary:
                raise UserError(f"{where}.values.{path}: varies already; set it here or in vary")
            values[path] = typed(hint, value, f"{where}.values.{path}")
        found[name] = dataclasses.replace(setting, values=values)
    return found


def _type_of(experiment: Any, path: str, where: str, operation: bool = False) -> Any:
    """The type of a field that may differ between the runs of a grid; UserError for others."""
    if why := _fixed(experiment, path, operation):
        raise UserError(f"{where}.{path}: cannot vary; {why}")
    return field_type(experiment, path, where)


def variants(experiment: T) -> list[Variant[T]]:
    """Every combination under every setting, or the one there is where nothing varies.

    Raises:
      UserError: a combination that is no experiment, or names that are too long.
    """
    vary: Mapping[str, tuple[Any, ...]] = experiment.vary  # type: ignore[attr-defined]
    settings: Mapping[str, Setting] = experiment.panel  # type: ignore[attr-defined]
    names = _names(experiment, tuple(vary))
    return [
        _variant(experiment, dict(zip(vary, values, strict=True)), names, name, setting)
        for name, setting in {"": PLAIN, **settings}.items()
        for values in itertools.product(*vary.values())
    ]


def at_seed(experiment: T, seed: int) -> list[Variant[T]]:
    """`variants` of a seed, without those of the panel."""
    vary: Mapping[str, tuple[Any, ...]] = experiment.vary  # type: ignore[attr-defined]
    others = {path: values for path, values in vary.items() if path != "seed"}
    changed = {"seed": seed, "vary": others, "panel": {}}
    return variants(dataclasses.replace(experiment, **changed))  # type: ignore[type-var]


def _variant(
    experiment: T,
    chosen: Mapping[str, Any],
    names: Mapping[str, str],
    panel_name: str,
    setting: Setting,
) -> Variant[T]:
    try:
        alone: dict[str, Any] = {"vary": {}, "panel": {}, "points": ()}
        variant = replace_values(experiment, {**chosen, **setting.values, **alone})
    except UserError as error:
        raise UserError(f"panel.{panel_name}: {error}" if panel_name else str(error)) from None
    parts = [
        name + _text(chosen.get(path, getattr(variant, path, None))) for path, name in names.items()
    ]
    name = "-".join(filter(None, [panel_name, *parts]))
    if len(name) > MOST_CHARACTERS:
        raise UserError(f"vary: the run id ...-{name} is too long; vary fewer fields at once")
    return Variant(variant, name, setting, panel_name)


def _fixed(experiment: Any, path: str, operation: bool) -> str:
    """Why the field at `path` cannot vary; empty where it can.

    `operation`: whether it may be one that decides no number of a run.
    """
    first, fields = path.partition(".")[0], list(_fields(experiment, path))
    if first in _OF_THE_GRID and len(fields) == len(path.split(".")):
        return f"{_OF_THE_GRID[first]}, set config.{path}"
    for field in fields:
        if "decides" in field.metadata and not operation:
            return f"{field.name} decides no number of a run"
    return ""


def _fields(config: Any, path: str) -> Iterator[dataclasses.Field[Any]]:
    """The fields along `path`, as far as there are any."""
    for name in path.split("."):
        fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
        field = next((f for f in fields if f.name == name), None)
        if field is None:
            return
        yield field
        config = getattr(config, name)


def _names(experiment: Any, paths: Sequence[str]) -> dict[str, str]:
    """What stands before each value in a run id; the seed, which always does, comes last.

    The last name of a path, longer where two would clash. A field may have a short one.
    """
    names = {}
    for path in (*(path for path in paths if path != "seed"), "seed"):
        parts = path.split(".")
        *_, field = _fields(experiment, path)
        for length in range(1, len(parts) + 1):
            ending = parts[-length:]
            if sum(other.split(".")[-length:] == ending for other in paths) < 2:
                break
        names[path] = field.metadata.get("short") or "_".join(ending) + "_"
    return names


def _text(value: Any) -> str:
    """A value in a file name; two values never have the same text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return (short if float(short) == value else repr(value)).replace("e+", "e")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"(\w[\w.-]{0,29})?", value, re.ASCII):
        return value
    content = json.dumps(to_json(value))
    readable = re.sub(r"\W+", ".", content, flags=re.ASCII).strip(".")[:20]
    return f"{readable}.{hashlib.sha256(content.encode()).hexdigest()[:6]}"
