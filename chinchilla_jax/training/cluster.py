"""How the processes of a job find each other: by flags, SLURM, GKE or a TPU's metadata server."""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chinchilla_jax.experiment.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """How the processes find each other; what is None is found by JAX (TPU)."""

    coordinator: str | None = None  # host:port of process 0
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None  # None: all devices of the host


def find(
    coordinator: str, num_processes: int | None, process_id: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:  # fmt: skip
    """The job that this process is part of, from flags or else the environment.

    None where it is alone: no flags and no environment of several processes, or just one of them.

    Raises:
      UserError: only some of the flags, or numbers that do not fit.
    """
    if coordinator or num_processes is not None or process_id is not None:
        if num_processes == 1:
            return None
        if not coordinator or num_processes is None or process_id is None:
            raise UserError(
                "--coordinator, --num_processes and --process_id: give all three, for example "
                "--coordinator=host0:8476 --num_processes=4 --process_id=0"
            )
        if not re.fullmatch(r"\S+:\d+", coordinator):
            raise UserError(f"--coordinator={coordinator}: expected HOST:PORT of process 0")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id}: must lie in 0 .. {num_processes - 1}, one below "
                f"--num_processes"
            )
        return Cluster(coordinator, num_processes, process_id)
    return _slurm(environment) or _tpu(environment)


def _slurm(environment: Mapping[str, str]) -> Cluster | None:
    """A step of several tasks. A batch script itself, or a step of one task, is alone."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return None
    tasks, nodes, job, step, task, local = (
        int(environment[f"SLURM_{name}"])
        for name in ("STEP_NUM_TASKS", "STEP_NUM_NODES", "JOB_ID", "STEP_ID", "PROCID", "LOCALID")
    )
    # The first of n[07-09,12],m3 is n07; its port tells apart the steps of one allocation.
    name, number = re.match(r"([^,\[]+)(?:\[(\d+))?", environment["SLURM_STEP_NODELIST"]).groups()  # type: ignore[union-attr]
    port = 61440 + (job * 16 + step) % 4096
    # JAX itself would give every task one GPU, also the only task of a node of eight.
    several = tasks > nodes and "," in environment.get("CUDA_VISIBLE_DEVICES", ",")
    return Cluster(f"{name}{number or ''}:{port}", tasks, task, (local,) if several else None)


def _tpu(environment: Mapping[str, str]) -> Cluster | None:
    """A TPU slice of several hosts, or several slices: under GKE told by the environment, on
    TPU VMs by the metadata server. Where JAX finds the rest by itself."""
    import importlib.util

    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    if not (chips and importlib.util.find_spec("libtpu")):
        return None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    if hosts is None and "TPU_SKIP_MDS_QUERY" not in environment:
        hosts = _metadata("worker-network-endpoints", environment)
        found = re.search(r"MEGASCALE_NUM_SLICES: *'?(\d+)", _metadata("tpu-env", environment))
        slices = found[1] if found else slices
    return Cluster() if "," in (hosts or "") or int(slices) > 1 else None


def _metadata(key: str, environment: Mapping[str, str]) -> str:
    """An attribute of this virtual machine; empty where there is no metadata server."""
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{key}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""
