"""Numbers as a person reads them: 73.2B parameters, 16.4 GB, 5.76e23 FLOPs, 0.51 (0.46 to 0.57).

Parameters and tokens go by k, M, B and T, bytes by kB, MB, GB and TB, FLOPs by powers of ten. What
is missing or not finite is `-`.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

# 1.23M, 16.4 GB, 75 s, 0.51 (0.46 to 0.57), 33 (interval open), 2.1 % ±0.4, 6 in 3, 0.3 *
_NUMBER = re.compile(
    r"|-|[-+\u2212]?[\d.]+(e[-+]?\d+)?( ?([kMBT%]|[kMGT]?B|ms|s|min|h))?"
    r"( \(.*\)| to .*| \u00b1[\d.]+| in \d+)?( \*)?"
)
MISSING = "-"
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B"))
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

Interval = Sequence[float] | None
Options = ParamSpec("Options")


def _or_missing(
    write: Callable[Concatenate[float, Options], str],
) -> Callable[Concatenate[float | None, Options], str]:
    @functools.wraps(write)
    def written(value: float | None, *args: Options.args, **kwargs: Options.kwargs) -> str:
        if value is None or not math.isfinite(value):
            return MISSING
        return write(value, *args, **kwargs)

    return written


@_or_missing
def count(value: float, digits: int = 3) -> str:
    """Parameters or tokens: 25.4k, 73.2B, 1.31T; a power of ten beyond 1000 T."""
    rounded = _rounded(value, digits)
    return _power(rounded, digits) if rounded >= 1e15 else _scaled(rounded, digits, _COUNTS)


@_or_missing
def data_size(value: float, digits: int = 3) -> str:
    """Bytes: 640 B, 25.4 kB, 16.4 GB."""
    return _scaled(_rounded(value, digits), digits, _BYTES)


@_or_missing
def flops(value: float, digits: int = 3) -> str:
    """FLOPs as on a command line: 0, 3e12, 5.76e23."""
    return _power(value, digits) if value > 0 else "0" if value == 0 else MISSING


@_or_missing
def power_of_ten(value: float, digits: int = 3) -> str:
    """As in print: 10¹⁸, 3×10¹⁸."""
    mantissa, power = _power(value, digits).split("e")
    raised = f"10{power.translate(_RAISED)}"
    return raised if mantissa == "1" else f"{mantissa}×{raised}"


@_or_missing
def duration(seconds: float) -> str:
    """`75 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@_or_missing
def ratio(value: float) -> str:
    """Tokens per parameter: 0.35, 4.2, 21, 1200."""
    return _plain(_rounded(value, 2 if value < 100 else 3), 3)


@_or_missing
def loss(value: float) -> str:
    """Nats per token to a thousandth, more where losses are small."""
    return f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.3g}"


@_or_missing
def fixed(value: float, places: int = 4) -> str:
    """A measured number to some decimal places."""
    return f"{value:.{places}f}"


@_or_missing
def exponent(value: float) -> str:
    """Exponents to a thousandth."""
    return f"{value:.3f}"


@_or_missing
def percent(value: float, places: int = 2) -> str:
    """A relative error, signed: +0.83 %."""
    return f"{100 * value:+.{places}f} %".replace("-", "\u2212")


@_or_missing
def percentage(value: float, places: int = 0) -> str:
    """A part of a whole: 13 %."""
    return f"{100 * value:.{places}f} %"


@_or_missing
def coefficient(value: float, digits: int = 6) -> str:
    """Six significant digits, for parameters that are fitted."""
    return f"{value:.{digits}g}"


def between(interval: Interval, write: Callable[[float | None], str]) -> str:
    """ "low to high", or nothing where there is no interval; `write` formats one number."""
    if interval is None:
        return ""
    return f"{write(interval[0])} to {write(interval[1])}"


def with_interval(
    value: float | None, interval: Interval, write: Callable[[float | None], str]
) -> str:
    """0.51 (0.46 to 0.57); without the bracket where there is no interval."""
    spread = between(interval, write)
    return f"{write(value)} ({spread})" if spread else write(value)


def _power(value: float, digits: int) -> str:
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def _rounded(value: float, digits: int) -> float:
    """Before the unit is chosen, so that 999,600 is 1M and not 1000k."""
    return float(f"{value:.{digits}g}")


def _scaled(value: float, digits: int, units: Sequence[tuple[float, str]]) -> str:
    """In the largest unit of which there is a whole one, else in the smallest."""
    size, unit = next((each for each in units if abs(value) >= each[0]), units[-1])
    return f"{_plain(value / size, digits)}{unit}"


def _plain(value: float, digits: int) -> str:
    """`digits` significant digits, never in exponent notation."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_number(text: str) -> bool:
    """Whether a cell of a table is a number with or without unit and interval, or missing.

    >>> [is_number(text) for text in ("", "-", "1.23M", "75 s", "0.51 (0.46 to 0.57)", "1e11-8x2")]
    [True, True, True, True, True, False]
    >>> [is_number(text) for text in ("2.1 % ±0.4", "6 in 3", "0.3 (0.1 to 0.5) *", "2 of 8")]
    [True, True, True, False]
    """
    return bool(_NUMBER.fullmatch(text))
