"""Pruning: exact masks, of weights whose values are those of sparse training, on every mesh."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from chinchilla_jax.experiment import memory
from chinchilla_jax.experiment.ledger import facts, ledger
from chinchilla_jax.experiment.meshes import MeshShape
from chinchilla_jax.experiment.parameters import parameter, size
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.models.module import path_name
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.training import sharding
from chinchilla_jax.training.announce import bytes_per_device
from chinchilla_jax.training.checkpoints import Checkpoints
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import evaluate
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.techniques.sparsity import kept, pruning
from chinchilla_jax.training.transfers import place
from tests.jaxprs import inner_equations
from tests.training.helpers import small_run
from tests.training.test_distributed import Job, corpus, data, resolved  # noqa: F401
from tests.training.test_loop import curve, numbers, train_with_interruptions

MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}
ALONE = {"data_parallel": 1, "steps_per_dispatch": 2}
HALF = Sparsity(level=0.5, updates=3)


def sparse(run, config=HALF):
    return dataclasses.replace(run, techniques=Techniques(sparsity=config))


def sorted_mask(block, zeros):
    """By a stable sort: the `zeros` smallest magnitudes are false."""
    mask = np.ones(block.size, bool)
    mask[np.argsort(np.abs(block.ravel()), kind="stable")[:zeros]] = False
    return mask.reshape(block.shape)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (1, 8, 1)])
def test_the_estimate_of_memory_has_room_for_masks(mesh):
    sizes = dict(zip(("data_parallel", "fsdp", "tensor"), mesh, strict=True))
    plain = small_run(training=sizes | {"layers": "scan"})
    for run, tolerance in ((plain, 0), (sparse(plain), 0.01)):
        allowed = memory.state_bytes(run, MeshShape(*mesh))
        state = bytes_per_device(compiled_for(run).abstract_state)
        assert allowed == pytest.approx(state, abs=16, rel=tolerance)


@pytest.mark.parametrize("draw", ["normal", "ties", "zeros", "huge"])
def test_masks_are_those_of_a_stable_sort(draw):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 7)).astype(np.float32)
    x = {
        "normal": x,
        "ties": np.round(x),
        "zeros": np.where(rng.random(x.shape) < 0.7, np.float32(0), x),
        "huge": x * np.float32(1e30) ** rng.integers(-1, 2, x.shape),
    }[draw]
    for zeros in (0, 1, 17, 34):
        (found,) = kept([(jnp.asarray(x), (1, 2), zeros)])
        np.testing.assert_array_equal(found, [sorted_mask(layer, zeros) for layer in x])
    for zeros in (0, 2, 4):
        (found,) = kept([(jnp.asarray(x), (1,), zeros)])
        columns = [[sorted_mask(column, zeros) for column in layer.T] for layer in x]
        np.testing.assert_array_equal(found, np.swapaxes(columns, 1, 2))


@pytest.mark.parametrize(
    "level,error", [(0.5, 0.071326), (0.75, 0.276393), (0.875, 0.497656), (0.9, 0.560714)]
)
def test_mean_squared_error_of_a_pruned_gaussian(level, error):
    """Panferov et al. 2025, arXiv 2506.01863, by exact integrals; here over 400,000 quantiles."""
    x = norm.ppf((np.arange(400_000) + 0.5) / 400_000).astype(np.float32)
    (mask,) = kept([(jnp.asarray(x), (0,), round(level * x.size))])
    assert float(np.sum(x[~mask] ** 2, dtype=float)) / x.size == pytest.approx(error, rel=2e-4)


def test_mean_squared_error_of_two_in_four():
    x = np.random.default_rng(0).standard_normal((4, 500_000)).astype(np.float32)
    (mask,) = kept([(jnp.asarray(x), (0,), 2)])
    assert float(np.sum(x[~mask] ** 2, dtype=float)) / x.size == pytest.approx(0.1321, abs=4e-4)


def trained(run, text_corpus, steps=None):
    """The state after its steps on the host, and its metrics; all in dispatches of two."""
    compiled = compiled_for(run)
    with jax.set_mesh(compiled.mesh):
        state = initial_state(compiled.method, compiled.shardings, run.seed)
        where = jax.NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
        losses = []
        for step in range(0, steps or run.steps, 2):
            examples = np.arange(2 * run.batch_size) + step * run.batch_size
            tokens = np.asarray(text_corpus.examples(0, examples, run.sequence_length), np.int32)
            batch = place(tokens.reshape(2, run.batch_size, -1), where)
            state, metrics = compiled.train(
                state, batch, np.full(2, 0.01, np.float32), np.float32(0.01), np.int32(2)
            )
            losses += np.asarray(metrics["loss"]).tolist()
        windows = np.asarray(text_corpus.examples(0, np.arange(8), run.sequence_length), np.int32)
        evaluated = evaluate(compiled, state, windows, 128)["loss"]
    return jax.device_get(state), np.array(losses), evaluated


def leaves(tree):
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def matrices(params):
    """Every matrix by its path, a layer's slice as `layers_1/attention/query` where scanned."""
    found = {}
    for path, leaf in leaves(params).items():
        scanned = path.startswith("layers/")
        for i, layer in enumerate(leaf if scanned else [leaf]):
            found[path.replace("layers/", f"layers_{i}/")] = layer
    return {path: matrix for path, matrix in found.items() if parameter(path).kind != "vector"}


