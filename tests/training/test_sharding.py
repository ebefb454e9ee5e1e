"""The same loss curve on every mesh, with arrays that really are split."""

import jax
import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import sharding
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import train
from tests.training.helpers import small_run

MESHES = {(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)}
# Each mesh once, and both definitions where all axes are.
CASES = [
    ("modern", (8, 1, 1)),
    ("modern", (1, 1, 8)),
    ("modern", (2, 2, 2)),
    ("chinchilla", (2, 4, 1)),
    ("chinchilla", (2, 2, 2)),
]
MORE = [("modern", (2, 4, 1)), ("chinchilla", (8, 1, 1)), ("chinchilla", (1, 1, 8))]


def on(mesh):
    return dict(zip(("data_parallel", "fsdp", "tensor"), mesh, strict=True))


def losses(path, run, corpus):
    row = train(run, corpus, RunDirectory(path))
    curve = [line["loss"] for line in RunDirectory(path).metrics()]
    assert len(curve) == run.steps
    return np.array([*curve, row["loss"]])


@pytest.fixture(scope="module")
def definition(request):
    return request.param


@pytest.fixture(scope="module")
def single(definition, text_corpus, tmp_path_factory):
    run = small_run(model={"definition": definition}, training={"data_parallel": 1})
    return losses(tmp_path_factory.mktemp("single"), run, text_corpus)


@pytest.mark.parametrize(
    "definition,mesh",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
    indirect=["definition"],
)
def test_the_loss_curve_is_that_of_one_device(definition, mesh, single, text_corpus, tmp_path):
    run = small_run(model={"definition": definition}, training=on(mesh))
    np.testing.assert_allclose(losses(tmp_path, run, text_corpus), single, rtol=1e-5)


@pytest.mark.parametrize("mesh", sorted(MESHES))
@pytest.mark.parametrize("layers", ["scan", "unrolled"])
def test_matrices_are_split_and_bytes_fall_accordingly(mesh, layers):
    compiled = compiled_for(small_run(training=on(mesh) | {"layers": layers}))
    state = initial_state(compiled.method, compiled.shardings, 0)
    _, fsdp, tensor = mesh
    whole = local = 0
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        shard = leaf.addressable_shards[0].data
        if leaf.ndim - (layers == "scan") >= 2 and leaf.size > 1000:
            assert leaf.size == shard.size * fsdp * tensor, (leaf.shape, leaf.sharding)
            whole, local = whole + leaf.nbytes, local + shard.nbytes
        for device, part in zip(jax.devices(), leaf.addressable_shards, strict=True):
            assert part.device == device
    assert whole > 200_000
    assert local == whole // (fsdp * tensor)


def test_the_batch_is_split_over_data_and_fsdp():
    compiled = compiled_for(small_run(training=on((2, 2, 2))))
    spec = jax.sharding.NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
    assert spec.shard_shape((4, 8, 17)) == (4, 2, 17)


def test_a_parameter_without_a_rule_is_an_error():
    mesh = sharding.make_mesh(small_run().execution)
    leaf = jax.ShapeDtypeStruct((8, 8), np.float32)
    with pytest.raises(UserError, match="params/other"):
        sharding.state_shardings({"params": {"other": leaf}}, mesh)


def test_experts_and_their_moments_lie_over_fsdp_and_tensor():
    mesh = sharding.make_mesh(small_run(training=on((2, 2, 2))).execution)
    leaf = jax.ShapeDtypeStruct((3, 4, 64, 192), np.float32)  # layers, experts, D, F
    state = {"params": {"expert_up": leaf}, "opt_state": {"mu": {"expert_up": leaf}}}
    for found in jax.tree.leaves(sharding.state_shardings(state, mesh)):
        assert found.spec == jax.sharding.PartitionSpec(None, "tensor", "fsdp", None)
        assert found.shard_shape(leaf.shape) == (3, 2, 32, 192)


@pytest.mark.parametrize(
    "training,model,words",
    [
        ((1, 1, 8), {"heads": 4, "kv_heads": 4, "head_size": 8}, ("execution.tensor = 8", "4")),
        ((1, 8, 1), {"width": 36}, ("execution.fsdp = 8", "36")),
        ((4, 2, 2), {}, ("needs 16 devices", "there are 8")),
    ],
)
def test_what_does_not_divide_is_an_error_before_anything_is_compiled(training, model, words):
    with pytest.raises(UserError) as error:
        compiled_for(small_run(model=model, training=on(training)))
    for word in words:
        assert word in str(error.value)


def test_a_batch_that_the_mesh_does_not_divide():
    with pytest.raises(UserError, match="do not divide 6 sequences"):
        compiled_for(small_run(batch_size=6, training=on((4, 2, 1))))


def test_all_devices_are_as_many_as_divide_the_batch(caplog):
    """Six sequences on eight devices: six of them, and the log says so."""
    caplog.set_level("INFO", "chinchilla_jax")
    automatic = small_run(batch_size=6, training={"data_parallel": 0})
    assert sharding.make_mesh(automatic.execution, 6).shape["data"] == 6
    assert "6 of 8 devices, the most that divide 6 sequences" in caplog.text
    fsdp = small_run(training={"data_parallel": 0, "fsdp": 2}).execution
    assert dict(sharding.make_mesh(fsdp, 6).shape) == {"data": 3, "fsdp": 2, "tensor": 1}
    assert sharding.make_mesh(fsdp, 8).shape["data"] == 4
