#!/usr/bin/env bash
# The whole loop on a box of NVIDIA GPUs, all at work: each cell gets as many as it can use.
#
#   ./launch/multi_gpu.sh                                          # configs/quickstart.py
#   ./launch/multi_gpu.sh --config=configs/gpu_single.py --cells_per_device=4
#   CUDA_VISIBLE_DEVICES=0,1 ./launch/multi_gpu.sh --devices_per_cell=2
#
# Several small models that share a large GPU take turns on it; with NVIDIA's MPS daemon
# (nvidia-cuda-mps-control -d) they compute side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true)
if [[ $gpus != *,* ]]; then
  echo "error: nvidia-smi finds no GPU here; on a machine without one use ./launch/local.sh" >&2
  exit 2
fi
echo "$gpus"
driver=${gpus##*, }
# CUDA 13 needs a driver from 580 on, CUDA 12 one from 525 on.
if ((${driver%%.*} >= 580)); then set_up cuda13; else set_up cuda12; fi

found=$(.venv/bin/python -c 'import jax; print(jax.default_backend(), len(jax.local_devices()))')
if [[ $found != gpu* ]]; then
  echo "error: JAX sees no GPU (it found: $found); is another CUDA in LD_LIBRARY_PATH?" >&2
  exit 2
fi
run_experiment "$@"
