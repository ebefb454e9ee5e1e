"""How fast a run goes, from the times at which its dispatches were read."""

from typing import Any

from jax.sharding import Mesh

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.training import devices


class Speed:
    """Steps per second of this process, without its first dispatch, which compiles."""

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._input_seconds = 0.0  # in which a device may have waited for its next batch
        self._last_read: float | None = None

    def read(self, count: int, now: float) -> None:
        """A dispatch of `count` updates is over, at `now` of a clock of seconds."""
        if self._last_read is not None:
            self._seconds += now - self._last_read
            self._steps += count
        self._last_read = now

    def waited(self, seconds: float) -> None:
        """The devices had nothing to do for up to so long, since their input was not there."""
        if self._steps:
            self._input_seconds += seconds

    @property
    def steps_per_second(self) -> float | None:
        """None until two dispatches are read."""
        return self._steps / self._seconds if self._seconds else None

    def columns(self, run: RunConfig, mesh: Mesh) -> dict[str, Any]:
        """Tokens per second, and model FLOP/s over the devices' peak where that is known."""
        kind = mesh.devices.flat[0].device_kind
        peak, rate = devices.peak_flops(kind), self.steps_per_second
        matmul = ledger(run).flops_matmul / run.steps
        return {
            "tokens_per_second": rate and rate * run.batch_size * run.sequence_length,
            "mfu": rate and peak and rate * matmul / (peak * mesh.size),
            "input_share": rate and self._input_seconds / self._seconds,
            "device_kind": kind,
            "device_count": mesh.size,
        }
