"""Dataclasses to and from plain JSON values, strictly: every field named, every type checked.

One mechanism serves configuration files, command-line overrides, and the JSON in a run directory
and in a report. Nothing is evaluated and nothing is unpickled. A field named after a keyword with
an underscore behind it (`from_`) is written without it; a class with `to_json` and `from_json` of
its own is left to them.
"""

import dataclasses
import difflib
import functools
import math
import sys
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from chinchilla_jax.experiment.errors import UserError

T = TypeVar("T")

BY_PATH = {"by_path": True}  # metadata of a mapping from paths of its own class to lists of values
# Metadata of a field that is not written where it has its default: so that a field which is added
# leaves what is written without it as it was.
UNLESS_DEFAULT = {"unless_default": True}

_LARGEST = 1e30  # of a number of a configuration: FLOPs and parameters of such stay finite
_AS_IT_IS = (str, bool)
_PLAIN = {str, bool, int, float, type(None)}
_SHARED, _MOST_GROUPS = 24, 4096  # fields of a group that is kept, and groups
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean X?` for the closest of `names`, or nothing when none is close."""
    close = closest(name, names)
    return f"; did you mean {close}?" if close else ""


def closest(name: str, names: Sequence[str]) -> str:
    """The closest of `names`, or nothing when none is close."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.65)
    return close[0] if close else ""


def require(condition: bool, where: str, value: object, rule: str) -> None:
    """Raises a one-line `UserError` naming the field, its value and the rule it breaks."""
    if not condition:
        raise UserError(f"{where} = {_short(value)}: {rule}")


def one_of(where: str, value: str, names: tuple[str, ...]) -> None:
    """Raises a one-line `UserError` unless `value` is one of `names`."""
    if value not in names:  # the nearest is looked for then alone: it takes a while
        require(False, where, value, f"expected {' or '.join(names)}{nearest(value, names)}")


def positive(where: str, **values: float) -> None:
    """Raises a one-line `UserError` for the first field of `where` that is not above 0.

    Or so far from 1 that products and powers of such would not be finite.
    """
    for name, value in values.items():
        require(value > 0, f"{where}.{name}", value, "must be positive")
        within(where, 1 / _LARGEST, _LARGEST, **{name: value})


def within(where: str, least: float, most: float, **values: float) -> None:
    """Raises a one-line `UserError` for the first field of `where` outside [least, most]."""
    for name, value in values.items():
        rule = f"must lie in [{least:g}, {most:g}]"
        require(least <= value <= most, f"{where}.{name}", value, rule)


def to_json(value: Any) -> Any:
    """A dataclass tree as plain JSON values (dicts, lists, numbers, texts)."""
    if type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "to_json"):
            return value.to_json()
        written = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if is_written(field, value)
        }
        return {_key(name): to_json(item) for name, item in written.items()}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def is_written(field: dataclasses.Field[Any], config: Any) -> bool:
    """Whether JSON of `config` has this field of it: see UNLESS_DEFAULT."""
    if "unless_default" not in field.metadata:
        return True
    return bool(getattr(config, field.name) != default_of(field))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, dataclasses.MISSING where it has none."""
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return _made(typing.cast(Hashable, field.default_factory))


@functools.cache
def _made(factory: Any) -> Any:
    """What a factory makes, once: a frozen group, or an empty mapping that nobody fills."""
    return factory()


def from_json(cls: type[T], data: object, where: str) -> T:
    """Builds dataclass `cls` from JSON values; `where` names it in errors.

    Raises:
      UserError: an unknown field, a missing one, or a value that the class does not take.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected an object with the fields of {cls.__name__}")
    form = _form(typing.cast(Hashable, cls))
    for key in data:
        if key not in form.hints:
            raise unknown_field(where, str(key), list(form.hints))
    for key in form.needed:
        if key not in data:
            raise UserError(f"{where}: the field {key} is missing")
    values = {}
    for key, value in data.items():
        hint = form.hints[key]
        # Most values are as they should be, and a plan has hundreds of thousands.
        plain = type(value) is hint and (hint in _AS_IT_IS or is_number(value))
        values[form.names[key]] = value if plain else _convert(hint, value, f"{where}.{key}")
    try:
        return cls(**values)
    except UserError as error:  # values that the class refuses
        raise UserError(f"{where}: {error}") from None


def list_from_json(cls: type[T], data: object, where: str) -> tuple[T, ...]:
    """`from_json` for each item of a list."""
    if not isinstance(data, list):
        raise UserError(f"{where} = {_short(data)}: expected a list")
    return tuple(from_json(cls, item, f"{where}[{i}]") for i, item in enumerate(data))


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number of a size that numbers of ours have."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class _Form:
    """How JSON of a class looks."""

    hints: dict[str, Any]  # by key
    names: dict[str, str]  # of the fields, by key
    needed: tuple[str, ...]  # keys without a default
    flat: bool  # whether no field of it is a group


@functools.cache
def _form(cls: Hashable) -> _Form:
    hints = _hints(cls)
    fields = {_key(f.name): f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    missing = dataclasses.MISSING
    return _Form(
        hints={key: hints[field.name] for key, field in fields.items()},
        names={key: field.name for key, field in fields.items()},
        needed=tuple(
            key
            for key, f in fields.items()
            if f.default is missing and f.default_factory is missing
        ),
        flat=not any(map(dataclasses.is_dataclass, hints.values())),
    )


def _key(name: str) -> str:
    return name.removesuffix("_")


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    """The annotations of a class; a record has hundreds of one class."""
    return typing.get_type_hints(cls)


def unknown_field(where: str, name: str, names: Sequence[str]) -> UserError:
    """The error for a field that does not exist: its name, the nearest, and all there are."""
    shown = name if name.isprintable() and len(name) <= 100 else f"{name[:100]!r}"
    return UserError(
        f"{where}.{shown}: no such field{nearest(name, names)} "
        f"(the fields are {', '.join(sorted(names))})"
    )


def field_type(config: Any, path: str, where: str) -> Any:
    """The annotated type of the field at a dotted path of `config`.

    Raises:
      UserError: no such field, or a group of fields.
    """
    name, _, rest = path.partition(".")
    fields = [f.name for f in dataclasses.fields(config)]
    if name not in fields:
        raise unknown_field(where, name, fields)
    value, here = getattr(config, name), f"{where}.{name}"
    if dataclasses.is_dataclass(value):
        if not rest:
            inner = ", ".join(f.name for f in dataclasses.fields(value))
            raise UserError(f"{here}: is a group; set one of its fields ({inner})")
        return field_type(value, rest, here)
    if rest:
        raise UserError(f"{here}: has no fields of its own, so .{rest} cannot be set")
    return typing.get_type_hints(type(config))[name]


def replace_values(config: T, values: Mapping[str, Any]) -> T:
    """`config` with the fields at dotted paths set; all of them before anything is validated."""
    changes: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            groups.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    for name, inner in groups.items():
        changes[name] = replace_values(getattr(config, name), inner)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def replace_paths(config: T, overrides: Sequence[tuple[str, str]], where: str = "config") -> T:
    """`config` with the fields at dotted paths set from command-line texts.

    All of them are set before anything is validated: fields may need each other. Lists are
    comma-separated: `("budgets", "1e11,3e11")`. Of two settings of a field the later one counts.
    An entry of a mapping from paths (BY_PATH) is a list of values of the field at that path:
    `("vary.recipe.base_lr", "0.004,0.006")`.

    Raises:
      UserError: an unknown field or a text that is not of the field's type.
    """
    by_path = {f.name for f in dataclasses.fields(config) if f.metadata.get("by_path")}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for path, text in overrides:
        here = f"{where}.{path}"
        name, _, rest = path.partition(".")
        if rest and name in by_path:
            hint = field_type(config, rest, f"{where}.{name}")
            entries = values.setdefault(name, dict(getattr(config, name)))
            entries[rest] = tuple(_parse(hint, item, here) for item in _items(text))
        else:
            values[path] = _parse(field_type(config, path, where), text, here)
    return replace_values(config, values)


def typed(hint: Any, value: object, where: str) -> Any:
    """`value`, from JSON or Python code, as the annotated type `hint`.

    Raises:
      UserError: it is of another type.
    """
    return _convert(hint, to_json(value), where)


def check_types(config: object, where: str) -> None:
    """Checks every field of a dataclass built in Python code against its annotation."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        here = f"{where}.{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            if type(value) is not hints[field.name]:
                raise UserError(f"{here} = {value!r}: expected {hints[field.name].__name__}(...)")
            check_types(value, here)
        else:
            typed(hints[field.name], value, here)


def _convert(hint: Any, value: object, where: str) -> Any:
    """`value` as the annotated type `hint`, without guessing."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _convert(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} = {_short(value)}: expected a list")
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(each):
            raise UserError(f"{where} = {_short(value)}: expected a list of {len(each)}")
        return tuple(
            _convert(h, v, f"{where}[{i}]")
            for i, (h, v) in enumerate(zip(each, value, strict=True))
        )
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} = {_short(value)}: expected an object")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        if hasattr(hint, "from_json"):
            return hint.from_json(value, where)
        if (
            type(value) is dict
            and _form(typing.cast(Hashable, hint)).flat
            and len(value) <= _SHARED
        ):
            return _group(hint, value, where)
        return from_json(typing.cast(type[Any], hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if hint is int and isinstance(value, int) and abs(value) >= _LARGEST:
        raise UserError(f"{where}: is too large, a whole number below {_LARGEST:.0e} is expected")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} = {_short(value)}: expected {_TYPE_NAMES[hint]}")
    if hint is float and not math.isfinite(typing.cast(float, value)):
        raise UserError(f"{where} = {value!r}: expected a finite number")
    return value


_groups: dict[tuple[Any, str], Any] = {}


def _group(cls: Any, data: dict[str, Any], where: str) -> Any:
    """`from_json` of a group that many runs have alike, and then share."""
    key = (cls, repr(data))  # tells 1, 1.0 and True apart
    if key not in _groups:
        if len(_groups) >= _MOST_GROUPS:
            _groups.clear()
        _groups[key] = from_json(cls, data, where)
    return _groups[key]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        text = "..."
    return text if len(text) <= 80 else f"{text[:77]}..."


def _items(text: str) -> list[str]:
    """The items of a comma-separated list."""
    return [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]


def _parse(hint: Any, text: str, where: str) -> Any:
    """Command-line `text` as the annotated type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        return _parse(next(a for a in arguments if a is not type(None)), text, where)
    if origin is tuple:
        if dataclasses.is_dataclass(arguments[0]) or typing.get_origin(arguments[0]):
            raise UserError(f"{where}: cannot be set on the command line; set it in the file")
        return tuple(_parse(arguments[0], item, where) for item in _items(text))
    if origin in (dict, Mapping):
        raise UserError(f"{where}: is a mapping; set one of its entries, {where}.NAME=...")
    if hint is str:
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{where} = {text!r}: expected true or false")
        return text.lower() == "true"
    if hint not in (int, float):
        raise UserError(f"{where}: cannot be set on the command line; set it in the file")
    try:
        number = float(text)
    except ValueError:
        raise UserError(f"{where} = {text!r}: expected {_TYPE_NAMES[hint]}") from None
    # int(text) keeps whole numbers exact beyond 2**53; 1e6 is a whole number too.
    whole = hint is int and text.lstrip("+-").isdigit()
    return _convert(hint, int(text) if whole and math.isfinite(number) else number, where)
