"""Experts of a layer against a loop over tokens, and where their tokens go."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models.decoder import FeedForward
from chinchilla_jax.models.experts import BIAS, Experts, block_count, block_rows, blocks
from chinchilla_jax.models.layout import Layout
from chinchilla_jax.models.products import Products
from tests.models import reference

DENSE = ModelConfig(width=16, depth=2, heads=2, kv_heads=2, head_size=8, ff_size=24)
SEQUENCE = 12


def with_experts(experts, picks, capacity=0.0, definition="modern", size=8):
    return dataclasses.replace(
        DENSE, definition=definition, ff_size=0, experts=experts, expert_picks=picks,
        expert_size=size, expert_capacity=capacity,
    )  # fmt: skip


def module(config, kind=Experts, parts=1, dtype=jnp.float32):
    return kind(config, Scaling(), dtype, Layout(parts=parts), Products())


def tokens(count=4 * SEQUENCE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((count, 16)), jnp.float32)


@functools.cache
def drawn(config):
    """Matrices of the size that their inputs ask for."""
    model, random = module(config), np.random.default_rng(1)
    like = jax.eval_shape(lambda: model.init(jax.random.key(1), tokens(SEQUENCE), SEQUENCE))
    return jax.tree.map(
        lambda w: jnp.asarray(random.standard_normal(w.shape) / w.shape[-2] ** 0.5, jnp.float32),
        like["params"],
    )


def applied(config, p, x_TxD, parts=1, dtype=jnp.float32):
    """Output and sums, compiled."""
    model = module(config, parts=parts, dtype=dtype)
    return jax.jit(lambda p, x: model.apply({"params": p}, x, SEQUENCE))(p, x_TxD)


def by_hand(p, x_TxD, config, bias=0.0):
    """Output, loads and dropped picks by loops, in float64."""
    p, x_TxD = reference.tree_to_numpy(p), np.asarray(x_TxD, np.float64)
    logits = x_TxD @ p["router"]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    y, load, dropped = np.zeros_like(x_TxD), np.zeros(config.experts), 0
    for t, x in enumerate(x_TxD):
        if t % SEQUENCE == 0:
            taken = np.zeros(config.experts)
        for e in np.argsort(-(share[t] + bias), kind="stable")[: config.expert_picks]:
            load[e] += 1
            if config.expert_capacity and taken[e] >= config.expert_places(SEQUENCE):
                dropped += 1
                continue
            taken[e] += 1
            names = {"gate": "expert_gate", "up": "expert_up", "down": "expert_down"}
            of = {name: p[its][e] for name, its in names.items() if its in p}
            y[t] += share[t, e] * reference.feed_forward(of, x, config)
    return y, load, dropped


CASES = [
    with_experts(4, 1), with_experts(8, 2), with_experts(3, 2, definition="chinchilla"),
    with_experts(4, 2, capacity=1.0), with_experts(8, 1, capacity=1.25),
]  # fmt: skip


@pytest.mark.parametrize("config", CASES, ids=lambda c: f"{c.expert_picks}of{c.experts}")
def test_outputs_loads_and_drops_are_those_of_a_loop_over_tokens(config):
    p, x_TxD = drawn(config), tokens()
    y, sums = applied(config, p, x_TxD, parts=2)
    expected, load, dropped = by_hand(p, x_TxD, config)
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(sums["router_load"], load)
    assert load.sum() == config.expert_picks * len(x_TxD)
    assert sums["router_dropped"] == dropped and (dropped > 0) == bool(config.expert_capacity)
    assert sums["router_not_finite"] == 0


def test_gradients_are_those_of_all_experts_computed_for_all_tokens():
    config = with_experts(4, 2)
    p, x_TxD = drawn(config), tokens()

    def plainly(p, x_TxD):
        share = jax.nn.softmax(x_TxD @ p["router"])
        _, picked = jax.lax.top_k(share, 2)
        gate_TxE = share * jnp.sum(jax.nn.one_hot(picked, 4), axis=1)
        h = jax.nn.silu(jnp.einsum("td,edx->tex", x_TxD, p["expert_gate"]))
        h *= jnp.einsum("td,edx->tex", x_TxD, p["expert_up"])
        return jnp.einsum("tex,exd,te->td", h, p["expert_down"], gate_TxE)

    def total(function):
        return lambda p, x: jnp.sum(jnp.sin(function(p, x)))

    expected = jax.jit(jax.grad(total(plainly), (0, 1)))(p, x_TxD)
    ours = module(config, parts=4)
    found = jax.grad(total(lambda p, x: ours.apply({"params": p}, x, SEQUENCE)[0]), (0, 1))
    for some, other in zip(
        jax.tree.leaves(jax.jit(found)(p, x_TxD)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(some, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_one_expert_is_the_dense_network_to_the_bit(definition):
    """Its gradients too, compiled, from the same weights; the router's are zero."""
    dense = dataclasses.replace(DENSE, definition=definition)
    one = with_experts(1, 1, definition=definition, size=24)
    p, x_TxD = drawn(one), tokens()
    plain = {name.removeprefix("expert_"): w[0] for name, w in p.items() if name != "router"}

    def of(kind, config, *sequence):
        def total(p, x):
            y = module(config, kind).apply({"params": p}, x, *sequence)
            y = y[0] if sequence else y
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))

    (_, y), (dp, dx) = of(FeedForward, dense)(plain, x_TxD)
    (_, same), (dq, dz) = of(Experts, one, SEQUENCE)(p, x_TxD)
    np.testing.assert_array_equal(same, y)
    np.testing.assert_array_equal(dz, dx)
    assert not np.any(dq.pop("router"))
    for name, gradient in dq.items():
        np.testing.assert_array_equal(gradient[0], dp[name.removeprefix("expert_")], err_msg=name)


