"""Learning-rate schedules: pure functions of the step and the run's own horizon, in float64.

They run on the host, and the rates travel to the device as data: one executable serves every
horizon, rate and seed of a shape.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chinchilla_jax.experiment.config import OptimizerConfig

Floats = NDArray[np.float64]


def _cosine(progress: Floats, final: float, cooldown: float) -> Floats:
    return final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress))


def _linear(progress: Floats, final: float, cooldown: float) -> Floats:
    return 1 - (1 - final) * progress


def _wsd(progress: Floats, final: float, cooldown: float) -> Floats:
    """Warm-up, stable, decay: flat, then linear over the last `cooldown` of the run."""
    if not cooldown:
        return np.ones_like(progress)
    return final + (1 - final) * (np.minimum(1 - progress, cooldown) / cooldown)


_DECAYS: dict[str, Callable[[Floats, float, float], Floats]] = {
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
}


def learning_rates(config: OptimizerConfig, horizon: int, first: int, count: int) -> Floats:
    """Rates of updates `first` .. `first + count - 1` of a run of `horizon` updates, [count].

    Linear warm-up over `warmup_fraction` of the run, or `warmup_steps`, reaching the peak at its
    last update; then the decay, which would reach its final fraction at update `horizon` (after the
    last).
    """
    step = np.arange(first, first + count, dtype=np.float64)
    fraction = config.warmup_steps / horizon or config.warmup_fraction
    warmup = config.warmup_steps or config.warmup_fraction * horizon
    progress = np.clip((step - warmup) / max(horizon - warmup, 1), 0, 1)
    # wsd's cooldown is given over the whole run, the decay's progress after the warm-up.
    cooldown = config.cooldown_fraction / (1 - fraction)
    decay = _DECAYS[config.schedule](progress, config.final_fraction, cooldown)
    rising = (step + 1) / max(warmup, 1)
    return config.learning_rate * np.where(step < warmup, np.minimum(rising, 1.0), decay)
