"""Which devices of a host each cell gets: one mechanism for cores, GPUs and TPU chips.

A worker is a process that sees its own share of the host and nothing else, by the environment it
is started with. So a small cell takes one device of eight, eight such cells run at once, and a
cell's program is the same on any share: its mesh takes all the devices that it sees.

Cells that take equally many devices form a class, and the host is cut into groups of that many.
Classes follow each other in the order of their first cells, but not in lockstep: a group starts
its work as soon as none of its devices is held by a class before it.

No JAX here, which would take hold of the devices.
"""

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell

# Of a GPU's memory, in front: what JAX itself takes when it has the GPU for itself. The rest is
# for what each process needs beside it (CUDA context, cuDNN, NCCL).
GPU_MEMORY = 0.75

# The box of chips that 1, 2 and 4 neighbours form, as in JAX's own multi-process tests.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}
TPU_PORT = 8476

# Chips by PCI ids, as jax/_src/hardware_utils.py (0.10) has them, and their `device_kind`.
PCI = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"
TPU_KINDS = {
    "0x005e": "TPU v4", "0x0062": "TPU v5", "0x0063": "TPU v5 lite", "0x006f": "TPU v6 lite",
    "0x0027": "TPU v3", "0x0076": "TPU7x",
}  # fmt: skip


@dataclass(frozen=True)
class Host:
    """What a machine has for cells to run on."""

    platform: str  # cpu, gpu, tpu; other: an accelerator that cannot be shared out
    devices: tuple[str, ...]  # as the platform's variable names them
    cores: tuple[int, ...]  # CPU cores this process may use
    kind: str = ""  # of the devices, as `jax.Device.device_kind` would say; empty where not known


@dataclass(frozen=True)
class Place:
    """The share of a host that one worker has."""

    devices: tuple[str, ...]  # that it holds
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()  # to be pinned to; empty: none in particular


@dataclass(frozen=True)
class Group:
    """A worker to be: where it runs, and the cells of its class, of which it takes free ones."""

    place: Place
    cells: tuple[Cell, ...]


def this_host(environ: Mapping[str, str] = os.environ) -> Host:
    """The devices and cores of this machine that `environ` leaves visible.

    Raises:
      UserError: JAX_PLATFORMS asks for devices that are not here.
    """
    cores = usable_cores()
    asked = environ.get("JAX_PLATFORMS", "")
    platform = asked.partition(",")[0].strip().lower()
    if platform in ("", "cuda", "gpu") and (gpus := _gpus(environ)):
        names, kind = gpus
        return Host("gpu", names, cores, kind)
    if platform in ("", "tpu") and (chips := _chips(environ)):
        names, kind = chips
        return Host("tpu", names, cores, kind)
    if platform in ("", "rocm", "gpu") and Path("/dev/kfd").exists():
        return Host("other", ("0",), cores)
    if platform not in ("", "cpu"):
        if any(platform in p.name.lower() for p in metadata.entry_points(group="jax_plugins")):
            return Host("other", ("0",), cores)
        raise UserError(
            f"JAX_PLATFORMS={asked}: JAX finds no {platform} device here; set cpu, or nothing for "
            "whatever there is"
        )
    logical = environ.get("JAX_NUM_CPU_DEVICES", "-1")
    count = int(logical) if logical.isdecimal() and int(logical) else len(cores)
    return Host("cpu", tuple(map(str, range(count))), cores, "cpu")


