"""Types of the arrays that the evaluator computes with: float64 throughout."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def silent() -> np.errstate:
    """For a function whose numbers may run away: what is not finite is missing in its record.

    A resample or a table may be degenerate in every way, and where a line of NumPy's would warn of
    it, the record says so in words: nobody is helped by the line.
    """
    return np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore")


def known(value: float) -> float | None:
    """A number for a record: None where it is not finite."""
    return float(value) if np.isfinite(value) else None
