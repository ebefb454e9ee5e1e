"""Experts in training: on every mesh, balanced, resumed, and stopped where a router fails."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.techniques import Techniques, trained_shape
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.training import sharding, techniques
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import evaluate
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.techniques import HOOKS
from chinchilla_jax.training.transfers import place
from tests.training.helpers import small_run
from tests.training.test_loop import curve, numbers, train_with_interruptions

ALONE = {"data_parallel": 1, "steps_per_dispatch": 2, "layers": "unrolled"}
MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2, "layers": "scan"}


def with_experts(run, **config):
    asked = Techniques(experts=Experts(**config))
    return dataclasses.replace(run, techniques=asked, model=trained_shape(run.model, asked))


CASES = {
    "modern": ("modern", {"routed": 8, "per_token": 2, "shared": 2}),
    "chinchilla": ("chinchilla", {"routed": 4, "balance": "loss", "router_weight": 1e-3}),
    "capacity": ("modern", {"routed": 4, "capacity": 1.0}),
}


def case(name, training=ALONE, steps=4):
    definition, config = CASES[name]
    run = small_run(steps=steps, training=training, model={"definition": definition})
    return with_experts(run, **config)


def trained(run, text_corpus):
    """Metrics of its steps, the loss of its end on the same windows, and the state."""
    compiled = compiled_for(run)
    where = jax.NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
    history = []
    with jax.set_mesh(compiled.mesh):
        state = initial_state(compiled.method, compiled.shardings, run.seed)
        for step in range(0, run.steps, 2):
            examples = np.arange(2 * run.batch_size) + step * run.batch_size
            tokens = np.asarray(text_corpus.examples(0, examples, run.sequence_length), np.int32)
            batch = place(tokens.reshape(2, run.batch_size, -1), where)
            state, metrics = compiled.train(
                state, batch, np.full(2, 0.01, np.float32), np.float32(0.01), np.int32(2)
            )
            history.append({name: np.asarray(x) for name, x in metrics.items()})
        windows = np.asarray(text_corpus.examples(0, np.arange(8), run.sequence_length), np.int32)
        evaluated = evaluate(compiled, state, windows, 128)["loss"]
    joined = {name: np.concatenate([h[name] for h in history]) for name in history[0]}
    return joined, evaluated, jax.device_get(state)


@pytest.fixture(scope="module")
def alone(text_corpus):
    found = {}

    def of(name):
        if name not in found:
            found[name] = trained(case(name), text_corpus)
        return found[name]

    return of


@pytest.mark.parametrize(
    "name,training",
    [
        ("modern", MESH | {"microbatch": 4}),
        ("chinchilla", MESH | {"tensor": 4, "data_parallel": 1, "layers": "unrolled"}),
        ("capacity", MESH | {"microbatch": 4}),
    ],
)
def test_meshes_layers_and_microbatches_train_alike(alone, text_corpus, name, training):
    (metrics, loss, state), (others, other, same) = (
        alone(name), trained(case(name, training), text_corpus)
    )  # fmt: skip
    for key in ("loss", "grad_norm", "experts_dropped", "experts_largest_load"):
        np.testing.assert_allclose(others[key], metrics[key], rtol=2e-4, err_msg=key)
    assert other == pytest.approx(loss, rel=2e-4)
    for key, held in state.techniques["experts"].items():
        np.testing.assert_allclose(same.techniques["experts"][key], held, atol=0.02, err_msg=key)


def test_experts_lie_over_the_mesh():
    compiled = compiled_for(case("modern", MESH))
    experts = compiled.shardings.params["layers"]["experts"]
    assert experts["expert_up"].spec == jax.sharding.PartitionSpec(None, "tensor", "fsdp", None)
    shape = compiled.abstract_state.params["layers"]["experts"]["expert_up"].shape
    assert experts["expert_up"].shard_shape(shape) == (2, 4, 16, 16)


def test_picks_add_up_and_none_is_dropped_without_a_capacity(alone):
    for name, drops in (("modern", False), ("capacity", True)):
        run = case(name)
        metrics, _, state = alone(name)
        held = state.techniques["experts"]
        load_LxE = held["load"].reshape(2, -1) / run.steps
        np.testing.assert_allclose(load_LxE.sum(1), run.model.expert_picks, rtol=1e-5)
        assert (held["dropped"] > 0) == drops == bool(np.all(metrics["experts_dropped"] > 0))
        assert np.all(metrics["experts_largest_load"] >= 1)
        assert not np.any(metrics["experts_bad_layer"])


def test_biases_follow_the_loads_and_only_where_they_balance(alone):
    """By hand for the first step, from the loads of its own."""
    run = case("modern")
    run = dataclasses.replace(run, steps=2)
    step = techniques.HOOKS["experts"].update
    facts = techniques.hooked(run)[0].facts
    load_LxE = np.array([[0.5, 0.25, 0.1, 0.15, 0.4, 0.2, 0.2, 0.2], [0.25] * 8])
    held = {"bias": jnp.zeros(16), "load": jnp.zeros(16), "dropped": jnp.float32(0)}
    means = {"router_load": jnp.asarray(load_LxE), "router_dropped": jnp.zeros(2)}
    after = step(held, means, run.techniques.experts, facts)
    expected = 1e-3 * np.sign(0.25 - load_LxE).reshape(-1)
    np.testing.assert_allclose(after["bias"], expected, atol=1e-9)
    assert np.any(alone("modern")[2].techniques["experts"]["bias"] != 0)
    assert "bias" not in alone("chinchilla")[2].techniques["experts"]


def test_what_balances_by_loss_is_minimised_and_not_part_of_the_curve(alone, text_corpus):
    strong = case("chinchilla")
    config = dataclasses.replace(strong.techniques.experts, loss_weight=3.0)
    strong = dataclasses.replace(strong, techniques=Techniques(experts=config))
    (some, _, _), (others, _, _) = alone("chinchilla"), trained(strong, text_corpus)
    assert some["loss"][0] == others["loss"][0] and some["grad_norm"][0] < others["grad_norm"][0]
    assert np.all(some["loss"][1:] != others["loss"][1:])


def test_interrupted_it_ends_to_the_bit_as_uninterrupted(text_corpus, tmp_path):
    run = case("modern", MESH, steps=12)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    row = train(run, text_corpus, whole)
    again = train_with_interruptions(run, text_corpus, broken, (4, 8))
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    assert row["experts_routed"] == 8 and row["experts_dropped"] == 0
    assert 1 < row["experts_largest_load"] < 4
    lines = whole.metrics()
    assert all(line["experts_largest_load"] >= 1 for line in lines)


@pytest.mark.parametrize("training", [ALONE, MESH])
def test_a_router_that_fails_ends_the_run_and_its_layer_is_named(
    text_corpus, tmp_path, monkeypatch, training
):
    """NaN with the sign bit set, which top_k ranks last: the second layer's, of one expert."""

    def broken(state, config, run, sources):
        def one(path, w):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not name.endswith("experts/router") or "layers_0" in name:
                return w
            bad = -np.float32(np.nan)
            host = np.array(w)
            host[(1, 0, 3) if host.ndim == 3 else (0, 3)] = bad
            return place(host, w.sharding)

        return state.replace(params=jax.tree_util.tree_map_with_path(one, state.params))

    hooks = dataclasses.replace(HOOKS["experts"], start=broken)
    monkeypatch.setattr(techniques, "HOOKS", {**HOOKS, "experts": hooks})
    row = train(case("modern", training), text_corpus, RunDirectory(tmp_path))
    assert row["status"] == "diverged" and row["loss"] is None
    assert row["reason"] == "a router logit of layer 2 is not finite at step 1"


def test_experts_that_do_not_divide_the_mesh_are_one_line_before_anything_is_compiled():
    run = with_experts(small_run(training=MESH), routed=5)
    with pytest.raises(UserError, match=r"execution\.tensor = 2: does not divide 5, a dimension"):
        compiled_for(run)
