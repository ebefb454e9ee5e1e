"""Fused attention as an accelerator would get it, read off programs lowered for one here.

None of it runs on a GPU or a TPU: cuDNN's calls are counted and their shapes read, the TPU's kernel
runs in Pallas' interpreter, and what surrounds a kernel on a mesh runs with another in its place.
"""

import dataclasses
import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.products import TURNED, Products
from chinchilla_jax.training import compiled, devices, kernels, sharding
from tests.training.helpers import small_run

MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2}
CUDNN = re.compile(r"@__cudnn\$fmhaSoftmax(\w*)\(.*: \(tensor<(\w+)>, tensor<(\w+)>")
SHAPE = {"width": 64, "heads": 8, "kv_heads": 4, "head_size": 64, "ff_size": 64}


def lowered(platform, monkeypatch, sequence=128, model=None, **training):
    """The text of a training step as this code makes it where JAX runs on `platform`."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(devices, "platform", lambda: platform)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(compiled, "_compiled", compiled._compiled.__wrapped__)  # nothing is kept
    run = small_run(sequence=sequence, model=SHAPE | (model or {}), training=MESH | training)
    program = compiled.compiled_for(run)
    tokens = jax.ShapeDtypeStruct((1, run.batch_size, sequence + 1), np.int32)
    scalar, count = (jax.ShapeDtypeStruct((), t) for t in (np.float32, np.int32))
    rates = jax.ShapeDtypeStruct((1,), np.float32)
    with jax.set_mesh(program.mesh):
        traced = program.train.trace(program.abstract_state, tokens, rates, scalar, count)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("layers,depth", [("scan", 1), ("unrolled", 2)])
@pytest.mark.parametrize(
    "remat,again", [("auto", 0), ("none", 0), ("attention", 0), ("dots", 0), ("full", 1)]
)
def test_cudnn_attends_forward_and_backward_on_each_devices_part(
    remat, again, layers, depth, monkeypatch
):
    """Eight sequences over data x fsdp, eight and four heads over tensor; grouped, not repeated.

    Only `full` computes attention again: `dots` keeps what the backward kernel needs.
    """
    text = lowered("cuda", monkeypatch, remat=remat, layers=layers)
    calls = CUDNN.findall(text)
    shapes = ("2x128x4x64xbf16", "2x128x2x64xbf16")
    forward, backward = ("", *shapes), ("Backward", *shapes)
    assert sorted(calls) == sorted(depth * ((1 + again) * [forward] + [backward]))
    assert "128x128x" not in text.replace(" ", "")  # no scores anywhere


@pytest.mark.parametrize("remat,calls", [("none", 3), ("dots", 3), ("full", 4)])
def test_a_tpu_gets_its_kernel(remat, calls, monkeypatch):
    """Forward, and one call each for dq and for dk and dv."""
    assert lowered("tpu", monkeypatch, remat=remat).count("@tpu_custom_call(") == calls


@pytest.mark.parametrize(
    "platform,sequence,model,training",
    [
        ("cuda", 128, {"head_size": 12}, {}),
        ("cuda", 128, {"head_size": 136}, {}),
        ("cuda", 128, {}, {"dtype": "float32"}),
        ("cuda", 127, {}, {}),
        ("cuda", 128, {"definition": "chinchilla", "kv_heads": 8}, {}),
        ("rocm", 128, {}, {}),
        ("tpu", 64, {}, {}),
        ("tpu", 128, {"head_size": 32}, {}),
    ],
)
def test_what_a_kernel_does_not_take_goes_our_own_way(
    platform, sequence, model, training, monkeypatch
):
    text = lowered(platform, monkeypatch, sequence, model, **training)
    assert "cudnn" not in text and "tpu_custom_call" not in text


def test_gpus_before_ampere_have_no_such_kernel():
    class Turing:
        compute_capability = "7.5"

    class Mesh:
        devices = np.array([Turing()], object)

    model = ModelConfig(**SHAPE, depth=1)
    assert kernels.fused_attention("cuda", Mesh(), model, jnp.bfloat16, 128) is None


def test_a_kernel_on_a_mesh_computes_what_one_device_does():
    mesh = sharding.make_mesh(small_run(training=MESH).execution)
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    shapes = ((8, 16, 4, 8), (8, 16, 2, 8), (8, 16, 2, 8))
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def gradients(attend):
        value = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v)))  # noqa: E731
        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*qkv)

    split = gradients(kernels.on_mesh(library, mesh))
    assert {a.sharding.shard_shape(a.shape) for a in split} == {(2, 16, 2, 8), (2, 16, 1, 8)}
    for a, b in zip(split, gradients(library), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_step_with_a_kernel_is_the_step_without(monkeypatch):
    """The whole program, on eight devices, with a kernel that a CPU has too."""
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    kernel = kernels.Kernel(library, head_multiple=1, head_most=128, sequence_multiple=1)
    run = small_run(training=MESH | {"dtype": "bfloat16", "remat": "dots", "layers": "scan"})
    monkeypatch.setattr(compiled, "_compiled", compiled._compiled.__wrapped__)  # nothing is kept

    def loss():
        program = compiled.compiled_for(run)
        params = jax.tree.map(
            lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape),
            program.abstract_state.params,
        )
        tokens = np.arange(8 * 17, dtype=np.int32).reshape(8, 17)
        with jax.set_mesh(program.mesh):
            return program.method.model.fused, np.asarray(program.evaluate(params, {}, tokens))

    (none, own) = loss()
    monkeypatch.setitem(kernels.KERNELS, "cpu", kernel)
    (fused, other) = loss()
    assert none is None and fused is not None
    np.testing.assert_allclose(own, other, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("head_size", [64, 128])
def test_the_kernel_of_tpus_in_the_interpreter(head_size):
    q = jax.random.normal(jax.random.key(0), (2, 256, 4, head_size))
    k, v = jax.random.normal(jax.random.key(1), (2, 2, 256, 2, head_size))
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)

    def run(attend):
        value = lambda *qkv: jnp.sum(jnp.sin(attend(*qkv)))  # noqa: E731
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(q, k, v)

    actual = run(functools.partial(kernels.splash, interpret=True))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(run(library)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_options_of_xla_are_for_several_gpus_and_leave_the_users_alone(monkeypatch):
    assert devices.compiler_options(8, 128) == {}
    monkeypatch.setattr(devices, "platform", lambda: "cuda")
    assert devices.compiler_options(1, 128) == {}
    options = devices.compiler_options(8, 128)
    assert options
    # XLA refuses an option that it does not know, on every platform.
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_latency_hiding_scheduler=false")
    left = devices.compiler_options(8, 128)
    assert options.keys() - left.keys() == {"xla_gpu_enable_latency_hiding_scheduler"}
    assert all(name in options for name in left)


@pytest.mark.parametrize(("width", "library"), [(32, True), (64, False)])
def test_products_of_one_cpu_device_are_shared_by_its_threads_where_that_pays(
    monkeypatch, width, library
):
    monkeypatch.delenv("XLA_FLAGS")
    options = devices.compiler_options(1, width)
    product = jax.jit(jnp.matmul, compiler_options=options)
    x = jnp.ones((256, 256))
    assert ("ynn_fusion" in product.lower(x, x).compile().as_text()) == library
    assert devices.compiler_options(8, width) == {}
    assert devices.products(8, width) == Products()
    assert (devices.products(1, width) == TURNED) == (not library)
    assert ("xla_backend_optimization_level" in options) == library
    given = "--xla_cpu_experimental_ynn_fusion_type= --xla_backend_optimization_level=2"
    monkeypatch.setenv("XLA_FLAGS", given)
    assert devices.compiler_options(1, width) == {}


def test_flags_of_a_process_are_the_users_where_they_name_the_same():
    ours = devices.with_our_flags("")
    assert "xla_cpu_disable_tiled_emitter" in ours and ours in os.environ["XLA_FLAGS"]
    assert devices.with_our_flags("--xla_a=1") == f"--xla_a=1 {ours}"
    for given in (ours, "--xla_backend_extra_options=xla_cpu_optimize_for_size", "flags.txt"):
        assert devices.with_our_flags(given) == given


def test_the_state_is_updated_in_place():
    """Every byte of it is donated: a step holds one state, not two."""
    program = compiled.compiled_for(run := small_run(training=MESH))
    tokens = jax.ShapeDtypeStruct((4, run.batch_size, run.sequence_length + 1), np.int32)
    scalar, count = (jax.ShapeDtypeStruct((), t) for t in (np.float32, np.int32))
    rates = jax.ShapeDtypeStruct((4,), np.float32)
    with jax.set_mesh(program.mesh):
        lowered = program.train.lower(program.abstract_state, tokens, rates, scalar, count)
    state = sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(program.abstract_state)
    )
    assert lowered.compile().memory_analysis().alias_size_in_bytes == state


def test_only_parameters_decide_the_shapes_of_a_state():
    model = Decoder(ModelConfig(**SHAPE, depth=1), fused=lambda q, k, v: 1 / 0)
    from chinchilla_jax.training.initial import abstract_state
    from chinchilla_jax.training.method import dense
    from chinchilla_jax.training.optimizers import optimizer_of

    abstract_state(dense(model, optimizer_of(small_run().optimizer, model.config), 4096, 1))


def test_automatic_remat_keeps_all_on_a_cpu_and_products_on_an_accelerator(monkeypatch):
    training = small_run().training
    assert devices.remat(training) == "none"
    monkeypatch.setattr(devices, "platform", lambda: "tpu")
    assert devices.remat(training) == "dots"
    assert devices.remat(dataclasses.replace(training, remat="full")) == "full"
