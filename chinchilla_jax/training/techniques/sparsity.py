"""Gradual magnitude pruning: masks beside the optimizer's state, renewed along the ramp.

Gradients of pruned weights are zero, so that they neither move nor count in a norm, and what was
set to zero stays zero, as in Zhu & Gupta 2017 (arXiv 1710.01878, section 2): no gradient goes
straight through. So parameters themselves are sparse from the first update of the masks on: what is
evaluated, saved, quantised.

Of each matrix, a layer's slice under a scan too, exactly as many weights are pruned as asked: the
smallest, of equal ones the first. The bits of non-negative floats are ordered like their values, so
the smallest weight that stays is found bit by bit, by counting. Nothing is sorted, and only counts
move between devices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import Parameter, parameter, size
from chinchilla_jax.models.module import path_name
from chinchilla_jax.techniques.sparsity import (
    Sparsity,
    matrix_dims,
    pruned_rows,
    schedule,
    zeros_of,
)
from chinchilla_jax.techniques.technique import Facts
from chinchilla_jax.training.techniques.hooks import Hooks

_MAGNITUDE_BITS = 31  # of a float32 without its sign
Key = tuple[jax.Array, jax.Array]  # magnitude, place
Masks = dict[str, jax.Array]  # by the path of a parameter; true where a weight stays


class Pruned(NamedTuple):
    """The state of an optimizer whose parameters are pruned."""

    inner: Any
    update_count: jax.Array
    masks: Masks


def pruning(
    tx: optax.GradientTransformationExtraArgs, config: Sparsity, facts: Facts
) -> optax.GradientTransformationExtraArgs:
    """`tx` on weights that are not pruned; one that is goes to zero and stays there."""
    steps, shares = zip(*schedule(config, facts.steps), strict=True)
    steps_U = np.array(steps, np.int32)
    zeros_U = {
        p.name: np.array([zeros_of(p, facts.model, config, share) for share in shares], np.int32)
        for p in pruned_rows(facts.model, config)
    }

    def pruned(tree: Any) -> dict[str, jax.Array]:
        leaves = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        return {path: leaf for path, leaf in leaves.items() if parameter(path).name in zeros_U}

    def init(params: Any) -> Pruned:
        masks = {path: jnp.ones(w.shape, bool) for path, w in pruned(params).items()}
        return Pruned(tx.init(params), jnp.int32(0), masks)

    def update(grads: Any, state: Pruned, params: Any, **hyper: jax.Array) -> tuple[Any, Pruned]:
        grads = _masked(state.masks, grads, jax.tree.map(jnp.zeros_like, grads))
        updates, inner = tx.update(grads, state.inner, params, **hyper)
        count = state.update_count + 1

        def renewed() -> Masks:
            after = pruned(optax.apply_updates(params, updates))
            weights = {path: jnp.where(state.masks[path], w, 0.0) for path, w in after.items()}
            here = jnp.argmax(steps_U == count)
            zeros = {name: jnp.asarray(of_U)[here] for name, of_U in zeros_U.items()}
            return magnitude_masks(weights, facts.model, config, zeros)

        masks = jax.lax.cond(jnp.any(steps_U == count), renewed, lambda: state.masks)
        # Whatever a pruned weight was, its update takes it to zero exactly.
        updates = _masked(masks, updates, jax.tree.map(jnp.negative, params))
        return updates, Pruned(inner, count, masks)

    return optax.GradientTransformationExtraArgs(init, update)


def _masked(masks: Masks, tree: Any, other: Any) -> Any:
    """`tree` where weights stay and where there is no mask, `other` where they are pruned."""

    def one(path: tuple[Any, ...], x: jax.Array, y: jax.Array) -> jax.Array:
        mask = masks.get(path_name(path))
        return x if mask is None else jnp.where(mask, x, y)

    return jax.tree_util.tree_map_with_path(one, tree, other)


def magnitude_masks(
    weights: Mapping[str, jax.Array],
    model: ModelConfig,
    config: Sparsity,
    zeros: Mapping[str, jax.Array | int],
) -> Masks:
    """Masks of `weights`, arrays by their path, that prune the smallest of each block.

    Args:
      zeros: how many of a block, by the name of the parameter.
    """
    alike: dict[Any, list[str]] = {}  # matrices of one shape share a search, which is a program
    for path, weight in weights.items():
        p = parameter(path)
        alike.setdefault((weight.shape, p.kind, len(p.fan_in)), []).append(path)
    stacked = [jnp.stack([weights[path] for path in paths]) for paths in alike.values()]
    first = [parameter(paths[0]) for paths in alike.values()]
    found = kept(
        [
            (*_blocks(p, together, model, config), zeros[p.name])
            for p, together in zip(first, stacked, strict=True)
        ]
    )
    return {
        path: mask
        for paths, masks, together in zip(alike.values(), found, stacked, strict=True)
        for path, mask in zip(paths, masks.reshape(together.shape), strict=True)
    }


def _blocks(
    p: Parameter, stacked: jax.Array, model: ModelConfig, config: Sparsity
) -> tuple[jax.Array, tuple[int, ...]]:
    """Arrays so that a block is what certain axes hold, and these axes."""
    dims = len(matrix_dims(p))
    if not (p.kind == "hidden" and config.group_size):
        return stacked, tuple(range(stacked.ndim - dims, stacked.ndim))
    before, inputs = stacked.shape[: stacked.ndim - dims], size(p.fan_in, model)
    groups = inputs // config.group_size
    view = stacked.reshape(*before, groups, config.group_size, size(p.fan_out, model))
    return view, (len(before) + 1,)


def kept(searches: Sequence[tuple[jax.Array, tuple[int, ...], jax.Array | int]]) -> list[jax.Array]:
    """Which numbers are not among the smallest of their block; of equal ones the first are.

    The key of a number is its magnitude, then its place. The largest key with no more than so many
    below it is found from the highest bit down: of the magnitude, then of the place.

    Args:
      searches: float32 numbers; the axes that a block extends over; how many of each are pruned.
    """
    keys = [
        (jax.lax.bitcast_convert_type(jnp.abs(x), jnp.uint32), _places(x, axes))
        for x, axes, _ in searches
    ]
    largest = max(math.prod(x.shape[axis] for axis in axes) for x, axes, _ in searches)
    place_bits = largest.bit_length()
    bits_Nx2 = np.zeros((_MAGNITUDE_BITS + place_bits, 2), np.uint32)
    bits_Nx2[:_MAGNITUDE_BITS, 0] = 1 << np.arange(_MAGNITUDE_BITS)[::-1]
    bits_Nx2[_MAGNITUDE_BITS:, 1] = 1 << np.arange(place_bits)[::-1]

    def with_bit(n: jax.Array, found: list[Key]) -> list[Key]:
        bit, place_bit = jnp.asarray(bits_Nx2)[n]
        tried = [(magnitude | bit, place | place_bit) for magnitude, place in found]
        few = [
            jnp.sum(_below(key, k), axis=axes, keepdims=True, dtype=jnp.int32) <= pruned
            for key, k, (_, axes, pruned) in zip(keys, tried, searches, strict=True)
        ]
        return [
            (jnp.where(ok, k[0], old[0]), jnp.where(ok, k[1], old[1]))
            for ok, k, old in zip(few, tried, found, strict=True)
        ]

    zero = [
        jnp.zeros_like(magnitude.min(axes, keepdims=True))
        for (magnitude, _), (_, axes, _) in zip(keys, searches, strict=True)
    ]
    begin: list[Key] = [(z, z) for z in zero]
    smallest_kept = jax.lax.fori_loop(0, len(bits_Nx2), with_bit, begin)
    return [~_below(key, k) for key, k in zip(keys, smallest_kept, strict=True)]


def _below(key: Key, other: Key) -> jax.Array:
    (magnitude, place), (least, first) = key, other
    return (magnitude < least) | ((magnitude == least) & (place < first))


def _places(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Of every number its place in its block, uint32."""
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in axes:
        place = place * x.shape[axis] + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return place


HOOKS = Hooks(optimizer=pruning)