def usable_cores() -> tuple[int, ...]:
    """The CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def visible(names: str) -> tuple[str, ...]:
    """The devices that a `*_VISIBLE_*` variable lists; like CUDA, up to the first that is none."""
    listed = [name.strip() for name in names.split(",")]
    end = next((i for i, name in enumerate(listed) if name in ("", "-1")), len(listed))
    return tuple(listed[:end])


def gpus_listed(listing: str) -> tuple[tuple[str, ...], str]:
    """(indices, kind) of the GPUs in the output of `nvidia-smi -L`; no kind if they differ."""
    found = re.findall(r"^GPU (\d+): (.*?)(?: \(UUID.*)?$", listing, re.MULTILINE)
    kinds = {kind for _, kind in found}
    return tuple(index for index, _ in found), kinds.pop() if len(kinds) == 1 else ""


def _gpus(environ: Mapping[str, str]) -> tuple[tuple[str, ...], str] | None:
    """(names, kind) of the NVIDIA GPUs that JAX here can use; None without any."""
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if not any(importlib.util.find_spec(plugin) for plugin in plugins):
        return None
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
        names, kind = gpus_listed(done.stdout)
    except (OSError, subprocess.TimeoutExpired):
        names, kind = (), ""
    if not names:  # a container without the tool has the device files all the same
        files = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*")]
        names = tuple(str(i) for i in range(sum(map(bool, files))))
    if "CUDA_VISIBLE_DEVICES" in environ:
        names = visible(environ["CUDA_VISIBLE_DEVICES"])
    return (names, kind) if names else None


def _chips(environ: Mapping[str, str], pci: Path = PCI) -> tuple[tuple[str, ...], str] | None:
    """(names, kind) of the TPU chips that JAX here can use; None without any."""
    if not importlib.util.find_spec("libtpu"):
        return None
    ids = [
        (file.parent / "device").read_text().strip()
        for file in sorted(pci.glob("*/vendor"))
        if file.read_text().strip() == GOOGLE
    ]
    kinds = [TPU_KINDS[name] for name in ids if name in TPU_KINDS]
    names = tuple(str(i) for i in range(len(kinds)))
    for variable in ("TPU_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"):
        if kinds and variable in environ:
            names = visible(environ[variable])
    return (names, kinds[0]) if names else None


def mesh_devices(run: RunConfig, most: int) -> int:
    """How many devices the mesh of a run takes where it may have `most`: all must have work.

    The axes that `run.execution` fixes are kept; data parallelism fills what they leave, as far as
    it divides the batch.

    Raises:
      UserError: the axes that are fixed need more than `most`.
    """
    execution = run.execution
    fixed = fixed_devices(run)
    if fixed > most:
        raise UserError(
            f"{run.run_id}: a mesh of data_parallel {max(1, execution.data_parallel)} x fsdp "
            f"{execution.fsdp} x tensor {execution.tensor} needs {fixed} devices, and gets {most}"
        )
    if execution.data_parallel:
        return fixed
    sequences = (execution.microbatch or run.batch_size) // execution.fsdp
    return fixed * max((d for d in range(1, most // fixed + 1) if sequences % d == 0), default=1)


def fixed_devices(run: RunConfig) -> int:
    """The devices that the configuration of a run asks for, before data parallelism by itself."""
    execution = run.execution
    return max(1, execution.data_parallel) * execution.fsdp * execution.tensor


def places(host: Host, size: int, at_once: int = 1, most: int | None = None) -> list[Place]:
    """The host cut into groups of `size` devices, each given out `at_once` times.

    Devices left over stay idle, but for a CPU's: they are names for parts of its cores, and all
    cores are shared out, also where there are fewer cells than devices.

    Args:
      at_once: processes on one device at once, for models that cannot fill it.
      most: places that are needed.
    Raises:
      UserError: more devices than the host has, or a division its platform does not know.
    """
    if size > len(host.devices):
        raise UserError(
            f"--devices_per_cell={size}: this host has {len(host.devices)} ({host.platform})"
        )
    if at_once > 1 and host.platform in ("tpu", "other"):
        raise UserError(f"--cells_per_device={at_once}: a {host.platform} device has one process")
    times = at_once if size == 1 else 1  # cells that take several devices fill them
    count, width = len(host.devices) // size, size
    if host.platform == "cpu":
        count = min(count, most or count)
        width = len(host.devices) // count
    starts = range(0, count * width, width)
    return [_place(host, start, width, size, times) for _ in range(times) for start in starts][
        :most
    ]


def _place(host: Host, start: int, width: int, size: int, at_once: int) -> Place:
    """Of the devices from `start`, `width` are held and `size` are seen."""
    devices = host.devices[start : start + width]
    names = ",".join(devices)
    if host.platform == "cpu":
        cores = {
            core
            for device in range(start, start + width)
            for core in _cores_of(device, len(host.devices), host.cores)
        }
        environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(size)}
        if size > 1:  # many eager cross-device reductions dead-lock the CPU collectives otherwise
            environment["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
        return Place(devices, environment, tuple(sorted(cores)))
    if host.platform == "gpu":
        memory = {"XLA_CLIENT_MEM_FRACTION": f"{GPU_MEMORY / at_once:.3f}"}
        # Named, so that JAX fails where it cannot use the GPU, and does not take the CPU instead.
        environment = {"CUDA_VISIBLE_DEVICES": names, "JAX_PLATFORMS": "cuda,cpu"}
        return Place(devices, environment | (memory if at_once > 1 else {}))
    if size == len(host.devices):
        return Place(devices)
    if size not in TPU_BOUNDS:
        raise UserError(f"--devices_per_cell={size}: a TPU host is cut in 1, 2 or 4 chips, or none")
    port = str(TPU_PORT + start)
    environment = {
        "TPU_VISIBLE_CHIPS": names,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[size],
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
        "TPU_PROCESS_PORT": port,
        "CLOUD_TPU_TASK_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    return Place(devices, environment)


def _cores_of(device: int, devices: int, cores: Sequence[int]) -> Sequence[int]:
    """The cores behind one of a CPU's logical devices; several share one where they are more."""
    first = device * len(cores) // devices
    return cores[first : max(first + 1, (device + 1) * len(cores) // devices)]


def groups(
    host: Host,
    cells: Sequence[Cell],
    size_of: Callable[[RunConfig], int],
    at_once: int = 1,
    environment_of: Callable[[RunConfig, int], Mapping[str, str]] = lambda run, size: {},
) -> list[Group]:
    """The workers that run `cells`, class after class, no more of a class than it has cells.

    Args:
      size_of: how many devices a run gets.
      environment_of: what else a process has to be told that gives so many devices to a run.
    """
    classes: dict[tuple[int, tuple[tuple[str, str], ...]], list[Cell]] = {}
    for cell in cells:
        size = size_of(cell.run)
        told = tuple(environment_of(cell.run, size).items())
        classes.setdefault((size, told), []).append(cell)
    return [
        Group(replace(place, environment={**place.environment, **dict(told)}), tuple(members))
        for (size, told), members in classes.items()
        for place in places(host, size, at_once, len(members))
    ]


def environment(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker at `place`."""
    kept = dict(environ)
    if "XLA_CLIENT_MEM_FRACTION" in place.environment:  # jaxlib refuses to see both names
        kept.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    return kept | dict(place.environment)


def may_start(group: Group, before: Sequence[Group]) -> bool:
    """Whether no group of another class, running or due earlier, holds a device of `group`."""
    devices = set(group.place.devices)
    return all(
        other.cells == group.cells or devices.isdisjoint(other.place.devices) for other in before
    )
