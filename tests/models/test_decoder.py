"""The decoder of both definitions against independent computation, and its switches."""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.parameters import parameter
from chinchilla_jax.models import loss
from chinchilla_jax.models.decoder import Decoder
from tests.models import reference

# H K differs from D, and queries share keys and values: nothing may rely on equality.
MODERN = ModelConfig(
    definition="modern",
    vocab_size=29,
    width=24,
    depth=2,
    heads=4,
    kv_heads=2,
    head_size=8,
    ff_size=40,
)
CHINCHILLA = dataclasses.replace(MODERN, definition="chinchilla", kv_heads=4)
BOTH = pytest.mark.parametrize("config", [MODERN, CHINCHILLA], ids=lambda c: c.definition)


def tokens(batch=2, sequence=11, seed=0):
    return jax.random.randint(jax.random.key(seed), (batch, sequence), 0, MODERN.vocab_size)


@functools.cache
def noisy_params(model):
    """Random matrices, and gains and biases away from their trivial values."""
    random = np.random.default_rng(1)
    abstract = jax.eval_shape(model.init, jax.random.key(0), tokens())["params"]

    def draw(path, leaf):
        centre = parameter(path[-1].key).initial or 0.0
        return jnp.asarray(centre + 0.2 * random.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract)


def apply(model, params, tokens_BxS):
    return jax.jit(lambda p, t: model.apply({"params": p}, t))(params, tokens_BxS)


def mean_loss(model, params, tokens_BxS, chunk_tokens=1000):
    x_TxD = model.apply({"params": params}, tokens_BxS, method="hidden")
    readout_DxV = model.apply({"params": params}, method="readout_DxV")
    targets_T = jnp.roll(tokens_BxS, -1, axis=1).reshape(-1)
    return jnp.mean(loss.token_losses(x_TxD, readout_DxV, targets_T, chunk_tokens))


def stacked(params, depth):
    """Parameters of the unrolled model as those of the scanned one."""
    layers = [params[f"layers_{i}"] for i in range(depth)]
    rest = {name: p for name, p in params.items() if not name.startswith("layers_")}
    return {**rest, "layers": jax.tree.map(lambda *p: jnp.stack(p), *layers)}


def assert_trees_close(a, b, **tolerance):
    a, b = (flax.traverse_util.flatten_dict(t, sep="/") for t in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)


@BOTH
def test_logits_equal_a_direct_numpy_computation(config):
    model = Decoder(config, scaling=Scaling(base_width=16))
    params = noisy_params(model)
    logits = apply(model, params, tokens())
    for b, sequence in enumerate(np.asarray(tokens())):
        expected = reference.logits(params, sequence, config, base_width=16)
        np.testing.assert_allclose(logits[b], expected, rtol=1e-4, atol=1e-4)


@BOTH
def test_no_logit_depends_on_a_later_token(config):
    model = Decoder(config)
    params = noisy_params(model)
    # Row p of the batch has another token at position p; the last row is as it was.
    original = jnp.repeat(tokens(batch=1), 12, axis=0)
    changed = (original + jnp.eye(12, 11, dtype=jnp.int32)) % config.vocab_size
    logits = np.asarray(apply(model, params, changed))
    for position in range(11):
        moved = np.abs(logits[position] - logits[-1]).max(axis=-1)
        assert (moved[:position] == 0).all()
        assert (moved[position:] > 1e-4).all()


@functools.cache
def traced_gradient(config, scan, remat="none"):
    """That of the mean loss, and the weights for it: the same, scanned or not."""
    model, params = Decoder(config, scan=scan, remat=remat), noisy_params(Decoder(config))
    params = stacked(params, config.depth) if scan else params
    return jax.jit(jax.grad(lambda p: mean_loss(model, p, tokens()))).trace(params), params


@functools.cache
def gradient(config, scan, remat="none"):
    traced, params = traced_gradient(config, scan, remat)
    return traced.lower().compile()(params)


@BOTH
def test_a_scan_over_layers_has_the_gradients_of_the_unrolled_model(config):
    expected = stacked(gradient(config, scan=False), config.depth)
    assert_trees_close(gradient(config, scan=True), expected, rtol=1e-4, atol=1e-6)


@BOTH
@pytest.mark.parametrize("scan", [False, True])
def test_remat_computes_products_again(config, scan):
    none, attention, dots, full = (
        str(traced_gradient(config, scan, remat)[0].jaxpr).count("dot_general")
        for remat in ("none", "attention", "dots", "full")
    )
    # The scores and what they weigh again; those of batched products; all.
    assert none < attention <= dots < full


@pytest.mark.parametrize("config,scan", [(MODERN, True), (CHINCHILLA, False)])
@pytest.mark.parametrize("remat", ["attention", "dots", "full"])
def test_remat_changes_no_number(config, scan, remat):
    again = gradient(config, scan, remat)
    assert_trees_close(again, gradient(config, scan), rtol=1e-5, atol=1e-6)


@BOTH
def test_parameters_and_loss_are_float32_while_compute_is_bfloat16(config):
    exact, model = Decoder(config), Decoder(config, dtype=jnp.bfloat16)
    drawn = jax.eval_shape(model.init, jax.random.key(0), tokens())["params"]
    assert {p.dtype for p in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    params = noisy_params(exact)
    hidden = jax.eval_shape(lambda p: model.apply({"params": p}, tokens(), method="hidden"), params)
    assert hidden.dtype == jnp.bfloat16
    run = jax.jit(lambda p, m: mean_loss(m, p, tokens()), static_argnums=1)
    value, grads = jax.eval_shape(jax.value_and_grad(lambda p: run(p, model)), params)
    assert value.dtype == jnp.float32
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(run(params, model), run(params, exact), rtol=2e-2)
    assert run(params, model) != run(params, exact)
    jaxpr = str(jax.make_jaxpr(lambda p: model.apply({"params": p}, tokens()))(params))
    softmax = [line for line in jaxpr.splitlines() if " exp " in line or "reduce_max" in line]
    assert softmax
    assert all("bf16" not in line for line in softmax)


@BOTH
def test_eight_devices_compute_what_one_does(config):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    model = Decoder(config, scan=True)
    params, batch = noisy_params(model), tokens(batch=8, sequence=12)
    # 20 does not divide the 96 tokens, nor do the devices divide 20.
    run = jax.jit(jax.value_and_grad(lambda p, t: mean_loss(model, p, t, chunk_tokens=20)))
    expected = run(params, batch)
    matrices = NamedSharding(mesh, P(None, "fsdp", "tensor"))
    whole = NamedSharding(mesh, P())
    split = jax.tree.map(lambda p: jax.device_put(p, matrices if p.ndim > 2 else whole), params)
    with jax.set_mesh(mesh):
        actual = run(split, jax.device_put(batch, NamedSharding(mesh, P(("data", "fsdp")))))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    assert_trees_close(actual[1], expected[1], rtol=1e-4, atol=1e-6)
