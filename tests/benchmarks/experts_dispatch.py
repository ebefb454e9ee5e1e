"""How tokens reach their experts: one layer's products by blocks, `ragged_dot` and all for all.

    python tests/benchmarks/experts_dispatch.py
    python tests/benchmarks/experts_dispatch.py --width=768 --size=2048 --tokens=32768   # a GPU

Forward and backward of a gated feed-forward network of `--size` in all, as one dense network and as
experts of which a token meets as many parameters. `blocks` is what models/experts.py trains,
`ragged_dot` sorts tokens by expert and hands their counts to JAX's grouped product, `all` computes
every expert for every token and keeps those picked. Picks are drawn at random, as of a router
before it is trained; gates, router and balance are left out, which are the same for all.
Times are of turns in which each has its turn; `ratio` is to the dense network, middle half behind.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.models.experts import block_rows, blocks, gathered, of_owners

Weights = tuple[jax.Array, jax.Array, jax.Array]  # gate, up [E, D, F] and down [E, F, D]
Layer = Callable[[jax.Array, Weights, jax.Array], jax.Array]  # x [T, D], weights, picks [T, J]


def dense(x_TxD: jax.Array, weights: Weights, picks_TxJ: jax.Array) -> jax.Array:
    """The network of the first expert."""
    gate, up, down = (w[0] for w in weights)
    return (jax.nn.silu(x_TxD @ gate) * (x_TxD @ up)) @ down


def by_blocks(x_TxD: jax.Array, weights: Weights, picks_TxJ: jax.Array) -> jax.Array:
    """As `models.experts.Experts` does."""
    (tokens, picks), experts = picks_TxJ.shape, weights[0].shape[0]
    expert_1xI = picks_TxJ.reshape(1, -1)
    to = blocks(expert_1xI, jnp.ones_like(expert_1xI, bool), experts)
    rows = block_rows(tokens * picks, experts)
    x_1xRxD = gathered(x_TxD[None], to.pick_PxR // picks, to.row_PxI.reshape(1, -1, picks))
    x_MxCxD = x_1xRxD.reshape(-1, rows, x_TxD.shape[1])

    def through(y: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.einsum("mci,mio->mco", y, of_owners(w, to.owner_PxM))

    gate, up, down = weights
    y = through(jax.nn.silu(through(x_MxCxD, gate)) * through(x_MxCxD, up), down)
    y_1xIxD = gathered(y.reshape(1, -1, x_TxD.shape[1]), to.row_PxI, to.pick_PxR[..., None])
    return y_1xIxD.reshape(tokens, picks, -1).sum(1)


def by_ragged_dot(x_TxD: jax.Array, weights: Weights, picks_TxJ: jax.Array) -> jax.Array:
    """Tokens sorted by expert, a product over groups of unequal sizes."""
    (tokens, picks), experts = picks_TxJ.shape, weights[0].shape[0]
    order_I = jnp.argsort(picks_TxJ.reshape(-1), stable=True)
    counts_E = jnp.bincount(picks_TxJ.reshape(-1), length=experts)
    x_IxD = x_TxD[order_I // picks]
    gate, up, down = weights
    h = jax.nn.silu(jax.lax.ragged_dot(x_IxD, gate, counts_E))
    h *= jax.lax.ragged_dot(x_IxD, up, counts_E)
    y_IxD = jax.lax.ragged_dot(h, down, counts_E)
    return y_IxD[jnp.argsort(order_I)].reshape(tokens, picks, -1).sum(1)


def by_all(x_TxD: jax.Array, weights: Weights, picks_TxJ: jax.Array) -> jax.Array:
    """Every expert for every token."""
    gate, up, down = weights
    h = jax.nn.silu(jnp.einsum("td,edf->etf", x_TxD, gate))
    y_ExTxD = jnp.einsum("etf,efd->etd", h * jnp.einsum("td,edf->etf", x_TxD, up), down)
    picked_ExT = (picks_TxJ[None] == jnp.arange(gate.shape[0])[:, None, None]).any(-1)
    return jnp.einsum("etd,et->td", y_ExTxD, picked_ExT.astype(y_ExTxD.dtype))


LAYERS: dict[str, Layer] = {"blocks": by_blocks, "ragged_dot": by_ragged_dot, "all": by_all}


def drawn(
    tokens: int, width: int, size: int, experts: int, picks: int, dtype: str
) -> tuple[jax.Array, Weights, jax.Array]:
    """x, the weights of experts of `size`, and which expert each token picks."""
    random = np.random.default_rng(0)
    shapes = (tokens, width), (experts, width, size), (experts, width, size), (experts, size, width)
    x, gate, up, down = (
        jnp.asarray(random.standard_normal(s) / np.sqrt(s[-2]), dtype) for s in shapes
    )
    chosen = random.random((tokens, experts)).argsort(axis=1)[:, :picks]
    return x, (gate, up, down), jnp.asarray(chosen, jnp.int32)


def differences(drawn_of: tuple[jax.Array, Weights, jax.Array]) -> dict[str, float]:
    """Largest difference of each to `all`, of what comes out, over the largest of it."""
    expected = jax.jit(by_all)(*drawn_of)
    return {
        name: float(jnp.abs(jax.jit(layer)(*drawn_of) - expected).max() / jnp.abs(expected).max())
        for name, layer in LAYERS.items()
    }


def seconds(steps: Sequence[Callable[[], object]], turns: int) -> np.ndarray:
    """Of each step in each turn, [turns, steps]."""
    for step in steps:
        jax.block_until_ready(step())
    taken = np.empty((turns, len(steps)))
    for turn in range(turns):
        for i in np.roll(np.arange(len(steps)), turn):
            begin = time.perf_counter()
            jax.block_until_ready(steps[i]())
            taken[turn, i] = time.perf_counter() - begin
    return taken


def step(layer: Layer, inputs: tuple[jax.Array, Weights, jax.Array]) -> Callable[[], object]:
    """Forward and backward, compiled at the first call."""

    def loss(x: jax.Array, weights: Weights, picks: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(layer(x, weights, picks).astype(jnp.float32)))

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return lambda: compiled(*inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=176, help="of the dense network")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--turns", type=int, default=50)
    shape = parser.parse_args()
    print(f"{shape.tokens} tokens, {shape.width} x {shape.size}, {shape.dtype}, "
          f"{jax.devices()[0].device_kind}")  # fmt: skip
    print("experts    dispatch     ms    ratio (half of turns)")
    for picks, experts in ((1, 4), (1, 8), (2, 8)):
        plain = drawn(shape.tokens, shape.width, shape.size, 1, 1, shape.dtype)
        sizes = shape.tokens, shape.width, shape.size // picks
        inputs = drawn(*sizes, experts, picks, shape.dtype)
        steps = [step(dense, plain)] + [step(layer, inputs) for layer in LAYERS.values()]
        taken = seconds(steps, shape.turns)
        for name, column in zip(("dense", *LAYERS), taken.T, strict=True):
            ratios = column / taken[:, 0]
            low, high = np.quantile(ratios, (0.25, 0.75))
            print(f"{picks} of {experts}     {name:10} {1e3 * np.median(column):6.2f} "
                  f"{np.median(ratios):8.2f} ({low:.2f} to {high:.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
