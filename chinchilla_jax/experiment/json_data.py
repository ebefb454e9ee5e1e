"""JSON that is no more than data: of a size, a depth and a text that can be walked and written."""

import array
import itertools
import json
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError

MOST_JSON = 1 << 30  # bytes of a plan or a report, which are the largest
DEEPEST = 100  # lists and objects within each other

_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UP_AND_DOWN = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # 255 is -1


def read_json(place: Path, most: int = MOST_JSON) -> Any:
    """The content of a JSON file of at most `most` bytes.

    Raises:
      UserError: the file is absent, is not JSON or is larger.
    """
    try:
        return parse_json(place, storage.read_bytes(place, most))
    except FileNotFoundError:
        raise UserError(f"{place}: cannot be read: no such file") from None


def parse_json(place: Path, content: bytes) -> Any:
    """The JSON that `content` of the file at `place` is.

    Raises:
      UserError: it is none.
    """
    try:
        return loads(content)
    except ValueError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None


def loads(content: bytes | str) -> Any:
    """JSON that is no more than data: what can be walked through and written again.

    Raises:
      ValueError: it is none, is nested deeper than `DEEPEST`, or has half of a surrogate pair.
    """
    content = content if isinstance(content, bytes) else content.encode()
    depth = content.count(b"[") + content.count(b"{")
    if depth > DEEPEST:
        brackets = content.translate(None, delete=_NO_BRACKETS).translate(_UP_AND_DOWN)
        depth = max(itertools.accumulate(array.array("b", brackets)))
    try:
        value = json.loads(content.decode())
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode()
        if depth > DEEPEST and _depth(value) > DEEPEST:  # there may be brackets in texts
            raise RecursionError
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST}") from None
    except UnicodeEncodeError:
        raise ValueError("a text of it has half of a surrogate pair") from None
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
