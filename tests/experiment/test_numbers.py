"""Numbers as people read them."""

import re
from pathlib import Path

import pytest

import chinchilla_jax
from chinchilla_jax.experiment import numbers


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (numbers.count, 73.19e9, "73.2B"),
        (numbers.count, 999_600, "1M"),
        (numbers.count, 25_400, "25.4k"),
        (numbers.count, 1.311e12, "1.31T"),
        (numbers.count, 9.99951e14, "1e15"),
        (numbers.count, 3.2e15, "3.2e15"),
        (numbers.count, 0.25, "0.25"),
        (numbers.count, None, "-"),
        (numbers.count, float("nan"), "-"),
        (numbers.percentage, 0.134, "13 %"),
        (numbers.flops, 5.76e23, "5.76e23"),
        (numbers.flops, 3e12, "3e12"),
        (numbers.flops, 9.999e11, "1e12"),
        (numbers.flops, 300_000, "3e5"),
        (numbers.flops, 0.0, "0"),
        (numbers.flops, -1.0, "-"),
        (numbers.data_size, 0, "0 B"),
        (numbers.data_size, 640, "640 B"),
        (numbers.data_size, 999_999, "1 MB"),
        (numbers.data_size, 16_400_000_000, "16.4 GB"),
        (numbers.data_size, None, "-"),
        (numbers.duration, 75.2, "75 s"),
        (numbers.duration, 720, "12 min"),
        (numbers.duration, 12_240, "3.4 h"),
        (numbers.duration, None, "-"),
        (numbers.fixed, 2.34567, "2.3457"),
        (numbers.power_of_ten, 1e18, "10¹⁸"),
        (numbers.power_of_ten, 3.2e-3, "3.2×10⁻³"),
        (numbers.ratio, 17.92, "18"),
        (numbers.ratio, 0.148, "0.15"),
        (numbers.ratio, 1234.0, "1230"),
        (numbers.loss, 1.97391, "1.974"),
        (numbers.loss, 0.01234, "0.0123"),
        (numbers.percent, -0.0083, "\u22120.83 %"),
        (numbers.exponent, 0.513893, "0.514"),
        (numbers.coefficient, 1.81721809, "1.81722"),
    ],
)
def test_written(write, value, text):
    assert write(value) == text


def test_percentages_are_written_one_way():
    package = Path(chinchilla_jax.__file__).parent
    for file in package.rglob("*.py"):
        assert not re.search(r"\.\d%}|[\d}]%[ ,.;:)\"']", file.read_text()), file


def test_intervals():
    assert numbers.between([0.456, 0.571], numbers.exponent) == "0.456 to 0.571"
    assert numbers.between(None, numbers.exponent) == ""
    assert numbers.with_interval(0.51, [0.456, 0.571], numbers.exponent) == "0.510 (0.456 to 0.571)"
    assert numbers.with_interval(0.51, None, numbers.exponent) == "0.510"


def test_tables_tell_numbers_from_names_that_begin_with_a_digit():
    cells = "", "-", "1.23M", "16.4 GB", "75 s", "0.51 (0.46 to 0.57)", "1.49e+03", "+0.4 %"
    assert all(map(numbers.is_number, cells))
    assert not any(map(numbers.is_number, ("1e11-8x2-s0", "1x1x2", "planned", "7 sizes")))
