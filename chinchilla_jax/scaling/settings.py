"""What a person may choose about an evaluation."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.fitting.intervals import least

CHOSEN = "chosen"  # of --minima: by what estimators predict of sizes left out
MINIMA = (CHOSEN, *METHODS)


@dataclass(frozen=True)
class Settings:
    """What the flags of `evaluate` say; the defaults are an expert's.

    `minima` is the way of finding minima whose exponents head the report: "chosen", by what each
    predicts of sizes near the minima that it has not seen, or a method's through all sizes.
    """

    params: str = "total"
    flops: str = "as_given"
    objective: str = "log_huber"
    delta: float = 1e-3
    tied: bool = False
    minima: str = CHOSEN
    bootstrap: int = 4000
    seed: int = 0
    budgets: tuple[float, ...] = ()
    holdout_above: float | None = None

    @property
    def draws(self) -> int:
        """Bootstrap draws that are made: none where they are too few for an interval."""
        return self.bootstrap if self.bootstrap >= least() else 0

    def __post_init__(self) -> None:
        if self.minima not in MINIMA:
            raise UserError(f"--minima={self.minima} is none of {', '.join(MINIMA)}")
        if not 0 <= self.bootstrap <= 1_000_000:
            raise UserError(f"--bootstrap={self.bootstrap}: 0 to 1000000 draws")
        if self.seed < 0:
            raise UserError(f"--seed={self.seed}: a seed is not negative")
        if not 0 < self.delta < np.inf:
            raise UserError(f"--delta={self.delta:g}: Huber's delta is a positive number")
        above = () if self.holdout_above is None else (self.holdout_above,)
        for i, flops in enumerate(self.budgets):
            if flops in self.budgets[:i]:
                raise UserError(f"--budgets: {flops:g} is given twice")
        for flag, given in (("budgets", self.budgets), ("holdout_above", above)):
            for flops in given:
                if not 0 < flops < np.inf:
                    raise UserError(f"--{flag}={flops:g}: FLOPs are a positive number")
