"""The ledger against the definitions themselves and against the compiler."""

import collections
import dataclasses
import math

import flax
import jax
import jax.numpy as jnp
import pytest

from chinchilla_jax.experiment import parameters as table
from chinchilla_jax.experiment.counting import count_params, flops_per_step
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.models import loss
from chinchilla_jax.models.decoder import Decoder
from tests.training.helpers import small_run

# width, depth, heads, key and value heads, head size, feed-forward, vocabulary
SHAPES = {
    "square": (64, 3, 2, 2, 32, 176, 256),
    "H K != D": (48, 2, 3, 3, 8, 200, 100),
    "groups": (36, 5, 6, 2, 10, 40, 77),
}


def config(definition: str, shape: tuple[int, ...]) -> ModelConfig:
    width, depth, heads, kv_heads, head_size, ff_size, vocab_size = shape
    return ModelConfig(
        definition=definition,
        vocab_size=vocab_size,
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads if definition == "chinchilla" else kv_heads,
        head_size=head_size,
        ff_size=ff_size,
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
@pytest.mark.parametrize("scan", [False, True])
def test_the_table_of_parameters_is_what_the_model_holds(definition, shape, scan):
    """Name by name: how many arrays there are, of which shape, and how many numbers in all."""
    c = config(definition, shape)
    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    params = jax.eval_shape(Decoder(c, scan=scan).init, jax.random.key(0), tokens)["params"]
    arrays = collections.defaultdict(list)
    for path, array in flax.traverse_util.flatten_dict(params, sep="/").items():
        layers = (c.depth,) if path.startswith("layers/") else ()
        row = table.parameter(path)
        assert array.shape == layers + table.shape(row.dims, c), path
        copies = math.prod(layers)
        arrays[row.name] += [array.size // copies] * copies
    rows = {p.name: p for p in table.parameters(c)}
    assert {name: len(sizes) for name, sizes in arrays.items()} == {
        name: table.copies(p, c) for name, p in rows.items()
    }
    assert {name: sum(sizes) for name, sizes in arrays.items()} == {
        name: table.stored(p, c) for name, p in rows.items()
    }
    assert count_params(c).total == sum(array.size for array in jax.tree.leaves(params))


@pytest.mark.parametrize("definition, kv_heads", [("modern", 2), ("modern", 1), ("chinchilla", 2)])
def test_matmul_flops_are_within_two_percent_of_the_compiler(definition, kv_heads):
    """On an unrolled model with one chunk of loss: XLA counts the body of a loop only once."""
    c = config(definition, (256, 2, 2, kv_heads, 128, 1024, 512))
    model, batch, sequence = Decoder(c), 2, 64
    tokens = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]

    def total(params, tokens_BxS):
        x_TxD = model.apply({"params": params}, tokens_BxS, method="hidden")
        readout_DxV = model.apply({"params": params}, method="readout_DxV")
        return jnp.sum(loss.token_losses(x_TxD, readout_DxV, tokens_BxS.reshape(-1), 10**6))

    compiled = jax.jit(jax.grad(total)).lower(params, tokens).compile()
    counted = flops_per_step(c, batch, sequence, "matmul")
    assert compiled.cost_analysis()["flops"] == pytest.approx(counted, rel=0.02)
    forward = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))
    one = jax.ShapeDtypeStruct((1, sequence), jnp.int32)
    prefill = ledger(small_run(sequence=sequence, model=dataclasses.asdict(c))).prefill
    analysis = forward.lower(params, one).compile().cost_analysis()
    assert analysis["flops"] == pytest.approx(sequence * prefill, rel=0.02)
