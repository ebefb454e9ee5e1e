#!/usr/bin/env bash
# safetensors 0.8.0 with NumPy 2.4.6: safetensors.numpy.save writes an array's memory as it lies under
# the shape of the array, whatever its strides say. A transposed matrix comes back with its values in
# other places, without a word; safetensors.torch refuses such tensors. np.ascontiguousarray first is
# the way around. Met where kernels of JAX, [in, out], were written as torch's weights, [out, in].
#
# Output:
#   saved  [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#   loaded [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#   loaded [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] where it was made contiguous first
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
print("saved ", matrix.tolist())
print("loaded", load(save({"matrix": matrix}))["matrix"].tolist())
contiguous = np.ascontiguousarray(matrix)
print("loaded", load(save({"matrix": contiguous}))["matrix"].tolist(), "where it was made contiguous first")
PYTHON
diff "$folder/seen" <(sed -n 's/^#   //p' "$0")
