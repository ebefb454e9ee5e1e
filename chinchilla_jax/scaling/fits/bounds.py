"""What numbers of a record may be, so that a file that was changed is refused."""

from chinchilla_jax.experiment.schema import require
from chinchilla_jax.scaling.fitting.coupled import EXPONENTS
from chinchilla_jax.scaling.fitting.separable import EXPONENT_BOUNDS

MOST = 1e300  # of a coefficient, a loss, or a count of anything
STEEPEST = 1e6  # exponent of a size or of tokens
_Some = tuple[float | None, ...]


def within(where: str, low: float, high: float, **values: float | None) -> None:
    """Raises UserError for the first number that no fit of runs gives: the file was changed."""
    for name, value in values.items():
        known = value is None or low <= value <= high
        require(known, f"fits.{where}.{name}", value, f"must lie between {low:g} and {high:g}")


def surface_within(where: str, coefficients: _Some, exponents: _Some) -> None:
    """The same of a surface: its E, A and B, and its alpha and beta."""
    (E, A, B), (alpha, beta) = coefficients, exponents
    within(where, 0.0, MOST, E=E, A=A, B=B)
    within(where, *EXPONENTS, alpha=alpha, beta=beta)


def loss_law_within(where: str, E: float, A: float, exponent: float) -> None:
    """The same of loss = E + A / flops^exponent."""
    within(where, 0.0, MOST, E=E, A=A)
    within(where, *EXPONENT_BOUNDS, exponent=exponent)
