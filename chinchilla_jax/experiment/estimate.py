"""What a run will cost on an accelerator, before anything is allocated: mesh, memory, time.

Bounds, of one step on each of n devices:

* arithmetic: FLOPs of the ledger, those of techniques among them, / (n peak), and with `remat=full`
  the forward pass again;
* collectives: what a ring sends of each payload (`communication.py`) over the links' bandwidth:
  (k - 1) / k of it to gather or to scatter over k devices, twice that to add up everywhere.
  Where an axis goes beyond the devices of a fast link (HARDWARE), it does so in two stages:
  inside at full payload, outside with the share of one of them.

A step takes at least the longer of the two; they overlap at best. The expected hours take
EXPECTED_MFU of the peak, or the collectives where these are longer: an assumption, not a
measurement. Small models reach less.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chinchilla_jax.experiment import communication, memory
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.hardware import Hardware
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.memory import Memory
from chinchilla_jax.experiment.meshes import MeshShape, divisors, misfit
from chinchilla_jax.experiment.numbers import percentage

EXPECTED_MFU = 0.5
USABLE = 0.9  # of a device's memory; the rest is the runtime's, and fragments
# A device whose share of a step is shorter than this waits for its host more than it computes.
MIN_STEP_SECONDS = 2e-3  # of arithmetic at the peak


@dataclass(frozen=True)
class Estimate:
    """One run on one mesh."""

    mesh: MeshShape
    microbatches: int  # gradient accumulation steps, so that activations fit
    batch_per_device: int  # sequences of one microbatch
    memory: Memory
    arithmetic_seconds: float  # of one step, at the peak
    collective_seconds: float
    hours: float  # of the run, expected
    fits: bool
    reason: str  # empty where it fits

    @property
    def step_seconds(self) -> float:
        """What a step takes at least."""
        return max(self.arithmetic_seconds, self.collective_seconds)


def suggest(run: RunConfig, devices: int, hardware: Hardware) -> Estimate:
    """The run on the mesh of at most `devices` devices that communicates least and fits.

    Data where everything fits, fsdp where the state does not, tensor, within the devices of a fast
    link, where even that does not; and as few microbatches as fit. What the model or the batch
    does not divide is never suggested. Where nothing fits, what needs the least memory is
    returned, with the reason.
    """
    found = []
    for mesh in _candidates(run, devices, hardware):
        found.append(_smallest_split(run, mesh, hardware))
        if found[-1].fits:
            return found[-1]
    return min(found, key=lambda e: e.memory.total)


def footer(estimates: Sequence[Estimate], devices: int, hardware: Hardware) -> str:
    """What the columns of the plan mean, with the figures they were computed from."""
    hours = sum(e.hours * e.mesh.devices for e in estimates)
    fitting = sum(e.fits for e in estimates)
    return "\n".join(
        (
            f"{fitting} of {len(estimates)} cells fit {devices} x {hardware.name}, "
            f"{hours:.4g} device hours in all.",
            "mesh: data x fsdp x tensor; bytes of one device: parameters and two moments in "
            "float32, what layers keep, the rest.",
            f"fits: all of it in {percentage(USABLE)} of {hardware.memory / 1e9:.4g} GB.",
            f"arithmetic: FLOPs of a step / (devices x {hardware.peak_flops / 1e12:.4g} TFLOP/s).",
            "collectives: bytes over links, (k - 1) / k of a payload to gather or scatter over k "
            f"devices and twice that to add up: {hardware.fast / 1e9:.4g} GB/s within "
            f"{hardware.fast_devices} devices, {hardware.slow / 1e9:.4g} GB/s beyond.",
            f"hours: steps x the longer of arithmetic / {EXPECTED_MFU:g} and collectives; "
            f"{percentage(EXPECTED_MFU)} of the peak is an assumption.",
            f"source: {hardware.source}.",
        )
    )


def suggest_mesh(run: RunConfig, devices: int, hardware: Hardware) -> MeshShape:
    """The mesh of `suggest`."""
    return suggest(run, devices, hardware).mesh


def useful_devices(run: RunConfig, devices: int, hardware: Hardware) -> int:
    """How many of `devices` a run can use well, a divisor of them.

    The most for which the best mesh uses all of them, each computes for at least
    MIN_STEP_SECONDS a step, and collectives take no longer than arithmetic at EXPECTED_MFU;
    but always as many as the run's memory needs.
    """
    counts = divisors(devices)
    estimates = {n: suggest(run, n, hardware) for n in counts}
    fitting = [n for n in counts if estimates[n].fits] or [devices]

    def well(n: int) -> bool:
        e = estimates[n]
        return (
            e.fits
            and e.mesh.devices == n
            and e.arithmetic_seconds >= MIN_STEP_SECONDS
            and e.collective_seconds <= e.arithmetic_seconds / EXPECTED_MFU
        )

    return max((n for n in counts if well(n)), default=fitting[0])


def resolve(run: RunConfig, devices: int, hardware: Hardware | None) -> RunConfig:
    """The run with mesh and microbatch as `suggest` finds them for `devices`.

    As it is where its configuration chooses a mesh itself, or the hardware is not known.
    """
    execution = run.execution
    if hardware is None or execution.data_parallel or execution.fsdp * execution.tensor > 1:
        return run
    found = suggest(run, devices, hardware)
    split = run.batch_size // found.microbatches if found.microbatches > 1 else 0
    resolved = dataclasses.replace(
        execution,
        data_parallel=found.mesh.data,
        fsdp=found.mesh.fsdp,
        tensor=found.mesh.tensor,
        microbatch=execution.microbatch or split,
    )
    return dataclasses.replace(run, execution=resolved)


def on_mesh(run: RunConfig, mesh: MeshShape, microbatches: int, hardware: Hardware) -> Estimate:
    """The run on `mesh`, fitting or not."""
    compute = 4 if run.training.dtype == "float32" else 2
    # `training/kernels.py` has no kernel for relative positions.
    fused = run.model.definition == "modern" and compute == 2
    needs = memory.estimate(run, mesh, microbatches=microbatches, compute=compute, fused=fused)
    arithmetic, collectives = _seconds(run, mesh, microbatches, hardware)
    room = USABLE * hardware.memory
    fits = needs.total <= room
    step = max(arithmetic / EXPECTED_MFU, collectives)
    return Estimate(
        mesh=mesh,
        microbatches=microbatches,
        batch_per_device=run.batch_size // (mesh.parts * microbatches),
        memory=needs,
        arithmetic_seconds=arithmetic,
        collective_seconds=collectives,
        hours=(run.steps - run.first_step) * step / 3600,
        fits=fits,
        reason=""
        if fits
        else f"needs {needs.total / 1e9:.3g} of {room / 1e9:.3g} GB on the leanest mesh",
    )


def _smallest_split(run: RunConfig, mesh: MeshShape, hardware: Hardware) -> Estimate:
    """With as few microbatches as fit, or with one sequence each where none does."""
    local = run.batch_size // mesh.parts
    given = run.execution.microbatch
    counts = divisors(local)
    if given and run.batch_size % given == 0 and given % mesh.parts == 0:
        counts = [run.batch_size // given]  # chosen in the config
    for count in counts:
        found = on_mesh(run, mesh, count, hardware)
        if found.fits:
            break
    return found


def _candidates(run: RunConfig, devices: int, hardware: Hardware) -> Iterator[MeshShape]:
    """Meshes of as many devices as the batch divides, the least communication first."""
    tensor = 1
    while tensor <= min(devices, hardware.fast_devices):
        most = devices // tensor
        parts = max(n for n in divisors(run.batch_size) if n <= most)
        for fsdp in divisors(parts):
            mesh = MeshShape(parts // fsdp, fsdp, tensor)
            inner, fast = fsdp * tensor, hardware.fast_devices
            # A group that would lie across the border of a fast link is none.
            if not misfit(run, mesh) and (fast % inner == 0 or inner % fast == 0):
                yield mesh
        tensor *= 2


def _seconds(
    run: RunConfig, mesh: MeshShape, microbatches: int, hardware: Hardware
) -> tuple[float, float]:
    """(arithmetic, collectives) of one step."""
    flops, forward = _flops(run)
    again = forward if memory.remat(run) == "full" else 0.0
    compute = 4 if run.training.dtype == "float32" else 2
    sent = communication.traffic(run, mesh, microbatches=microbatches, compute=compute)
    link = functools.partial(_ring, hardware=hardware)
    inside, beside = mesh.tensor, mesh.tensor * mesh.fsdp
    collectives = (
        2 * link(sent.tensor, mesh.tensor, 1)
        + link(sent.gather + sent.reduce, mesh.fsdp, inside)
        + 2 * link(sent.reduce / mesh.fsdp, mesh.data, beside)
    )
    return (flops + again) / (mesh.devices * hardware.peak_flops), collectives


@functools.lru_cache(maxsize=1024)
def _flops(run: RunConfig) -> tuple[float, float]:
    """(all, of the model's own forward pass) of one step, on average over the run."""
    spent = ledger(run)
    return spent.flops_matmul / run.steps, spent.training["forward"] / run.steps


def _ring(payload: float, size: int, inner: int, *, hardware: Hardware) -> float:
    """Seconds to gather or to scatter `payload` bytes over an axis of `size` devices.

    Args:
      inner: devices between two neighbours of the axis: the product of the axes inside it.
    """
    local = max(1, min(size, hardware.fast_devices // inner))
    remote = size / local
    inside = payload * (local - 1) / local / hardware.fast
    return inside + payload / local * (remote - 1) / remote / hardware.slow
