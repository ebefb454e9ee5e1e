"""Accelerators: what one device computes, holds, sends and draws, from its maker's pages.

The one table behind a run's MFU (`training/devices.py`), the plan's memory and step time
(`experiment/estimate.py`) and the energy of a run that nobody measured (`experiment/energy.py`). A
device that is not in it has no figures, never guessed ones.
"""

import re
from dataclasses import dataclass

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of device (for a TPU: one chip).

    Bandwidths are what a device sends, in one direction, over all its links: half of the
    "bidirectional" figure of a data sheet. On a torus a collective along one dimension has only
    two of the links, so that a time computed from them is a bound and not a forecast.
    """

    name: str  # what --hardware takes
    device_kind: str  # pattern of the whole jax.Device.device_kind
    peak_flops: float  # dense bfloat16 FLOP/s
    memory: float  # bytes
    memory_bandwidth: float  # bytes/s
    power: float | None  # W at most; None where its maker does not say
    fast: float  # NVLink or ICI, bytes/s
    fast_devices: int  # that share it
    slow: float  # the network beyond them, bytes/s
    source: str


_HGX = "eight on one HGX board (NVSwitch)"

HARDWARE = (
    Hardware(
        # NVLink 900 GB/s in both directions together. Beyond the board: one ConnectX-7 of
        # 400 Gbit/s a GPU, as in DGX H100 and H200; a cloud's network may be slower.
        # H200 NVL and MIG slices are other devices.
        name="h200",
        device_kind=r"NVIDIA H200",
        peak_flops=989e12,
        memory=141e9,
        memory_bandwidth=4.8e12,
        power=700.0,
        fast=450e9,
        fast_devices=8,
        slow=50e9,
        source=f"NVIDIA H200 data sheet, SXM; {_HGX}; DGX H200 user guide",
    ),
    Hardware(
        # As the H200 but for the memory. H100 PCIe and NVL are other devices (756 and
        # 835 TFLOP/s).
        name="h100",
        device_kind=r"NVIDIA H100 80GB HBM3",
        peak_flops=989e12,
        memory=80e9,
        memory_bandwidth=3.35e12,
        power=700.0,
        fast=450e9,
        fast_devices=8,
        slow=50e9,
        source=f"NVIDIA H100 data sheet, SXM; {_HGX}; DGX H100 user guide",
    ),
    Hardware(
        # NVLink 600 GB/s in both directions together. Beyond the board: one ConnectX-6 of
        # 200 Gbit/s a GPU, as in DGX A100.
        name="a100",
        device_kind=r"NVIDIA A100-SXM4-80GB",
        peak_flops=312e12,
        memory=80e9,
        memory_bandwidth=2.039e12,
        power=400.0,
        fast=300e9,
        fast_devices=8,
        slow=25e9,
        source=f"NVIDIA A100 data sheet, SXM 80 GB; {_HGX}; DGX A100 user guide",
    ),
    Hardware(
        name="a100-40gb",
        device_kind=r"NVIDIA A100-SXM4-40GB",
        peak_flops=312e12,
        memory=40e9,
        memory_bandwidth=1.555e12,
        power=400.0,
        fast=300e9,
        fast_devices=8,
        slow=25e9,
        source=f"NVIDIA A100 data sheet, SXM 40 GB; {_HGX}; DGX A100 user guide",
    ),
    Hardware(
        # Six ICI links of 50 GB/s each way, 192 W at most: Jouppi et al. 2023 (arXiv 2304.01433),
        # Table 4. The page gives no figure for the network between pods; assumed as v5p's.
        name="v4",
        device_kind=r"TPU v4",
        peak_flops=275e12,
        memory=32 * 2**30,
        memory_bandwidth=1.2e12,
        power=192.0,
        fast=300e9,
        fast_devices=4096,
        slow=6.25e9,
        source="cloud.google.com/tpu/docs/v4; arXiv 2304.01433",
    ),
    Hardware(
        # ICI 400 GB/s bidirectional; between pods 6.4 Tbit/s for 256 chips.
        name="v5e",
        device_kind=r"TPU v5( lite|e)",
        peak_flops=197e12,
        memory=16e9,
        memory_bandwidth=819e9,
        power=None,
        fast=200e9,
        fast_devices=256,
        slow=3.125e9,
        source="cloud.google.com/tpu/docs/v5e",
    ),
    Hardware(
        # ICI 1200 GB/s bidirectional; between pods 50 Gbit/s a chip.
        name="v5p",
        device_kind=r"TPU v5p?",
        peak_flops=459e12,
        memory=95 * 2**30,
        memory_bandwidth=2.765e12,
        power=None,
        fast=600e9,
        fast_devices=8960,
        slow=6.25e9,
        source="cloud.google.com/tpu/docs/v5p",
    ),
    Hardware(
        # ICI 800 GB/s bidirectional; between pods 25.6 Tbit/s for 256 chips.
        name="v6e",
        device_kind=r"TPU v6( lite|e)",
        peak_flops=918e12,
        memory=32e9,
        memory_bandwidth=1.6e12,
        power=None,
        fast=400e9,
        fast_devices=256,
        slow=12.5e9,
        source="cloud.google.com/tpu/docs/v6e",
    ),
)


def by_name(name: str) -> Hardware:
    """The hardware that --hardware names, in either case.

    Raises:
      UserError: a name that the table does not have.
    """
    names = [hardware.name for hardware in HARDWARE]
    if name.lower() not in names:
        raise UserError(
            f"--hardware={name}: no such accelerator{nearest(name.lower(), names)} "
            f"(there are {', '.join(names)})"
        )
    return HARDWARE[names.index(name.lower())]


def by_device_kind(kind: str) -> Hardware | None:
    """The hardware of a `jax.Device.device_kind`; None where the table does not know it."""
    return next((h for h in HARDWARE if re.fullmatch(h.device_kind, kind)), None)
