"""Numbers as a person reads them: 73.2B parameters, 5.76e23 FLOPs, 0.51 (0.46 to 0.57)."""

import math
from collections.abc import Sequence

_UNITS = ((1e15, "Q"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
MISSING = "-"
# Counting conventions as they are called in print.
CONVENTIONS = {
    "as_given": "as given", "six_nd": "6ND", "chinchilla": "Chinchilla", "matmul": "matmul",
    "total": "total", "non_embedding": "non-embedding",
}  # fmt: skip

Interval = Sequence[float] | None


def count(value: float | None, digits: int = 3) -> str:
    """Parameters or tokens: 25.4k, 73.2B, 1.31T."""
    if value is None or not math.isfinite(value):
        return MISSING
    value = float(f"{value:.{digits}g}")
    if value >= 1e18:
        return f"{value:.{digits - 1}e}".replace("e+", "e")
    for size, unit in _UNITS:
        if value >= size:
            return f"{_plain(value / size, digits)}{unit}"
    return _plain(value, digits)


def flops(value: float | None) -> str:
    """FLOPs as on a command line: 3e12, 5.76e23."""
    if value is None or not math.isfinite(value) or value <= 0:
        return MISSING
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def power_of_ten(value: float, digits: int = 3) -> str:
    """As in print: 10¹⁸, 3×10¹⁸."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    return raised if mantissa == "1" else f"{mantissa}×{raised}"


def ratio(value: float | None) -> str:
    """Tokens per parameter: 0.35, 4.2, 21, 1200."""
    if value is None or not math.isfinite(value):
        return MISSING
    return _plain(float(f"{value:.2g}" if value < 100 else f"{value:.3g}"), 3)


def loss(value: float | None) -> str:
    """Nats per token to a thousandth, more where losses are small."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.3g}"


def exponent(value: float | None) -> str:
    """Exponents and shares to a thousandth."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A relative error, signed: +0.83 %."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:+.{digits}f} %".replace("-", "\u2212")


def coefficient(value: float | None) -> str:
    """Six significant digits, for parameters that are fitted."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.6g}"


def between(interval: Interval, write: object) -> str:
    """ "low to high", or nothing where there is no interval; `write` formats one number."""
    if interval is None or any(x is None for x in interval):
        return ""
    assert callable(write)
    return f"{write(interval[0])} to {write(interval[1])}"


def _plain(value: float, digits: int) -> str:
    """`digits` significant digits, never in exponent notation."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decades(value: float, largest: float | None) -> float:
    """How many decades `value` lies beyond `largest`; 0 inside."""
    return 0.0 if largest is None else max(0.0, math.log10(value / largest))
