#!/usr/bin/env bash
# optax 0.2.8: warmup_constant_schedule(0, peak, warmup_steps=0) is 0 at every step: a warm-up of no
# steps means that training never begins, without a word. The one beside it for a cosine,
# warmup_cosine_decay_schedule, begins at its peak with the same arguments.
#
# Output:
#   warm-up of 2 steps: constant 0.0 0.5 1.0, cosine 0.0 0.5 1.0
#   warm-up of 1 steps: constant 0.0 1.0 1.0, cosine 0.0 1.0 1.0
#   warm-up of 0 steps: constant 0.0 0.0 0.0, cosine 1.0 1.0 1.0
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import optax

for steps in (2, 1, 0):
    constant = optax.warmup_constant_schedule(0.0, 1.0, steps)
    cosine = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps, 10**6)
    found = (" ".join(f"{float(rate(step)):.1f}" for step in range(3)) for rate in (constant, cosine))
    print(f"warm-up of {steps} steps: constant {next(found)}, cosine {next(found)}")
PYTHON
diff "$folder/seen" <(sed -n 's/^#   //p' "$0")
