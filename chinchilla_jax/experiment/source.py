"""An experiment as the Python file that a person would write: `configs/*.py`.

    text = source(experiment, "Checks a forecast.")

What has its default is left out, as in the files that are there; `loading.load_experiment` of the
file gives back the very same experiment.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import Experiment, is_plain_name
from chinchilla_jax.experiment.errors import UserError

_WIDTH = 100  # characters of a line


def new_file(asked: Path | str) -> Path:
    """The place that --write_config names: a Python file that is not there yet.

    Raises:
      UserError: it is no Python file, its name could not name an experiment, or it is there.
    """
    file = storage.path(asked)
    if not (file.suffix == ".py" and is_plain_name(file.stem)):
        raise UserError(
            f"--write_config={asked}: give a Python file, as configs/more.py; its name of letters, "
            "digits and _ . + -"
        )
    if storage.exists(file):
        raise UserError(f"--write_config={file}: is there already; give another name")
    return file


def source(experiment: Experiment, docstring: str) -> str:
    """The text of a configuration file."""
    names: dict[str, set[str]] = {}
    for kind in _classes(experiment):
        names.setdefault(kind.__module__, set()).add(kind.__name__)
    imports = [_import(module, sorted(names[module])) for module in sorted(names)]
    body = _written(experiment, 4, len("return "))
    return (
        f'"""{_quoted(docstring)}"""\n\n'
        + "\n".join(imports)
        + f"\n\n\ndef get_config() -> Experiment:\n    return {body}\n"
    )


def _quoted(docstring: str) -> str:
    """A docstring as it stands between its quotes; paths in it may have backslashes and quotes."""
    text = docstring.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    if "\n" in text:
        return text + "\n"
    return text[:-1] + r"\"" if text.endswith('"') else text


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    inner = "".join(f"    {name},\n" for name in names)
    return f"from {module} import (\n{inner})"


def _changed(config: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not as their class has them."""
    found = {}
    for field in dataclasses.fields(config):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(config, field.name)
        if default is dataclasses.MISSING or value != default:
            found[field.name] = value
    return found


def _classes(value: Any) -> Iterator[type]:
    """The dataclasses that are written somewhere in `value`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for item in _changed(value).values():
            yield from _classes(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _classes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _classes(item)


def _written(value: Any, indent: int, before: int) -> str:
    """`value` as Python: on one line where it fits behind `before` characters, else a part a line.

    An experiment is always written a part a line.
    """
    parts, begin, end = _parts(value)
    if parts is None:
        return _plain(value)
    flat = [f"{name}{_written(item, 0, -_WIDTH * 1000)}" for name, item in parts]
    alone = isinstance(value, tuple) and len(parts) == 1
    line = f"{begin}{', '.join(flat)}{',' if alone else ''}{end}"
    if indent + before + len(line) < _WIDTH and not isinstance(value, Experiment):
        return line
    inner = indent + 4
    lines = [f"{' ' * inner}{name}{_written(item, inner, len(name))},\n" for name, item in parts]
    return f"{begin}\n{''.join(lines)}{' ' * indent}{end}"


def _parts(value: Any) -> tuple[list[tuple[str, Any]] | None, str, str]:
    """What stands in a value, each behind its name or key, and its brackets; None for a plain one.

    An empty mapping or list is plain.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f"{name}=", item) for name, item in _changed(value).items()]
        return fields, f"{type(value).__name__}(", ")"
    if isinstance(value, Mapping) and value:
        return [(f'"{key}": ', item) for key, item in value.items()], "{", "}"
    if isinstance(value, list | tuple) and value:
        return [("", item) for item in value], "(", ")"
    return None, "", ""


def _plain(value: Any) -> str:
    """A number or a text as people write it: 1e11 for 100000000000.0."""
    if isinstance(value, float):
        short = f"{value:g}".replace("e+", "e")
        exact = float(short) == value
        return (short if "." in short or "e" in short else f"{short}.0") if exact else repr(value)
    if isinstance(value, str):
        return '"' + value.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{}"
    return "()" if isinstance(value, list | tuple) else repr(value)
