"""What the files of a run hold, where a person or a disk may have damaged them.

A file is written whole or not at all, so what cannot be read is told, never taken for absent.
"""

import contextlib
import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError

_MOST = 1 << 24  # bytes of a file of one run, but for its metrics


def object_if_there(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no file, even if it went just now."""
    try:
        content = json_data.parse_json(file, storage.read_bytes(file, _MOST))
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise UserError(f"{file}: is no JSON object")
    return content


def field(content: Mapping[str, Any], name: str, file: Path) -> Any:
    """A field that a run always writes."""
    if name not in content:
        raise UserError(f"{file}: {name} is missing")
    return content[name]


@contextlib.contextmanager
def remedy(text: str) -> Iterator[None]:
    """Adds what to do to the error of a damaged file."""
    try:
        yield
    except StorageError:  # the file may be whole
        raise
    except UserError as error:
        raise UserError(f"{error}; {text}") from None


_NUMBERS = frozenset({int, float, type(None)})


def logged_lines(lines: Sequence[bytes]) -> list[dict[str, Any] | None]:
    """`logged` of each, of all at once where all are whole."""
    if all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        with contextlib.suppress(ValueError, RecursionError):
            rows = json.loads(b"[%s]" % b",".join(lines))
            if len(rows) == len(lines):
                return [_logged(row) for row in rows]
    return [logged(line) for line in lines]


def logged(line: bytes) -> dict[str, Any] | None:
    """A line of `metrics.jsonl`: a step and its numbers, null where one was not finite."""
    try:
        return _logged(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _logged(row: Any) -> dict[str, Any] | None:
    if not isinstance(row, dict) or not _is_number(row.get("step")):
        return None
    return row if _are_numbers(row.values()) else None


def _are_numbers(values: Collection[object]) -> bool:
    """Whether each is null or a finite number; a finite sum of numbers says so at once."""
    if _NUMBERS.issuperset(map(type, values)):
        with contextlib.suppress(OverflowError):
            if math.isfinite(sum(filter(None, values))):  # type: ignore[arg-type]
                return True
    return all(x is None or _is_number(x) for x in values)


def _is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number."""
    limit = sys.float_info.max
    return type(value) in (int, float) and -limit <= value <= limit  # type: ignore[operator]
