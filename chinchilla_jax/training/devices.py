"""What the program knows of the hardware it runs on."""

import os
from dataclasses import replace

import jax
import jax.extend
import jax.numpy as jnp

from chinchilla_jax.experiment import estimate
from chinchilla_jax.experiment.config import RunConfig, TrainingConfig
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.models.products import TURNED, Products
from chinchilla_jax.training import threads


def peak_flops(kind: str) -> float | None:
    """Dense bfloat16 peak of a device, FLOP/s; None where it is not known."""
    hardware = by_device_kind(kind)
    return hardware.peak_flops if hardware else None


def resolved(run: RunConfig) -> RunConfig:
    """The run on the mesh that the plan suggests for the devices there are, see
    `estimate.resolve`, and on the threads that this process has."""
    kind = jax.devices()[0].device_kind
    run = estimate.resolve(run, jax.device_count(), by_device_kind(kind))
    return replace(run, execution=replace(run.execution, threads=threads.used()))


def platform() -> str:
    """What JAX runs on: cpu, cuda, rocm or tpu."""
    name = jax.default_backend()
    if name != "gpu":
        return name
    return "rocm" if "rocm" in jax.extend.backend.get_backend().platform_version else "cuda"


def on_cpu() -> bool:
    """Whether JAX runs on the CPU."""
    return platform() == "cpu"


def compute_dtype(config: TrainingConfig) -> jnp.dtype:
    """Of activations and products: bfloat16 is slower than float32 on a CPU."""
    automatic = "float32" if on_cpu() else "bfloat16"
    return jnp.dtype(automatic if config.dtype == "auto" else config.dtype)


def scan_layers(config: TrainingConfig) -> bool:
    """Whether layers run under one scan, which costs 13-17 % on a CPU and saves compile time
    of deep models."""
    return not on_cpu() if config.layers == "auto" else config.layers == "scan"


def remat(config: TrainingConfig) -> str:
    """What layers keep: on accelerators the results of products, since to compute norms and
    activation functions again costs less than to write them to memory and read them back."""
    return ("none" if on_cpu() else "dots") if config.remat == "auto" else config.remat


def async_checkpoints(config: Execution) -> bool:
    """Whether checkpoints are written while training goes on: on a CPU that takes as much of the
    same cores."""
    return not on_cpu() if config.async_checkpoints == "auto" else config.async_checkpoints == "on"


def steps_per_dispatch(config: Execution) -> int:
    """Most steps in one call of the device: on a CPU the call itself costs as much as a step."""
    return config.steps_per_dispatch or (64 if on_cpu() else 1)


# For several NVIDIA GPUs: collectives run beside computation instead of before it
# (docs.jax.dev/en/latest/gpu_performance_tips.html, communication tips). The page's options for
# pipelined collectives are gone in jax 0.11, and XLA refuses a name that it does not know.
_OVERLAP = {"xla_gpu_enable_latency_hiding_scheduler": True}
# On a CPU XLA gives most products to a library that computes each on one thread (YNNPACK, in jax
# 0.10 and 0.11). Without it threads share them: a step of two is 1.2 times faster at width 64 and
# less above; of one it is as fast there, and slower below. A rule of the model, not of the threads
# there are, which decide the digits (`threads`).
_SHARED_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
# Below that width LLVM's last passes make a step slower: without them it is 1.04 to 1.06 times as
# fast, and compiled in nine tenths of the time.
_PLAIN_LOOPS = {"xla_backend_optimization_level": 1}


def _by_eigen(devices: int, width: int) -> bool:
    return on_cpu() and devices == 1 and width >= threads.SHARED_FROM_WIDTH


def products(devices: int, width: int) -> Products:
    """How a model over `devices` multiplies."""
    return TURNED if _by_eigen(devices, width) else Products()


# XLA's loops over a single operation, as of one activation times another, come in tiles and take
# three times as long as its other loops: without tiles a step is 1.04 to 1.1 times as fast on a
# CPU, its losses the same to the eighth digit or all. An option of a process, not of a program,
# read when JAX first looks for devices.
_NO_TILES = "--xla_backend_extra_options=xla_cpu_disable_tiled_emitter=true"


def with_our_flags(given: str) -> str:
    """XLA_FLAGS with what is for all programs of a process; extra options that it has are the
    user's, and one that does not begin with a dash names a file."""
    if "xla_backend_extra_options" in given or given[:1] not in ("", "-"):
        return given
    return f"{given} {_NO_TILES}".strip()


os.environ["XLA_FLAGS"] = with_our_flags(os.environ.get("XLA_FLAGS", "").strip())


def compiler_options(devices: int, width: int) -> dict[str, bool | str | int]:
    """Options of XLA for a model over `devices`; one that XLA_FLAGS names is the user's."""
    given = os.environ.get("XLA_FLAGS", "")
    wanted: dict[str, bool | str | int] = {}
    if platform() == "cuda" and devices > 1:
        wanted |= _OVERLAP
    if platform() == "cpu" and devices == 1:
        wanted |= _SHARED_PRODUCTS if _by_eigen(devices, width) else _PLAIN_LOOPS
    return {name: value for name, value in wanted.items() if name not in given}
