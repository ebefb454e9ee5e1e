#!/usr/bin/env bash
# optax 0.2.8: kl_divergence is NaN where a class has probability 0 in both distributions, as one that
# is masked out of a vocabulary: 0 log 0 counts as 0 on the side of the targets, and is 0 times -inf on
# that of the predictions. The gradient is finite and right, so that training goes on and only the
# number that is logged is lost.
#
# Output:
#   by optax nan, by its definition 0.1201
#   gradient 0.0 -0.5 -0.5
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import jax
import jax.numpy as jnp
import optax

predicted = jax.nn.log_softmax(jnp.array([-jnp.inf, 1.0, 2.0]))
targets = jnp.array([0.0, 0.5, 0.5])
known = sum(t * (jnp.log(t) - p) for t, p in zip(targets, predicted) if t > 0)
print(f"by optax {optax.losses.kl_divergence(predicted, targets)}, by its definition {known:.4f}")
gradient = jax.grad(optax.losses.kl_divergence)(predicted, targets)
print("gradient", *(f"{abs(g):.1f}" if g == 0 else f"{g:.1f}" for g in gradient.tolist()))
PYTHON
diff "$folder/seen" <(sed -n 's/^#   //p' "$0")
