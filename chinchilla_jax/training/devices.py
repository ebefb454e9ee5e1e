"""What the program knows of the hardware it runs on."""

import jax
import jax.numpy as jnp

from chinchilla_jax.experiment.config import TrainingConfig
from chinchilla_jax.experiment.hardware import by_device_kind


def peak_flops(kind: str) -> float | None:
    """Dense bfloat16 peak of a device, FLOP/s; None where it is not known."""
    hardware = by_device_kind(kind)
    return hardware.peak_flops if hardware else None


def on_cpu() -> bool:
    """Whether JAX runs on the CPU."""
    return jax.default_backend() == "cpu"


def compute_dtype(config: TrainingConfig) -> jnp.dtype:
    """Of activations and products: bfloat16 is slower than float32 on a CPU."""
    automatic = "float32" if on_cpu() else "bfloat16"
    return jnp.dtype(automatic if config.dtype == "auto" else config.dtype)


def scan_layers(config: TrainingConfig) -> bool:
    """Whether layers run under one scan, which costs 13-17 % on a CPU and saves compile time
    of deep models."""
    return not on_cpu() if config.layers == "auto" else config.layers == "scan"


def steps_per_dispatch(config: TrainingConfig) -> int:
    """Most steps in one call of the device: on a CPU the call itself costs as much as a step."""
    return config.steps_per_dispatch or (64 if on_cpu() else 1)


def attention_implementation(dtype: jnp.dtype, head_size: int) -> str | None:
    """cuDNN's fused attention where platform, precision and head size have it, else our own."""
    fits = dtype.itemsize == 2 and head_size % 8 == 0 and head_size <= 128
    return "cudnn" if jax.default_backend() == "gpu" and fits else None
