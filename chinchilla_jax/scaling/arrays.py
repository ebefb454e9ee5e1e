"""Types of the arrays that the evaluator computes with: float64 throughout."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def known(value: float) -> float | None:
    """A number for a record: None where it is not finite."""
    return float(value) if np.isfinite(value) else None
