"""What a run knows of another one that it takes weights from."""

from dataclasses import dataclass, field

from chinchilla_jax.experiment.fingerprint import LABEL
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
