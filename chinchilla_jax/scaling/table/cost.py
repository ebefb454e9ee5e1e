"""What a run costs: its training FLOPs by parameters and tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.schema import require
from chinchilla_jax.scaling.arrays import Floats


@dataclass(frozen=True)
class FlopsModel:
    """FLOPs of a run: kappa * params^exponent * tokens; 6 and 1 for C = 6ND (Kaplan 2001.08361)."""

    kappa: float = 6.0
    exponent: float = 1.0
    spread: float = 0.0  # rms of ln(flops / model) over the table

    def __post_init__(self) -> None:
        require(self.kappa > 0, "flops_model.kappa", self.kappa, "must be positive")

    @classmethod
    def of(cls, params_R: Floats, tokens_R: Floats, flops_R: Floats) -> "FlopsModel":
        """The constant that fits the table, or a power of params where no constant does (2 %)."""
        log_ratio = np.log(flops_R / (params_R * tokens_R))
        kappa = float(np.exp(np.median(log_ratio)))
        spread = float(np.sqrt(np.mean((log_ratio - np.log(kappa)) ** 2)))
        if spread < 0.02 or np.ptp(np.log(params_R)) < np.log(2.0):
            return cls(6.0 if abs(kappa / 6.0 - 1.0) < 1e-6 else kappa, 1.0, spread)
        slope, intercept = np.polyfit(np.log(params_R), log_ratio, 1)
        residual = log_ratio - intercept - slope * np.log(params_R)
        return cls(
            float(np.exp(intercept)), 1.0 + float(slope), float(np.sqrt(np.mean(residual**2)))
        )

    def tokens(self, flops: Floats | float, params: Floats | float) -> Floats:
        """Tokens that `flops` buy for models of `params`."""
        return np.asarray(flops / (self.kappa * np.asarray(params) ** self.exponent))

    def params(self, flops: Floats | float, tokens: Floats | float) -> Floats:
        """The size of models that spend `flops` on `tokens`."""
        return np.asarray((flops / (self.kappa * np.asarray(tokens))) ** (1 / self.exponent))

    def flops(self, params: Floats | float, tokens: Floats | float) -> Floats:
        with np.errstate(over="ignore"):  # of a run that nobody trains
            return np.asarray(self.kappa * np.asarray(params) ** self.exponent * tokens)


SIX_ND = FlopsModel()
TEACHER = "flops_teacher"  # the term of a run's training FLOPs that distillation adds, by matmul


def of_teacher(columns: Mapping[str, Floats], runs: int) -> Floats:
    """FLOPs of a teacher's forward passes, 0 for runs without one."""
    column = columns.get(TEACHER)
    return np.zeros(runs) if column is None else np.nan_to_num(column)


def complete(core: dict[str, Floats], teacher: Floats | float = 0.0) -> dict[str, Floats]:
    """Fills the third of params, tokens, flops by C = 6ND, and a teacher's FLOPs besides."""
    if "params" not in core:
        core = {**core, "params": SIX_ND.params(core["flops"] - teacher, core["tokens"])}
    if "tokens" not in core:
        core = {**core, "tokens": SIX_ND.tokens(core["flops"] - teacher, core["params"])}
    if "flops" not in core:
        core = {**core, "flops": SIX_ND.flops(core["params"], core["tokens"]) + teacher}
    return core
