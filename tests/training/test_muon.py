"""Muon: which parameters it takes, that it orthogonalises them, and that it is exact elsewhere."""

import functools

import jax
import numpy as np
import pytest

from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.parameters import PARAMETERS, parameter, size
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.models.module import path_name
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import Interrupted, train
from chinchilla_jax.training.optimizers import matrix_sides, muon_multiplier
from tests.experiment import experts
from tests.training.helpers import small_run
from tests.training.test_mup import slopes

ONE = {"data_parallel": 1}
HIDDEN = {"query", "key", "value", "out", "positions", "gate", "up", "down"}


def flat(tree):
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


@functools.cache
def one_update(optimizer, layers, definition, **recipe):
    """The run's update at rate 1 from gradients of full rank, by path, and its initial state."""
    run = small_run(
        model={"definition": definition},
        training=ONE | {"layers": layers},
        optimizer=optimizer,
        **recipe,
    )
    compiled = compiled_for(run)
    state = initial_state(compiled.method, compiled.shardings, 0)
    grads = jax.tree.map(lambda p: np.cos(1e4 * np.asarray(p)), state.params)
    hyper = {"learning_rate": 1.0, "weight_decay": 0.0}
    updates, _ = jax.jit(compiled.method.tx.update)(grads, state.opt_state, state.params, **hyper)
    return run, flat(updates)


@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_hidden_matrices_move_by_orthogonal_ones_and_all_else_by_adamw(definition):
    """An orthogonal matrix has no other singular value than 1; five iterations come near."""
    run, updates = one_update("muon", "scan", definition, parametrization="standard")
    _, adamw = one_update("adamw", "scan", definition, parametrization="standard")
    taken = set()
    for path, update in updates.items():
        name, row = path.rsplit("/", 1)[-1], parameter(path)
        if name not in HIDDEN:
            np.testing.assert_array_equal(update, adamw[path], err_msg=path)
            continue
        taken.add(name)
        fan_in = size(row.fan_in, run.model)
        stack = update.reshape(run.model.depth, fan_in, -1)
        for matrix in stack:
            # Liu et al. 2025, equation 4.
            values = np.linalg.svd(matrix / (0.2 * np.sqrt(max(matrix.shape))), compute_uv=False)
            # A random square matrix has a direction or two of hardly any gradient.
            assert np.quantile(values, 0.1) > 0.6 and values.max() < 1.3, path
        assert np.sqrt(np.mean(update**2)) == pytest.approx(0.2, rel=0.2), path
        exact = np.linalg.svd(adamw[path].reshape(stack.shape)[0], compute_uv=False)
        assert exact.max() > 3 * exact.min(), path
    assert taken == HIDDEN & {name.rsplit("/", 1)[-1] for name in updates}
    assert ("positions" in taken) == (definition == "chinchilla")


def test_each_expert_is_a_matrix_of_its_own():
    """The dimension that a token chooses from is neither side, nor part of the larger one."""
    stack = {"expert_up": np.zeros((3, 4, 64, 128), np.float32)}
    sides = matrix_sides({"layers": stack})["layers"]["expert_up"]
    assert (sides.reduction_axis, sides.output_axis) == ((2,), (3,))
    factor = muon_multiplier(experts.EXPERT, experts.MODEL, Scaling(64))
    assert factor == pytest.approx(0.2 * 128**0.5)


def test_scanned_layers_are_matrices_of_their_own():
    _, unrolled = one_update("muon", "unrolled", "modern", parametrization="standard")
    _, scanned = one_update("muon", "scan", "modern", parametrization="standard")
    for path, stack in scanned.items():
        if path.startswith("layers/"):
            for i, matrix in enumerate(stack):
                expected = unrolled[path.replace("layers/", f"layers_{i}/")]
                np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_with_the_width_the_largest_singular_value_stays(name):
    """At the base width Liu et al.'s factor; four times as wide, the same step."""
    row = PARAMETERS[name]
    narrow = ModelConfig(width=64, depth=2, heads=4, kv_heads=4, head_size=16, ff_size=256)
    wide = ModelConfig(width=256, depth=2, heads=16, kv_heads=16, head_size=16, ff_size=1024)
    at_base = muon_multiplier(row, narrow, Scaling(64))
    assert at_base == pytest.approx(0.2 * (256 if name in ("gate", "up", "down") else 64) ** 0.5)
    assert muon_multiplier(row, wide, Scaling(64)) == pytest.approx(at_base)
    standard = Scaling(64, "standard")
    assert muon_multiplier(row, wide, standard) == pytest.approx(2 * at_base)


@pytest.mark.slow
@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_the_coordinate_check(definition):
    layer, logits = slopes("mup", definition, optimizer="muon")
    assert abs(layer) < 0.2
    assert -0.4 < logits < 0.25
    assert slopes("standard", definition, optimizer="muon")[0] > 0.3


def run_of(training):
    return small_run(
        steps=16, training=training | {"steps_per_dispatch": 2, "layers": "scan"}, optimizer="muon"
    )


def losses(directory):
    return [line["loss"] for line in directory.metrics()]


@pytest.fixture(scope="module")
def single(text_corpus, tmp_path_factory):
    directory = RunDirectory(tmp_path_factory.mktemp("single"))
    return train(run_of(ONE), text_corpus, directory), losses(directory)


def test_the_loss_falls(single):
    row, curve = single
    assert row["status"] == "done"
    assert curve[0] == pytest.approx(np.log(256) + 0.5, abs=0.2)  # logits of variance 1
    assert row["loss"] < 4.5


@pytest.mark.slow
def test_a_mesh_computes_the_same_and_an_interruption_changes_no_bit(single, text_corpus, tmp_path):
    run = run_of({"data_parallel": 2, "fsdp": 2, "tensor": 2})
    whole, parts = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts")
    row = train(run, text_corpus, whole)
    np.testing.assert_allclose(
        [*losses(whole), row["loss"]], [*single[1], single[0]["loss"]], rtol=1e-4
    )
    with pytest.raises(Interrupted):
        train(run, text_corpus, parts, lambda: len(list(parts.metrics())) > 4)
    assert 0 < len(losses(parts)) < 16
    assert train(run, text_corpus, parts)["loss"] == row["loss"]
    assert losses(parts) == losses(whole)


def test_the_recipe_names_its_optimizer():
    assert RecipeConfig().optimizer == "adamw"
    assert small_run(optimizer="muon").optimizer.name == "muon"
