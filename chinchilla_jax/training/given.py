"""What techniques are given from outside whenever a run begins or goes on: a teacher's weights.

In a train state it lies under the technique's name as `given`: split over devices, and handed to
the step and to evaluation, like all that the technique carries. But a checkpoint is without it, as
the state is in which a run begins: it is there to be read again where it came from.
"""

from collections.abc import Mapping
from typing import Any

from chinchilla_jax.training.step import TrainState

_KEY = "given"


def of(carried: Mapping[str, Any], technique: str) -> Any:
    """What a technique is given."""
    return carried[technique][_KEY]


def joined(carried: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What techniques carry, with what each is given."""
    more = {name: {**carried.get(name, {}), _KEY: value} for name, value in given.items()}
    return {**carried, **more}


def without(state: TrainState) -> TrainState:
    """A state as it is saved."""
    kept = {}
    for name, own in state.techniques.items():
        rest = own
        if isinstance(own, Mapping) and _KEY in own:
            rest = {key: value for key, value in own.items() if key != _KEY}
        if rest is own or rest:
            kept[name] = rest
    return state.replace(techniques=kept)
