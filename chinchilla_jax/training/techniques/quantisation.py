"""How runs are trained with weights of few bits, and measured with them afterwards.

Codes and scales are found anew from the weights at every step, a few passes over them.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.parameters import PARAMETERS, Parameter, parameter
from chinchilla_jax.models.module import path_name
from chinchilla_jax.techniques.quantisation import (
    BFLOAT16,
    FLOAT32,
    Quantisation,
    columns_after,
    gaussian_step,
    input_dims,
    levels,
)
from chinchilla_jax.techniques.technique import Facts
from chinchilla_jax.training.method import Carried
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.techniques.hooks import Evaluate, Hooks

_NAME = "quantisation"

# Levels, and the step that is best for a normal distribution: data to a program, so that one
# serves all widths. None is bfloat16.
Grid = tuple[int, float] | None


def grids(config: Quantisation) -> dict[str, Grid]:
    """That of each kind of parameter; of those that are left alone none."""
    return {
        p.kind: None if bits == BFLOAT16 else (levels(bits), gaussian_step(levels(bits)))
        for p in PARAMETERS.values()
        if (bits := config.bits_of(p)) < FLOAT32
    }


def grouped(w: jax.Array, p: Parameter, group: int) -> tuple[jax.Array, tuple[int, ...]]:
    """`w` so that a scale spans whole axes, and these axes.

    Args:
      w: a parameter, perhaps with the axis L of a scan in front.
      group: inputs of a channel that share a scale, 0 for all; divides them.
    """
    dims = input_dims(p)
    first = w.ndim - len(p.dims) + p.dims.index(dims)
    axes = tuple(range(first, first + len(dims)))
    if not group:
        return w, axes
    before, inputs, after = (
        w.shape[:first], math.prod(w.shape[a] for a in axes), w.shape[axes[-1] + 1 :]
    )  # fmt: skip
    return w.reshape(*before, inputs // group, group, *after), (first + 1,)


def codes_and_scales(
    w: jax.Array, n: int, gaussian: float, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Codes, n levels one apart around zero, and bfloat16 scales, both float32 and of w's rank.

    Of three first steps, the range of the weights, what is best for a normal distribution and the
    mean of both, the codes are taken that are nearest to w in direction; the scale is then w's
    least-squares coefficient on them, rounded, and the codes are those nearest under it.

    Args:
      w: weights, of which 0 stays 0; axes: those that share a scale.
      gaussian: the best step for a standard normal distribution.
    """
    w = w.astype(jnp.float32)
    total = functools.partial(jnp.sum, axis=axes, keepdims=True)

    def codes(scale: jax.Array) -> jax.Array:
        level = jnp.clip(jnp.floor(w / scale + n / 2), 0, n - 1) - (n - 1) / 2
        return jnp.where(w == 0, 0.0, level)

    def fitted(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The coefficient of w on its codes, and the square that it explains."""
        found = codes(_positive(step))
        along, square = total(w * found), _positive(total(found * found))
        return along / square, along * along / square

    ends = jnp.max(jnp.abs(w), axis=axes, keepdims=True) * (2 / n)
    spread = jnp.sqrt(total(w * w) / jnp.maximum(total(jnp.sign(w) ** 2), 1))
    middle = gaussian * spread
    scale, best = fitted(ends)
    for step in (middle, jnp.sqrt(ends * middle)):
        other, explained = fitted(step)
        scale = jnp.where(explained > best, other, scale)
        best = jnp.maximum(explained, best)
    scale = scale.astype(jnp.bfloat16).astype(jnp.float32)
    return codes(_positive(scale)), scale


def _positive(x: jax.Array) -> jax.Array:
    """Of a group that is all 0, anything to divide by."""
    return jnp.where(x == 0, 1.0, x)


def quantised(params: Any, grids: Mapping[str, Grid], group: int) -> Any:
    """A tree of parameters, by their names, as a model of few bits has them.

    Args:
      grids: by kind of parameter; others are left as they are. group: as in `grouped`.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    found = [w for _, w in leaves]
    places: dict[str, list[int]] = {}
    for i, (path, _) in enumerate(leaves):
        places.setdefault(parameter(path_name(path)).name, []).append(i)
    for name, of in places.items():
        p = parameter(name)
        if p.kind in grids:
            # Layers that are not scanned, as one array: few large kernels, not many small ones.
            few = _few_bits(jnp.stack([found[i] for i in of]), p, grids[p.kind], group)
            for i, w in zip(of, few, strict=True):
                found[i] = w
    return jax.tree.unflatten(tree, found)


def _few_bits(w: jax.Array, p: Parameter, grid: Grid, group: int) -> jax.Array:
    if grid is None:
        return w.astype(jnp.bfloat16).astype(w.dtype)
    split, axes = grouped(w, p, group)
    codes, scales = codes_and_scales(split, *grid, axes)
    return (codes * scales).reshape(w.shape).astype(w.dtype)


def _first_step(config: Quantisation, facts: Facts) -> int:
    """Updates before quantisation begins; at least one comes after."""
    return int(config.start * facts.steps)


def _weights(inner: Any, config: Quantisation, facts: Facts) -> Any:
    if config.bits == FLOAT32:
        return inner
    few_bits = functools.partial(quantised, grids=grids(config), group=config.group)

    def weights(params: Any, carried: Carried) -> Any:
        plain = inner(params, carried)
        if not _first_step(config, facts):
            return few_bits(plain)
        begun = carried[_NAME]["step"] >= _first_step(config, facts)
        return jax.lax.cond(begun, few_bits, lambda w: w, plain)

    return weights


def _begin(params: Any, config: Quantisation, facts: Facts) -> dict[str, jax.Array]:
    return {"step": jnp.int32(0)} if _first_step(config, facts) else {}


def _update(
    held: dict[str, jax.Array], means: Mapping[str, jax.Array], config: Quantisation, facts: Facts
) -> dict[str, jax.Array]:
    return {name: step + 1 for name, step in held.items()}


def _finish(
    state: TrainState, config: Quantisation, run: RunConfig, evaluate: Evaluate
) -> dict[str, Any]:
    """The loss on the same held-out windows, and the bytes, at every width of `after`."""
    found: dict[str, Any] = {}
    places = jax.tree.map(lambda w: w.sharding, state.params)
    few_bits = jax.jit(quantised, static_argnames="group", out_shardings=places)
    for measured in config.measured():
        held = replace(run, techniques=replace(run.techniques, quantisation=measured))
        params = few_bits(state.params, grids(measured), group=measured.group)
        outcomes = evaluate(state.replace(params=params))
        bytes_at_rest = ledger(held).total("bytes_at_rest")
        found |= columns_after(measured, {**outcomes, "bytes_at_rest": bytes_at_rest})
    return found


HOOKS = Hooks(weights=_weights, begin=_begin, update=_update, finish=_finish)
