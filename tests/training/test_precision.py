"""16-bit compute over float32 state, read off the traced step, forward and backward."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex

from chinchilla_jax.experiment.parameters import parameter
from chinchilla_jax.models.module import path_name
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from tests.jaxprs import inner_equations
from tests.training.helpers import small_run

# Sums, extremes and functions that lose too much in 16 bits; an activation function does not.
EXACT = {
    "reduce_sum", "reduce_max", "cumsum", "exp", "exp2", "log", "log1p", "rsqrt", "sqrt", "sin",
    "cos", "div", "scatter-add",
}  # fmt: skip
BOTH = pytest.mark.parametrize("definition", ["modern", "chinchilla"])
# Any two of the three in all combinations, the other half only with -m slow.
CASES = [
    pytest.param(definition, layers, remat, marks=[pytest.mark.slow] * ((i + j + k) % 2))
    for i, definition in enumerate(("modern", "chinchilla"))
    for j, layers in enumerate(("scan", "unrolled"))
    for k, remat in enumerate(("none", "attention", "dots", "full"))
]


def run_of(definition, kv_heads=8, dtype="bfloat16", **training):
    return small_run(
        model={"definition": definition, "kv_heads": kv_heads},
        training={"data_parallel": 1, "dtype": dtype, "loss_chunk_tokens": 32} | training,
    )


def traced(run):
    compiled = compiled_for(run)
    tokens = jax.ShapeDtypeStruct((1, run.batch_size, run.sequence_length + 1), np.int32)
    scalar, count = (jax.ShapeDtypeStruct((), t) for t in (np.float32, np.int32))
    rates = jax.ShapeDtypeStruct((1,), np.float32)
    with jax.set_mesh(compiled.mesh):
        return compiled.train.trace(compiled.abstract_state, tokens, rates, scalar, count)


@pytest.mark.parametrize("definition,layers,remat", CASES)
def test_products_are_16_bit_and_all_sums_float32(definition, layers, remat):
    products = collections.Counter()
    kv_heads = 4 if definition == "modern" else 8
    run = run_of(definition, kv_heads, layers=layers, remat=remat)
    for equation in inner_equations(traced(run).jaxpr.jaxpr):
        name, dtypes = equation.primitive.name, {str(v.aval.dtype) for v in equation.invars}
        if name == "dot_general":
            products[tuple(sorted(dtypes))] += 1
        elif name in EXACT:
            assert "bfloat16" not in dtypes, f"{name} of {dtypes} at {equation.source_info}"
    assert set(products) == {("bfloat16",)}
    assert products["bfloat16",] >= 3 * (9 if layers == "scan" else 17)


@BOTH
@pytest.mark.parametrize("layers", ["scan", "unrolled"])
def test_each_matrix_is_cast_once_a_step_outside_of_all_loops(definition, layers):
    """Not once per use: layers under a scan, recomputation and microbatches share the cast."""
    run = run_of(definition, layers=layers, remat="full", microbatch=2)
    matrices = collections.Counter(
        leaf.shape
        for path, leaf in jax.tree.leaves_with_path(compiled_for(run).abstract_state.params)
        if parameter(path_name(path)).kind == "hidden"
    )
    found = collections.Counter()

    def walk(jaxpr, depth):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "convert_element_type":
                before, after = equation.invars[0].aval, equation.outvars[0].aval
                if (before.dtype, after.dtype) == (jnp.float32, jnp.bfloat16):
                    found[before.shape, depth] += 1
            loop = equation.primitive.name in ("scan", "while")
            for inner in jex.jaxprs_in_params(equation.params):
                walk(inner, depth + loop)

    walk(traced(run).jaxpr.jaxpr, 0)
    for shape, count in matrices.items():
        assert found[shape, 0] == count, shape
        for inside in (shape, shape[1:]):
            assert not any(found[inside, depth] for depth in (1, 2, 3)), shape


@BOTH
def test_the_curve_is_that_of_float32_and_the_state_stays_float32(definition):
    curves = {}
    for dtype in ("float32", "bfloat16"):
        run = run_of(definition, kv_heads=8 if definition == "chinchilla" else 4, dtype=dtype)
        compiled = compiled_for(run)
        state = initial_state(compiled.method, compiled.shardings, 0)
        tokens = np.random.default_rng(0).integers(1, 9, (8, 8, 17)).astype(np.int32)
        with jax.set_mesh(compiled.mesh):
            rates = np.full(8, 0.01, np.float32)
            state, metrics = compiled.train(state, tokens, rates, np.float32(0.1), np.int32(8))
        curves[dtype] = np.asarray(metrics["loss"])
        floats = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert curves["float32"][0] - curves["float32"][-1] > 1
    np.testing.assert_allclose(curves["bfloat16"], curves["float32"], rtol=0.01)
    assert (curves["bfloat16"] != curves["float32"]).all()
