"""Counters of energy: NVML of NVIDIA's GPUs, RAPL of Intel's and AMD's processors and memory.

They count devices and sockets, not runs. A GPU on which another process computes is not counted at
all. Of a socket, which other work nearly always shares, a process is charged as much as its part of
the processor time of the host, so that the runs of a host add up to what its busy cores took.

NVML wants the extra `energy` (nvidia-ml-py); RAPL wants files that many hosts let only root read.
Where a counter is missing its part is None.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from chinchilla_jax.experiment.energy import NOTHING, UNKNOWN, Joules, added
from chinchilla_jax.training import devices

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0  # between readings: counters wrap around within minutes
_POWERCAP = Path("/sys/class/powercap")
_STAT = Path("/proc/stat")


class Counter(Protocol):
    """What counts some parts of `experiment.energy.PARTS`."""

    def spent(self) -> Joules:
        """Joules of its parts since this was called last, or since it was made."""


class Meter:
    """Adds up what counters count for a run in this process.

    Args:
      counters: of parts that do not overlap.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = list(counters)
        self._total: Joules = NOTHING
        self._read = time.monotonic()

    def continue_from(self, joules: Joules) -> None:
        """Adds what was spent before, by whoever trained the run up to where it goes on."""
        self._total = added(self._total, joules)

    def update(self) -> None:
        """Reads the counters if the last reading is INTERVAL_SECONDS ago."""
        if time.monotonic() - self._read >= INTERVAL_SECONDS:
            self.joules()

    def joules(self) -> Joules:
        """Joules up to now. What was computed is to be over: the devices are not waited for."""
        found: dict[str, float | None] = dict(UNKNOWN)
        for counter in self._counters.copy():
            try:
                found |= counter.spent()
            except Exception as error:  # no fault of a counter ends a run
                log.warning("energy is measured no more by %s: %s", type(counter).__name__, error)
                self._counters.remove(counter)
        self._total = added(self._total, found)
        self._read = time.monotonic()
        return self._total


def counters(mesh: Mesh) -> list[Counter]:
    """Those that can be read here, for the devices of `mesh` that this process has."""
    found: list[Counter] = []
    if devices.platform() == "cuda":
        local = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
        found += nvml_counters([d.local_hardware_id for d in local])
    return found + rapl_counters()


def nvml_counters(numbers: Sequence[int]) -> list[Counter]:
    """The counter of the GPUs of these numbers, among those that this process sees."""
    try:
        import pynvml
    except ModuleNotFoundError:
        log.info("energy of GPUs is not measured: pip install 'chinchilla_jax[energy]'")
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else None
    try:
        pynvml.nvmlInit()
        return [Nvml(pynvml, [names[n].strip() if names else str(n) for n in numbers])]
    except (pynvml.NVMLError, ValueError, IndexError) as error:
        log.info("energy of GPUs is not measured: %s", error)
        return []


class Nvml:
    """Whole GPUs, Volta and later, by NVML's count since the driver was loaded.

    Args:
      nvml: the module pynvml, initialised.
      names: as CUDA_VISIBLE_DEVICES has them: numbers or UUIDs.
    Raises:
      nvml.NVMLError: a GPU that has no such count, or does not say who uses it.
      ValueError: a part of a GPU (MIG), which has none of its own.
    """

    def __init__(self, nvml: Any, names: Sequence[str]) -> None:
        self._nvml = nvml
        self._handles = [self._handle(name) for name in names]
        self._last = self._millijoules()
        self._shared()  # fails now if ever

    def spent(self) -> Joules:
        """Joules; None where another process computes on one of the GPUs."""
        last, self._last = self._last, self._millijoules()
        return {"gpu": None if self._shared() else (self._last - last) / 1e3}

    def _shared(self) -> bool:
        users = (self._nvml.nvmlDeviceGetComputeRunningProcesses(h) for h in self._handles)
        return any(len(processes) > 1 for processes in users)

    def _millijoules(self) -> int:
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in self._handles)

    def _handle(self, name: str) -> Any:
        if name.isdecimal():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.startswith("GPU-"):
            return self._nvml.nvmlDeviceGetHandleByUUID(name)
        raise ValueError(f"{name} is no whole GPU")


def rapl_counters(powercap: Path = _POWERCAP, stat: Path = _STAT) -> list[Counter]:
    """The counter of this host's sockets and their memory, where it may be read."""
    try:
        return [Rapl(powercap, lambda: busy_seconds(stat))]
    except (OSError, ValueError) as error:
        log.info("energy of processors is not measured: %s", error)
        return []


class Rapl:
    """This process's part of sockets and of memory, by the kernel's powercap files.

    Args:
      powercap: the folder of the zones, `intel-rapl:0` and so on, AMD's too.
      busy: processor seconds of all processes of the host, up to now.
      used: processor seconds of this process, up to now.
    Raises:
      OSError: a zone that may not be read.
      ValueError: no socket among the zones.
    """

    def __init__(
        self,
        powercap: Path,
        busy: Callable[[], float],
        used: Callable[[], float] = time.process_time,
    ) -> None:
        zones = {
            zone: (zone / "name").read_text().strip() for zone in powercap.glob("intel-rapl:*")
        }
        self._zones = {
            "cpu": sorted(zone for zone, name in zones.items() if name.startswith("package")),
            "memory": sorted(zone for zone, name in zones.items() if name == "dram"),
        }
        if not self._zones["cpu"]:
            raise ValueError(f"{powercap} has no RAPL zone of a socket")
        counted = [zone for part in self._zones.values() for zone in part]
        self._ranges = {zone: _whole(zone / "max_energy_range_uj") + 1 for zone in counted}
        self._last = self._microjoules()
        self._busy, self._used = busy, used
        self._seconds = busy(), used()

    def spent(self) -> Joules:
        """Joules of the parts that this host counts."""
        last, self._last = self._last, self._microjoules()
        before, self._seconds = self._seconds, (self._busy(), self._used())
        busy, used = (now - then for now, then in zip(self._seconds, before, strict=True))
        part_of_host = min(1.0, used / busy) if busy > 0 else 0.0

        def joules(zone: Path) -> float:
            return (self._last[zone] - last[zone]) % self._ranges[zone] / 1e6  # it wraps around

        return {
            part: part_of_host * sum(map(joules, zones))
            for part, zones in self._zones.items()
            if zones
        }

    def _microjoules(self) -> dict[Path, int]:
        return {zone: _whole(zone / "energy_uj") for zone in self._ranges}


def busy_seconds(stat: Path = _STAT) -> float:
    """Processor seconds of all processes and the kernel since the host began (`man proc_stat`)."""
    user, nice, system, _, _, *interrupts = map(int, stat.read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _whole(file: Path) -> int:
    return int(file.read_text())
