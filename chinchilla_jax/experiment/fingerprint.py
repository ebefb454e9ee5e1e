"""What of a configuration decides a run's numbers, and a fingerprint of it.

A field decides them unless its metadata says otherwise, beside the field:

* OPERATION: how a run is carried out, or whether it is; a run continues under another value.
* LABEL: a name of what other fields say; it is told with the result.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from chinchilla_jax.experiment.schema import default_of, is_written, to_json

OPERATION = {"decides": "operation"}
LABEL = {"decides": "label"}


@dataclass(frozen=True)
class Leaf:
    """A field that holds no group of others."""

    path: str  # `optimizer.learning_rate`
    value: Any
    label: bool
    default: Any  # dataclasses.MISSING where there is none


def leaves(config: Any, prefix: str = "") -> Iterator[Leaf]:
    """The fields of a tree of dataclasses, in their order, without those of OPERATION.

    What `to_json` leaves out is left out here: groups that are not in use.
    """
    for field, default, label in _deciding(cast(Hashable, type(config))):
        if not is_written(field, config):
            continue
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves_of_group(cast(Hashable, value), f"{prefix}{field.name}.")
        else:
            yield Leaf(f"{prefix}{field.name}", value, label, default)


@functools.lru_cache(maxsize=4096, typed=True)
def _leaves_of_group(group: Hashable, prefix: str) -> tuple[Leaf, ...]:
    """Most groups are the same in every run of a grid."""
    return tuple(leaves(group, prefix))


@functools.cache
def _deciding(cls: Hashable) -> tuple[tuple[dataclasses.Field[Any], Any, bool], ...]:
    """(field, its default, whether it is a label) of those that are not OPERATION."""
    kinds = ((field, field.metadata.get("decides")) for field in dataclasses.fields(cast(Any, cls)))
    return tuple((f, default_of(f), kind == "label") for f, kind in kinds if kind != "operation")


def fingerprint(config: Any) -> str:
    """Sixteen hex digits of what decides the numbers of a run (or of one of its groups).

    Only what differs from its default is hashed, and what has none. So a field that is added with
    a default that means "as before" changes no fingerprint of a run that exists.
    """
    numbers = {
        leaf.path: _numbers(leaf.value)
        for leaf in leaves(config)
        if not leaf.label and (leaf.default is dataclasses.MISSING or leaf.value != leaf.default)
    }
    text = json.dumps(numbers, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _numbers(value: Any) -> Any:
    """Of several configurations in a field their fingerprints, else canonical JSON."""
    if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
        return [fingerprint(item) for item in value]
    return canonical(to_json(value))


def canonical(value: Any) -> Any:
    """JSON in which equal numbers look alike: 1 for 1.0, since a budget of 10**11 is that of 1e11.

    And twelve digits, since the last ones of a power differ between libraries of mathematics: a
    host may go on with what another began.
    """
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, float):
        value = float(f"{value:.12g}")
        return int(value) if value.is_integer() else value
    return value
