"""The hooks of techniques: folded into the step, carried, split, saved, resumed, evaluated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.models.products import Products
from chinchilla_jax.training import sharding, techniques
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import evaluate
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import Interrupted, train
from chinchilla_jax.training.method import dense
from chinchilla_jax.training.step import METRICS, train_step, train_steps
from chinchilla_jax.training.techniques import HOOKS, Hooks, hooked, method_of
from chinchilla_jax.training.transfers import place
from tests.techniques.toy import toy, with_toy  # noqa: F401
from tests.training.helpers import small_run
from tests.training.test_loop import curve, numbers

MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}


def halved(decoder, config, facts):
    """Products with one parameter are halved."""

    def linear(name, x, w):
        return (x @ w) * (0.5 if name == "gate" else 1.0)

    return decoder.clone(products=Products(linear=linear))


def masked(inner, config, facts):
    """Some numbers of every `down` do not count."""

    def weights(params, carried):
        def one(path, weight, mask):
            return weight * mask if "down" in str(path[-1]) else weight

        inside = inner(params, carried)
        return jax.tree_util.tree_map_with_path(one, inside, carried["toy"]["mask"])

    return weights


def dimmed(inner, config, facts):
    """Hidden states a tenth smaller, and how many there were."""

    def forward(weights, carried, tokens):
        inputs, sums = inner(weights, carried, tokens)
        counted = sums | {"toy_tokens": jnp.float32(inputs.targets_T.size)}
        return inputs._replace(x_TxD=inputs.x_TxD * 0.9), counted

    return forward


def penalised(inner, config, facts):
    """Cross-entropy and a penalty on the hidden states, which are logged apart."""

    def loss(inputs, carried, tokens):
        nats, sums = inner(inputs, carried, tokens)
        penalty = jnp.sum(jnp.mean(inputs.x_TxD.astype(jnp.float32) ** 2, axis=-1))
        seen = jnp.bincount(inputs.targets_T, length=4).astype(jnp.float32)
        sums = sums | {"loss": nats, "toy_penalty": penalty, "seen": seen}
        return nats + config.level * penalty, sums

    return loss


def begin(params, config, facts):
    return {
        "mask": jax.tree.map(lambda p: jnp.ones_like(p).at[..., ::3].set(0.0), params),
        "seen": jnp.zeros(4),
        "horizon": jnp.int32(0),
    }


def update(own, means, config, facts):
    mask = jax.tree.map(lambda m: jnp.roll(m, 1, axis=-1), own["mask"])
    return {**own, "mask": mask, "seen": own["seen"] + means["seen"] * facts.batch_size}


def start(state, config, run, sources):
    """Half the weights, and a number that only the run knows."""
    own = state.techniques["toy"]
    horizon = place(np.int32(run.steps), own["horizon"].sharding)
    return state.replace(
        params=jax.tree.map(lambda p: p * 0.5, state.params),
        techniques={"toy": {**own, "horizon": horizon}},
    )


def finish(state, config, run, evaluate):
    own = state.techniques["toy"]
    whole = jax.tree.map(jnp.ones_like, own["mask"])
    unmasked = evaluate(state.replace(techniques={"toy": {**own, "mask": whole}}))
    return {
        "toy_unmasked_loss": unmasked["loss"],
        "toy_horizon": int(own["horizon"]),
        "toy_seen": float(own["seen"].sum()),
        "toy_moved": float(own["mask"]["readout"][0, 16]),  # 1 at first, rolled 16 times since
    }


TOY_HOOKS = Hooks(
    model=halved,
    optimizer=lambda tx, config, facts: optax.chain(tx, optax.trace(0.1)),
    weights=masked,
    forward=dimmed,
    loss=penalised,
    metrics=("toy_penalty", "toy_tokens"),
    begin=begin,
    update=update,
    start=start,
    corpus=lambda corpus, config, run: dataclasses.replace(corpus, train=corpus.train[:2001]),
    finish=finish,
)


@pytest.fixture
def hooks(toy, monkeypatch):  # noqa: F811
    """The toy technique with all its hooks."""
    monkeypatch.setattr(techniques, "HOOKS", {**HOOKS, "toy": TOY_HOOKS})


def run_on(mesh=MESH, steps=16, **values):
    run = small_run(steps=steps, training=mesh)
    return with_toy(run, **({"level": 0.5} | values))


def train_text(run):
    """The training step of a run as JAX traces it."""
    compiled = compiled_for(run)
    return traced(compiled, compiled.train.__wrapped__)


def traced(compiled, function):
    shape = (4, 8, 17)
    arrays = (jax.ShapeDtypeStruct(shape, np.int32), jax.ShapeDtypeStruct((4,), np.float32))
    scalars = (jax.ShapeDtypeStruct((), t) for t in (np.float32, np.int32))
    with jax.set_mesh(compiled.mesh):
        return str(jax.make_jaxpr(function)(compiled.abstract_state, *arrays, *scalars))


@pytest.mark.parametrize("training", [MESH, {"data_parallel": 1, "microbatch": 2}])
def test_off_the_step_is_the_one_without_hooks(hooks, training):
    """To the letter of its jaxpr, built by hand; on, it is another."""
    run = small_run(training=training)
    compiled = compiled_for(run)
    parts = sharding.batch_divisor(compiled.mesh)
    plain = dense(compiled.method.model, compiled.method.tx, run.training.loss_chunk_tokens, parts)
    microbatches = run.batch_size // (run.execution.microbatch or run.batch_size)

    def step(*arguments):
        return train_step(*arguments, method=plain, microbatches=microbatches)

    def by_hand(*arguments):
        return train_steps(*arguments, step=step, metrics=METRICS)

    off = with_toy(run, level=0.0)
    assert compiled_for(off) is compiled
    assert train_text(off) == traced(compiled, by_hand)
    assert train_text(with_toy(run, level=0.5)) != train_text(off)


def test_off_what_is_written_is_what_a_dense_run_writes(hooks, text_corpus, tmp_path):
    run = small_run(steps=2, training=MESH)
    off = with_toy(run, level=0.0)
    rows = [
        train(r, text_corpus, RunDirectory(tmp_path / name))
        for name, r in (("dense", run), ("off", off))
    ]
    assert to_json(off) == to_json(run) and "techniques" not in to_json(run)
    written = [(tmp_path / name / "config.json").read_bytes() for name in ("dense", "off")]
    assert written[0] == written[1]
    assert numbers(rows[0]) == numbers(rows[1])
    assert curve(RunDirectory(tmp_path / "dense")) == curve(RunDirectory(tmp_path / "off"))


def test_it_is_carried_split_saved_resumed_and_evaluated(hooks, text_corpus, tmp_path):
    run = run_on()
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    row = train(run, text_corpus, whole)
    seen = [0]
    with pytest.raises(Interrupted):
        train(
            run, text_corpus, broken, lambda: seen[0] >= 6,
            lambda done, loss: seen.__setitem__(0, done),
        )  # fmt: skip
    again = train(run, text_corpus, broken)
    assert numbers(again) == numbers(row) and curve(broken) == curve(whole)
    assert row["toy_level"] == 0.5 and row["toy_kind"] == "plain"
    assert row["toy_horizon"] == 16 and row["toy_moved"] == 0.0
    assert 0 < row["toy_seen"] < 16 * 8  # a few of the tokens, summed up over all steps
    assert row["toy_unmasked_loss"] != pytest.approx(row["loss"], abs=1e-6)
    assert row["unique_tokens"] == 2000 == run.tokens - 48
    assert row["flops_toy"] == 10 * run.tokens
    assert row["flops"] == row["flops_forward"] + row["flops_backward"] + row["flops_toy"]
    assert row["params_nonzero"] < row["params_total"]
    lines = whole.metrics()
    assert lines[-1]["flops"] == row["flops"]
    assert all(line["toy_penalty"] > 0 and line["toy_tokens"] == 1.0 for line in lines)
    assert lines[0]["loss"] == pytest.approx(5.545, abs=0.2)  # cross-entropy without the penalty


def test_its_state_lies_with_the_parameters_it_is_named_after(hooks):
    compiled = compiled_for(run_on())
    own, params = compiled.shardings.techniques["toy"], compiled.shardings.params
    for mask, parameter in zip(jax.tree.leaves(own["mask"]), jax.tree.leaves(params), strict=True):
        assert mask.spec == parameter.spec
    assert any(spec.spec != P() for spec in jax.tree.leaves(own["mask"]))
    assert own["seen"].is_fully_replicated and own["horizon"].is_fully_replicated


def test_a_matrix_that_is_called_like_no_parameter_is_one_line(hooks, monkeypatch):
    broken = dataclasses.replace(TOY_HOOKS, begin=lambda params, *_: {"other": jnp.zeros((4, 4))})
    monkeypatch.setattr(techniques, "HOOKS", {"toy": broken})
    with pytest.raises(UserError, match=r"techniques/toy/other \[4, 4\]"):
        compiled_for(run_on())


def two_steps(run, text_corpus):
    """Metrics of its first two steps, and the loss of the initial state on their windows."""
    compiled = compiled_for(run)
    windows = np.asarray(text_corpus.examples(0, np.arange(8), 16), np.int32)
    where = jax.NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
    with jax.set_mesh(compiled.mesh):
        state = initial_state(compiled.method, compiled.shardings, 0)
        evaluated = evaluate(compiled, state, windows, 128)["loss"]
        tokens = place(windows[None].repeat(2, 0), where)
        rates = np.full(2, 0.01, np.float32)
        _, metrics = compiled.train(state, tokens, rates, np.float32(0), np.int32(2))
    return {name: np.asarray(values) for name, values in metrics.items()}, evaluated


def alone(**execution):
    return {"data_parallel": 1, "steps_per_dispatch": 2} | execution


@pytest.mark.parametrize("mesh", [alone(), MESH])
def test_what_is_evaluated_is_what_is_trained(hooks, text_corpus, mesh):
    """The training loss before any update, and that of evaluation on the same windows."""
    metrics, evaluated = two_steps(run_on(mesh), text_corpus)
    assert metrics["loss"][0] == pytest.approx(evaluated, rel=1e-6)


def test_microbatches_add_up_what_it_sums(hooks, text_corpus):
    whole, parts = (two_steps(run_on(alone(microbatch=size)), text_corpus)[0] for size in (0, 2))
    for name in ("loss", "toy_penalty", "toy_tokens"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)


def test_its_loss_does_not_reach_the_curve_but_its_gradient_reaches_the_weights(hooks, text_corpus):
    """Twice the penalty: the same cross-entropy at the first step, other weights after it."""
    some, more = (
        two_steps(run_on(alone(), level=level), text_corpus)[0]["loss"] for level in (0.5, 1.0)
    )
    assert some[0] == more[0] and some[1] != more[1]


def test_hooks_are_folded_in_the_order_of_the_table():
    def wrap(mark):
        return lambda inner, config, facts: (*inner, mark)

    plain = dense(None, None, 1, 1)
    both = [
        techniques.Hooked(name, Hooks(loss=wrap(name), metrics=(name,)), None, None)
        for name in ("first", "second")
    ]
    method = method_of(None, None, lambda model, tx: dataclasses.replace(plain, loss=()), both)
    assert method.loss == method.metrics == ("first", "second")
    assert method.begin(None) == {} and method.update({"a": 1}, {}) == {"a": 1}


def test_hooks_belong_to_techniques_that_exist_and_a_dense_run_has_none(hooks):
    from chinchilla_jax.techniques import TECHNIQUES

    assert set(HOOKS) <= {technique.name for technique in TECHNIQUES}
    assert hooked(small_run()) == hooked(with_toy(small_run())) == ()


def test_runs_of_other_horizons_share_programs_where_no_hook_can_tell(hooks):
    assert compiled_for(small_run(steps=3)) is compiled_for(small_run(steps=5))
    assert compiled_for(run_on(steps=3)) is not compiled_for(run_on(steps=5))
    assert compiled_for(run_on(steps=3)) is compiled_for(run_on(steps=3))
