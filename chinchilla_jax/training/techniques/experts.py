"""How experts are balanced, and what is known of them: loads, dropped tokens, faults of routers.

Biases and sums over steps are vectors [L E], a row for each layer, on every device.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.models.experts import BIAS
from chinchilla_jax.models.loss import Sums
from chinchilla_jax.techniques.experts import MEASURES, Experts
from chinchilla_jax.techniques.technique import Facts
from chinchilla_jax.training.method import Carried, Inputs
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.techniques.hooks import Evaluate, Hooks
from chinchilla_jax.training.transfers import fetch

_NAME = "experts"
_BAD = "experts_bad_layer"  # metric: the first layer with a logit that is not finite, from 1; 0


def _of_layers(held_LE: jax.Array, facts: Facts) -> jax.Array:
    return held_LE.reshape(facts.model.depth, facts.model.experts)


def _with_biases(weights: Any, bias_LxE: jax.Array) -> Any:
    """Weights and beside each layer's router its bias, which is no parameter: no gradient."""

    def one(layer: Any, bias: jax.Array) -> Any:
        return {**layer, _NAME: {**layer[_NAME], BIAS: bias}}

    if "layers" in weights:
        return {**weights, "layers": one(weights["layers"], bias_LxE)}
    layers = {f"layers_{i}": one(weights[f"layers_{i}"], bias) for i, bias in enumerate(bias_LxE)}
    return {**weights, **layers}


def _forward(inner: Any, config: Experts, facts: Facts) -> Any:
    def forward(weights: Any, carried: Carried, tokens: jax.Array) -> tuple[Inputs, Sums]:
        if config.balance == "bias":
            weights = _with_biases(weights, _of_layers(carried[_NAME]["bias"], facts))
        inputs, sums = inner(weights, carried, tokens)
        penalty = config.router_weight * jnp.sum(sums["router_logits"])
        if config.balance == "loss":
            penalty += config.loss_weight * jnp.sum(sums["router_balance"])
        asked = config.router_weight or config.balance == "loss"
        return inputs, sums | ({"penalty": penalty} if asked else {})

    return forward


def _beside_weights(config: Experts) -> str:
    return "has a bias beside each choice of a router (balance)" if config.balance == "bias" else ""


def _begin(params: Any, config: Experts, facts: Facts) -> dict[str, jax.Array]:
    names = ("bias", "load") if config.balance == "bias" else ("load",)
    zeros = jnp.zeros(facts.model.depth * facts.model.experts)
    return {**dict.fromkeys(names, zeros), "dropped": jnp.float32(0)}


def _even(facts: Facts) -> float:
    """Picks of an expert for each token, were all alike."""
    return facts.model.expert_picks / facts.model.experts


def _update(
    held: dict[str, jax.Array], means: Mapping[str, jax.Array], config: Experts, facts: Facts
) -> dict[str, jax.Array]:
    """Biases towards even loads (Wang et al. 2024, algorithm 1); loads and drops summed up."""
    load_LE = means["router_load"].reshape(-1)
    changed = {
        "load": held["load"] + load_LE,
        "dropped": held["dropped"] + _dropped(means, facts),
    }
    if config.balance == "bias":
        changed["bias"] = held["bias"] + config.bias_rate * jnp.sign(_even(facts) - load_LE)
    return changed


def _dropped(means: Mapping[str, jax.Array], facts: Facts) -> jax.Array:
    """The share of picks that no expert took, over all layers."""
    return jnp.mean(means["router_dropped"]) / facts.model.expert_picks


def _measure(means: Mapping[str, jax.Array], config: Experts, facts: Facts) -> dict[str, jax.Array]:
    bad_L = means["router_not_finite"] > 0
    layer = jnp.where(jnp.any(bad_L), jnp.argmax(bad_L) + 1, 0)
    dropped, load = MEASURES
    return {
        dropped: _dropped(means, facts),
        load: jnp.max(means["router_load"]) / _even(facts),
        _BAD: layer.astype(jnp.float32),
    }


def _fault(metrics: Mapping[str, float], config: Experts, facts: Facts) -> str:
    layer = int(metrics[_BAD])
    return f"a router logit of layer {layer} is not finite" if layer else ""


def _finish(
    state: TrainState, config: Experts, run: RunConfig, evaluate: Evaluate
) -> dict[str, Any]:
    """Over all steps: the share of picks dropped, and the largest load over an equal one."""
    held = state.techniques[_NAME]
    even = run.model.expert_picks / run.model.experts
    values = fetch(held["dropped"]), fetch(held["load"]).max() / even
    return dict(zip(MEASURES, (float(value) / run.steps for value in values), strict=True))


HOOKS = Hooks(
    forward=_forward,
    beside_weights=_beside_weights,
    metrics=(*MEASURES, _BAD),
    measure=_measure,
    fault=_fault,
    begin=_begin,
    update=_update,
    finish=_finish,
)
