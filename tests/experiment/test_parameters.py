"""The table of parameters: what derives from it agrees with itself; Flax's tree in tests/models."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment import parameters as table
from chinchilla_jax.experiment.communication import traffic
from chinchilla_jax.experiment.config import CONVENTIONS
from chinchilla_jax.experiment.counting import (
    backward_flops,
    chinchilla_forward,
    count_params,
    flops_per_step,
    forward_flops,
)
from chinchilla_jax.experiment.memory import state_bytes
from chinchilla_jax.experiment.meshes import MeshShape, held, matrices, misfit
from chinchilla_jax.experiment.model import DEFINITIONS, ModelConfig
from chinchilla_jax.experiment.mup import Scaling, initial
from tests.experiment import experts
from tests.training.helpers import small_run


@st.composite
def models(draw):
    definition = draw(st.sampled_from(DEFINITIONS))
    groups = draw(st.integers(1, 4)) if definition == "modern" else 1
    kv_heads = draw(st.integers(1, 12))
    return ModelConfig(
        definition=definition,
        vocab_size=draw(st.integers(1, 70_000)),
        width=2 * draw(st.integers(1, 5_000)),
        depth=draw(st.integers(1, 100)),
        heads=groups * kv_heads,
        kv_heads=kv_heads,
        head_size=2 * draw(st.integers(1, 128)),
        ff_size=draw(st.integers(1, 30_000)),
    )


@given(models())
def test_groups_copies_and_matrices_add_up_to_the_rows(model):
    count, rows = count_params(model), table.parameters(model)
    assert count.total == sum(table.stored(p, model) for p in rows)
    for group in table.GROUPS:
        assert getattr(count, group) == sum(
            table.copies(p, model) * math.prod(table.shape(p.dims, model))
            for p in rows
            if p.group == group
        )
    m = matrices(model)
    vectors = sum(table.stored(p, model) for p in rows if len(p.fan_in + p.chosen) == 0)
    inside = model.depth * (m.layers + m.positions) + m.embedding + m.readout
    assert inside + vectors == count.total
    readout = m.readout or m.embedding
    assert count.matmul == model.depth * (m.layers + m.positions) + readout
    assert count.active == count.total  # nothing is chosen but rows of a table


@given(models(), st.integers(1, 64), st.integers(1, 4096))
def test_flops_are_two_a_weight_and_token_and_the_rest_is_attention(model, batch, sequence):
    forward, m = forward_flops(model, batch, sequence), matrices(model)
    width = model.heads * model.head_size
    scores = 3 if model.definition == "chinchilla" else 2
    tokens = batch * sequence
    distances = 2 * sequence * model.depth * m.positions  # once, whatever the batch
    assert forward == (
        2 * tokens * (count_params(model).matmul - model.depth * m.positions)
        + 2 * scores * model.depth * tokens * sequence * width
        + distances
    )
    backward = backward_flops(model, batch, sequence)
    assert backward == 2 * (forward - distances) + distances
    assert forward + backward == flops_per_step(model, batch, sequence, "matmul")
    assert (
        flops_per_step(model, batch, sequence, "six_nd") == 6 * count_params(model).total * tokens
    )
    parts = chinchilla_forward(model, sequence)
    layers = parts["query_key_value"] + parts["attention_out"] + parts["feed_forward"]
    assert layers == 2 * sequence * model.depth * m.layers


@given(models(), st.integers(1, 16), st.integers(1, 16), st.integers(1, 16))
def test_devices_hold_everything_between_them(model, data, fsdp, tensor):
    """On a mesh that divides the model: matrices once, vectors whole but for the two biases."""
    fits = {
        dimension.field: getattr(model, dimension.field) * (fsdp if letter == "D" else tensor)
        for letter, dimension in table.DIMENSIONS.items()
    }
    model = dataclasses.replace(model, **fits)
    mesh = MeshShape(data, fsdp, tensor)
    assert not misfit(small_run(batch_size=mesh.parts, model=dataclasses.asdict(model)), mesh)
    of_device, whole = held(model, mesh), held(model, MeshShape())
    assert sum(whole) == count_params(model).total
    assert of_device[0] * fsdp * tensor == whole[0]
    biases = 2 * model.depth * model.heads * model.head_size
    split = biases if model.definition == "chinchilla" else 0
    assert of_device[1] == whole[1] - split + split // tensor


def test_what_does_not_divide_is_named():
    run = small_run(batch_size=6, model={"heads": 8, "kv_heads": 2, "width": 36})
    assert misfit(run, MeshShape(1, 8, 1)) == "fsdp 8 does not divide width 36"
    assert misfit(run, MeshShape(1, 1, 4)) == "tensor 4 does not divide kv_heads 2"
    assert misfit(run, MeshShape(4, 1, 1)) == "data x fsdp 4 does not divide batch 6"
    assert misfit(run, MeshShape(3, 2, 2)) == ""


def costs(run):
    """What of a run depends on its parameters, by name."""
    model, mesh = run.model, MeshShape(1, 2, 2)
    count, sent = count_params(model), traffic(run, mesh, microbatches=1, compute=2)
    return {
        "total": count.total,
        "feed_forward": count.feed_forward,
        "active": count.active,
        "matmul": count.matmul,
        **{f"flops_{name}": flops_per_step(model, 1, 5, name) for name in CONVENTIONS},
        "layer": matrices(model).layers,
        "device": sum(held(model, mesh)),
        "state": state_bytes(run, mesh),
        "gathered": sent.gather,
        "reduced": sent.reduce,
    }


def test_a_new_kind_of_parameter_is_a_row_and_a_size():
    """Experts, of which a token meets two of four, and their router, whose FLOPs are apart."""
    dense, found = (
        costs(dataclasses.replace(small_run(batch_size=2), model=model))
        for model in (experts.DENSE, experts.MODEL)
    )
    expert, router = 3 * 3 * 4 * 64 * 128, 3 * 64 * 4
    met = expert // 2 + router
    device = expert // 4 + router // 4  # width over fsdp, experts over tensor
    assert {name: cost - dense[name] for name, cost in found.items()} == {
        "total": expert + router,
        "feed_forward": expert + router,
        "active": met,
        "matmul": met,
        "flops_matmul": 3 * 2 * 5 * (met - router),
        "flops_chinchilla": 3 * 2 * 5 * (met - router),
        "flops_six_nd": 6 * 5 * (met - router),
        "layer": (expert + router) // 3,
        "device": device,
        "state": 12 * device,
        "gathered": 2 * 2 * (expert + router) / 2,
        "reduced": 2 * (expert + router) / 2,
    }
    assert initial(experts.EXPERT, experts.MODEL, Scaling(64)) == (0.0, 1 / 8)