@pytest.mark.parametrize(
    "experts,picks,skew", [(1, 7, 0), (4, 64, 0), (4, 64, 9), (5, 33, 2), (9, 8, 0), (8, 200, 1)]
)
def test_every_pick_has_a_row_of_a_block_of_its_expert_alone(experts, picks, skew):
    """Also where nearly all go to one expert, and where some are dropped."""
    rng = np.random.default_rng(0)
    expert_I = np.minimum((experts * rng.random(picks) ** (1 + skew)).astype(int), experts - 1)
    kept_I = rng.random(picks) < 0.8
    over = 1 + experts % 2  # devices
    to = jax.jit(blocks, static_argnums=(2, 3))(expert_I[None], kept_I[None], experts, over)
    rows, count = block_rows(picks, experts), block_count(picks, experts, over)
    row_I, pick_R = np.asarray(to.row_PxI[0]), np.asarray(to.pick_PxR[0])
    assert pick_R.shape == (rows * count,) and count % over == 0
    taken = row_I[kept_I]
    assert len(set(taken)) == kept_I.sum() and np.all(row_I[~kept_I] == rows * count)
    np.testing.assert_array_equal(pick_R[taken], np.flatnonzero(kept_I))
    np.testing.assert_array_equal(np.asarray(to.owner_PxM[0])[taken // rows], expert_I[kept_I])
    assert np.sum(pick_R < picks) == kept_I.sum()


def test_biases_change_the_choice_and_not_the_gates():
    config = with_experts(4, 2)
    p, x_TxD, bias = drawn(config), tokens(), np.array([0.0, 0.9, -0.9, 0.0])
    y, sums = applied(config, {**p, BIAS: jnp.asarray(bias, jnp.float32)}, x_TxD)
    expected, load, _ = by_hand(p, x_TxD, config, bias)
    assert load[1] > 40 and load[2] == 0
    np.testing.assert_array_equal(sums["router_load"], load)
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=1e-5)


def test_routers_are_float32_whatever_the_rest():
    config = with_experts(8, 2)
    p, x_TxD = drawn(config), tokens().astype(jnp.bfloat16)
    _, sums = applied(config, p, x_TxD, dtype=jnp.bfloat16)
    _, same = applied(config, p, x_TxD.astype(jnp.float32))
    for name, value in sums.items():
        np.testing.assert_array_equal(value, same[name], err_msg=name)
    assert {s.dtype for s in sums.values()} == {jnp.dtype("float32")}


def test_what_balances_is_one_where_all_is_even_and_grows_where_it_is_not():
    config = with_experts(4, 1)
    p, x_TxD = drawn(config), tokens()
    even = {**p, "router": jnp.zeros_like(p["router"])}
    _, sums = applied(config, even, x_TxD)
    assert sums["router_balance"] / len(x_TxD) == pytest.approx(1.0)
    assert sums["router_logits"] / len(x_TxD) == pytest.approx(np.log(4) ** 2)
    one = {**p, "router": jnp.zeros_like(p["router"]).at[:, 2].set(100.0)}
    positive = jnp.abs(x_TxD)
    _, sums = applied(config, one, positive)
    assert sums["router_balance"] / len(x_TxD) == pytest.approx(4.0)


def test_down_its_gradient_loads_become_more_even():
    config, x_TxD = with_experts(4, 1), tokens()
    p = drawn(config)

    def balance(router):
        _, sums = module(config).apply({"params": {**p, "router": router}}, x_TxD, SEQUENCE)
        return sums["router_balance"] / len(x_TxD), sums["router_load"]

    step = jax.jit(jax.value_and_grad(balance, has_aux=True))
    router = p["router"]
    (first, load), _ = step(router)
    for _ in range(30):
        (last, after), gradient = step(router)
        router -= gradient
    assert last < first and np.std(after) < np.std(load)