CASES = {
    "unrolled": ({}, HALF, {"layers": "unrolled"}),
    "scanned": ({}, HALF, {"layers": "scan"}),
    "muon": ({"optimizer": "muon"}, Sparsity(level=0.5, group_size=4), {"layers": "scan"}),
    "chinchilla": (
        {"definition": "chinchilla"},
        Sparsity(level=0.36, table_exponent=0.5),
        {"layers": "unrolled"},
    ),
}


def case(name, training=ALONE, steps=8):
    recipe, config, layers = CASES[name]
    recipe = dict(recipe)
    model = {"definition": recipe.pop("definition", "modern")}
    run = small_run(steps=steps, training={**training, **layers}, model=model, **recipe)
    return sparse(run, config)


@pytest.fixture(scope="module")
def ended(text_corpus):
    """The end of a case on a mesh, trained once."""
    found = {}

    def of(name, training):
        key = name, training["data_parallel"]
        if key not in found:
            found[key] = trained(case(name, training), text_corpus)
        return found[key]

    return of


@pytest.mark.parametrize("name", CASES)
def test_every_matrix_ends_with_just_the_zeros_asked_for(ended, name):
    run = case(name)
    state, _, _ = ended(name, ALONE)
    config, zeros = run.techniques.sparsity, {}
    for path, matrix in matrices(state.params).items():
        row = parameter(path)
        level = config.level if row.kind == "hidden" else 0.0
        if row.kind != "hidden" and config.table_exponent:
            level = 1 - math.sqrt(1 - config.level)
        zeros[path] = int(np.sum(matrix == 0))
        assert zeros[path] == math.floor(level * matrix.size + 0.5), path
        if config.group_size and row.kind == "hidden":
            groups = matrix.reshape(-1, config.group_size, size(row.fan_out, run.model))
            assert np.all(np.sum(groups == 0, axis=1) == 2), path
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert ledger(run).columns()["params_nonzero"] == total - sum(zeros.values())
    for path, mask in state.opt_state.masks.items():
        assert np.array_equal(mask, leaves(state.params)[path] != 0)
        assert parameter(path).kind == "hidden" or config.table_exponent


def test_scanned_and_unrolled_layers_end_the_same(ended):
    (one, losses, _), (other, same, _) = (ended(name, ALONE) for name in ("unrolled", "scanned"))
    np.testing.assert_allclose(losses, same, rtol=2e-5)
    one, other = matrices(one.params), matrices(other.params)
    for path, matrix in one.items():
        assert_nearly(matrix, other[path])


def assert_nearly(some, others):
    """Equal up to rounding, which may tip the balance between two weights of nearly one size."""
    both = (some == 0) == (others == 0)
    assert both.mean() > 0.995
    assert np.median(np.abs(some - others)[both]) < 1e-4
    np.testing.assert_allclose(some[both], others[both], atol=0.01)


@pytest.mark.parametrize("name", ["muon", "chinchilla"])
def test_a_mesh_of_eight_devices_trains_like_one(ended, name):
    (alone, losses, loss), (meshed, others, other) = (ended(name, on) for on in (ALONE, MESH))
    np.testing.assert_allclose(losses, others, rtol=1e-4)
    assert loss == pytest.approx(other, rel=1e-4)
    for path, matrix in matrices(alone.params).items():
        assert_nearly(matrix, matrices(meshed.params)[path])


@pytest.mark.parametrize("spec", [("fsdp", "tensor", None), (None, ("data", "tensor"), "fsdp")])
def test_split_over_devices_masks_are_the_same_to_the_weight(spec):
    weights = np.random.default_rng(0).standard_normal((8, 16, 12)).astype(np.float32).round(2)
    mesh = compiled_for(case("chinchilla", MESH)).mesh
    with jax.set_mesh(mesh):
        lies = jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        split = jax.device_put(weights, lies)
        whole = jax.jit(lambda w: kept([(w, (0, 1, 2), 700), (w, (1,), 5)]))
        for some, other in zip(whole(split), whole(weights), strict=True):
            np.testing.assert_array_equal(some, other)
        np.testing.assert_array_equal(some[3, :, 5], sorted_mask(weights[3, :, 5], 5))


def test_masks_lie_with_their_weights():
    compiled = compiled_for(case("chinchilla", MESH))
    params, masks = leaves(compiled.shardings.params), compiled.shardings.opt_state.masks
    assert masks and all(mask.spec == params[path].spec for path, mask in masks.items())
    assert any(mask.spec != jax.sharding.PartitionSpec() for mask in masks.values())


def test_interrupted_it_ends_to_the_bit_as_uninterrupted(text_corpus, tmp_path):
    """In the middle of the ramp, where masks have changed already and will again."""
    run = sparse(small_run(steps=24, training=MESH, optimizer="muon"), Sparsity(level=0.75))
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    row = train(run, text_corpus, whole)
    again = train_with_interruptions(run, text_corpus, broken, (10, 20))
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    assert row["sparsity_level"] == 0.75


