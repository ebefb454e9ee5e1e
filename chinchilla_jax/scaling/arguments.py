"""Arguments of a notebook, which may be anything: of their kind, or a `UserError` of one line."""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Mapping
from numbers import Real
from typing import Any

from chinchilla_jax.experiment.schema import require


def positive(name: str, value: object) -> float:
    """A positive finite number, of Python or NumPy."""
    found = _number(value)
    require(0 < found < math.inf, name, value, "a positive number is needed")
    return found


def finite(name: str, value: object) -> float:
    """A finite number, of Python or NumPy."""
    found = _number(value)
    require(math.isfinite(found), name, value, "a number is needed")
    return found


def _number(value: object) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number of hundreds of digits
            return float(value)
    return math.nan


def mapping(name: str, given: object) -> Mapping[str, Any] | None:
    """A dict with texts as keys, or None."""
    right = given is None or (isinstance(given, Mapping) and all(isinstance(k, str) for k in given))
    require(right, name, given, "a dict is needed, as {'params': 'N'} for columns")
    return typing.cast(Mapping[str, Any] | None, given)


def texts(name: str, given: object) -> Mapping[str, str] | None:
    """A dict of texts, or None."""
    found = mapping(name, given)
    for value in (found or {}).values():
        require(isinstance(value, str), name, given, f"{value!r} is no text")
    return found
