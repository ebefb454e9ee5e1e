"""One table of accelerators: found by name and by what JAX calls the device."""

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.hardware import HARDWARE, by_device_kind, by_name

KINDS = {
    "NVIDIA H200": "h200",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def test_every_device_kind_has_one_row():
    assert {h.name for h in HARDWARE} == set(KINDS.values())
    for kind, name in KINDS.items():
        assert by_device_kind(kind) == by_name(name)


@pytest.mark.parametrize(
    "kind",
    ["cpu", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", "NVIDIA H200 MIG 1g.18gb", "TPU v7", "TPU v2"],
)
def test_another_device_has_no_figures(kind):
    assert by_device_kind(kind) is None


def test_an_unknown_name_is_one_line_with_the_nearest():
    with pytest.raises(UserError, match=r"--hardware=h300: .*did you mean h[12]00\? .*v6e"):
        by_name("h300")
    assert by_name("H100").name == "h100"


@pytest.mark.parametrize("hardware", HARDWARE, ids=lambda h: h.name)
def test_the_units_are_bytes_and_seconds(hardware):
    """A figure in the wrong unit is off by a factor of eight or of a thousand."""
    assert 1e14 < hardware.peak_flops < 1e15
    assert 1e10 < hardware.memory < 2e11
    assert 100 < hardware.peak_flops / hardware.memory_bandwidth < 600
    assert 3 <= hardware.memory_bandwidth / hardware.fast <= 12
    assert 9 <= hardware.fast / hardware.slow <= 100