def test_what_is_evaluated_and_saved_is_sparse(text_corpus, tmp_path):
    run = case("unrolled")
    run = dataclasses.replace(run, execution=dataclasses.replace(run.execution, save_final=True))
    directory = RunDirectory(tmp_path)
    row = train(run, text_corpus, directory)
    compiled = compiled_for(run)
    meta = json.loads(next(directory.checkpoints.glob("*/record.json")).read_text())["meta"]
    with jax.set_mesh(compiled.mesh), Checkpoints(directory.checkpoints, 2, meta) as checkpoints:
        state, step = checkpoints.restore_latest(compiled.abstract_state)
        windows = text_corpus.validation_windows(run.measurement.eval_windows, run.sequence_length)
        assert evaluate(compiled, state, *windows)["loss"] == row["loss"]
    assert step == run.steps
    hidden = [w for path, w in leaves(state.params).items() if parameter(path).kind == "hidden"]
    assert hidden and all(int(jnp.sum(w == 0)) == w.size // 2 for w in hidden)


def test_pruned_weights_stay_zero_and_neither_move_nor_count():
    """By hand: the gradient that the optimizer inside sees, and what becomes of each weight."""
    run = sparse(small_run(steps=8), Sparsity(level=0.5, ramp_start=0.0, ramp_end=0.5, updates=2))
    seen = []

    def spying(updates, state, params, **_):
        seen.append(updates)
        # Momentum may push what has no gradient, and far.
        return jax.tree.map(lambda g: jnp.where(g == 0, 3.0, -0.1 * g), updates), state

    tx = pruning(
        optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), spying),
        run.techniques.sparsity,
        facts(run),
    )
    path = "layers_0/attention/query"
    rng = np.random.default_rng(0)
    shape = (32, 8, 4)
    tree = lambda x: {"layers_0": {"attention": {"query": x}}, "scale": x}  # noqa: E731
    params = tree(jnp.asarray(rng.standard_normal(shape), jnp.float32))
    state, zeros = tx.init(params), []
    for _ in range(8):
        grads = tree(jnp.asarray(rng.standard_normal(shape), jnp.float32))
        mask = state.masks[path]
        updates, state = tx.update(grads, state, params)
        inside = seen[-1]["layers_0"]["attention"]["query"]
        np.testing.assert_array_equal(inside, np.where(mask, grads["scale"], 0))
        np.testing.assert_array_equal(seen[-1]["scale"], grads["scale"])
        params = optax.apply_updates(params, updates)
        weights = params["layers_0"]["attention"]["query"]
        assert not np.any(state.masks[path] & ~mask)  # what is gone stays gone
        np.testing.assert_array_equal(weights == 0, ~state.masks[path])
        assert np.all(params["scale"] != 0)
        zeros.append(int(np.sum(weights == 0)))
    assert zeros == [0, 448, 448, 512, 512, 512, 512, 512]  # 7/8 of the level half way


def test_until_the_ramp_begins_it_trains_as_dense(text_corpus):
    run = small_run(steps=16, training=ALONE)
    states = [trained(one, text_corpus, steps=6)[0] for one in (run, sparse(run))]
    for plain, pruned in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_allclose(plain, pruned, rtol=1e-4, atol=1e-5)  # fused otherwise


def test_masks_are_searched_for_in_a_branch_only_and_nothing_is_sorted():
    compiled = compiled_for(case("unrolled"))
    method, params = compiled.method, compiled.abstract_state.params
    state = compiled.abstract_state.opt_state
    rates = {"learning_rate": 0.1, "weight_decay": 0.1}
    jaxpr = jax.make_jaxpr(lambda g, s, p: method.tx.update(g, s, p, **rates))(
        params, state, params
    )
    outside = {e.primitive.name for e in jaxpr.jaxpr.eqns}
    inside = {e.primitive.name for e in inner_equations(jaxpr.jaxpr)}
    assert "cond" in outside and "bitcast_convert_type" in inside
    assert not outside & {"bitcast_convert_type", "while", "scan"} and "sort" not in inside


@pytest.mark.slow
@pytest.mark.parametrize("config", [HALF, Sparsity(level=0.5, group_size=4, updates=2)], ids=str)
def test_two_processes_prune_as_one(config, data, corpus, tmp_path):  # noqa: F811
    mesh = {"data_parallel": 2, "fsdp": 2, "tensor": 2}
    run = dataclasses.replace(sparse(small_run(training=mesh), config), data=data)
    row = train(run, corpus, RunDirectory(tmp_path / "alone"))
    argument, directory = resolved(run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [0, 0], ends
    found = directory.result()
    assert found["params_nonzero"] == row["params_nonzero"]
    assert found["loss"] == pytest.approx(row["loss"], rel=1e-5)
    ours, alone = (
        [line["loss"] for line in folder.metrics()]
        for folder in (directory, RunDirectory(tmp_path / "alone"))
    )
    np.testing.assert_allclose(ours, alone, rtol=1e-5)
