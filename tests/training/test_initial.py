"""The weights that a run starts from, and those of `Decoder.init`: one distribution, two draws."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.mup import Scaling, initial
from chinchilla_jax.experiment.parameters import parameter
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from tests.training.helpers import small_run

MODEL = {"width": 64, "depth": 2, "head_size": 32, "ff_size": 256}


def flat(params):
    return flax.traverse_util.flatten_dict(params, sep="/")


@pytest.fixture(scope="module", params=["modern", "chinchilla"])
def compiled(request):
    model = MODEL | {"definition": request.param}
    return compiled_for(small_run(model=model, training={"layers": "unrolled"}, base_width=16))


@pytest.mark.parametrize("draw", ["run", "init"])
def test_every_parameter_starts_as_the_table_says(compiled, draw):
    model = compiled.method.model
    if draw == "run":
        params = initial_state(compiled.method, compiled.shardings, 0).params
    else:
        plain = type(model)(model.config, scaling=model.scaling)
        params = jax.jit(plain.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert model.scaling == Scaling(16)
    for path, array in flat(params).items():
        mean, std = initial(parameter(path), model.config, model.scaling)
        assert np.mean(array) == pytest.approx(mean, abs=5 * std / array.size**0.5), path
        assert np.std(array) == pytest.approx(std, rel=0.05), path


def test_a_layer_starts_with_the_same_weights_scanned_on_a_mesh_and_unrolled(compiled):
    scanned = compiled_for(
        small_run(
            model=MODEL | {"definition": compiled.method.model.config.definition},
            training={"layers": "scan", "data_parallel": 2, "fsdp": 2, "tensor": 2},
            base_width=16,
        )
    )
    one, other = (flat(initial_state(c.method, c.shardings, 0).params) for c in (compiled, scanned))
    for path, array in other.items():
        layers = [one[path.replace("layers/", f"layers_{i}/")] for i in range(2)]
        expected = layers if path.startswith("layers/") else layers[0]
        np.testing.assert_array_equal(array, expected, err_msg=path)


def test_no_two_layers_start_with_the_same_matrix(compiled):
    params = flat(initial_state(compiled.method, compiled.shardings, 0).params)
    for path, array in params.items():
        if path.startswith("layers_0/") and parameter(path).kind != "vector":
            other = params[path.replace("layers_0/", "layers_1/")]
            assert not np.array_equal(array, other), path
