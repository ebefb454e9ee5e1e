"""Numbers as people read them."""

import pytest

from chinchilla_jax.scaling.report import numbers


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (numbers.count, 73.19e9, "73.2B"),
        (numbers.count, 999_600, "1M"),
        (numbers.count, 25_400, "25.4k"),
        (numbers.count, 1.311e12, "1.31T"),
        (numbers.count, None, "-"),
        (numbers.count, float("nan"), "-"),
        (numbers.flops, 5.76e23, "5.76e23"),
        (numbers.flops, 3e12, "3e12"),
        (numbers.flops, 9.999e11, "1e12"),
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


def test_intervals_and_decades():
    assert numbers.between([0.456, 0.571], numbers.exponent) == "0.456 to 0.571"
    assert numbers.between(None, numbers.exponent) == ""
    assert numbers.between([None, 0.5], numbers.exponent) == ""
    assert numbers.decades(1e24, 1e22) == pytest.approx(2.0)
    assert numbers.decades(1e20, 1e22) == 0.0 == numbers.decades(1e20, None)
