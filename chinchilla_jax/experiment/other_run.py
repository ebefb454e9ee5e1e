"""What a run knows of others: those that it takes weights from, its trunk, its branches."""

from dataclasses import dataclass, field

from chinchilla_jax.experiment.fingerprint import LABEL, OPERATION
from chinchilla_jax.experiment.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """A run as it is after `step` updates. Its fingerprint and step decide its weights."""

    asked: str = field(metadata=LABEL)  # what a configuration calls it
    run: str = field(metadata=LABEL)  # id of a run of the same work folder, or another run's folder
    fingerprint: str
    step: int
    model: ModelConfig = field(metadata=LABEL)
    parametrization: str = field(metadata=LABEL)
    base_width: int = field(metadata=LABEL)
    tokens: int = field(metadata=LABEL)  # that it was trained on, with those of the runs it needs
    flops: int = field(metadata=LABEL)  # of its training (matmul), with those of the runs it needs


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The trunk whose state after `step` updates a branch goes on from: see `trunks.py`.

    It decides no number of the branch, which is to the bit the run trained from its start: as it
    is where the trunk has no such state, which `step` = 0 says.
    """

    run: str = field(metadata=LABEL)  # id of a run of the same work folder
    step: int = field(metadata=LABEL)
    fingerprint: str = field(metadata=OPERATION)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A run that goes on from a trunk's state after `step` updates."""

    run: str
    step: int
