"""Weights of few bits: codes and scales as they should be, in training, resumed, on any mesh."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.parameters import PARAMETERS, shape
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.techniques import Techniques, derived
from chinchilla_jax.techniques.quantisation import (
    Quantisation,
    gaussian_error,
    gaussian_step,
    levels,
)
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.training import sharding, sources, techniques
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import at_end
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.loop import train
from chinchilla_jax.training.techniques.quantisation import (
    codes_and_scales,
    grids,
    quantised,
)
from chinchilla_jax.training.transfers import place
from tests.training.helpers import small_run
from tests.training.test_distributed import Job, corpus, data, resolved  # noqa: F401
from tests.training.test_loop import curve, numbers, train_with_interruptions
from tests.training.test_techniques import alone, train_text, two_steps

BITS = (1, 1.58, 2, 3, 4, 6, 8)
MESH = {"data_parallel": 2, "fsdp": 2, "tensor": 2, "steps_per_dispatch": 2}
MODEL = small_run().model


def coded(w, bits, axes=(1,)):
    n = levels(bits)
    program = functools.partial(codes_and_scales, n=n, gaussian=gaussian_step(n), axes=axes)
    return (np.asarray(x) for x in jax.jit(program)(w))


def drawn(*sizes, seed=0):
    return np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)


def by_hand(w, n):
    """Of one group, in float64: three first steps, their codes, and the scale that fits best."""
    w = w.astype(np.float64)

    def codes(step):
        return np.where(w == 0, 0, np.clip(np.floor(w / step + n / 2), 0, n - 1) - (n - 1) / 2)

    ends = 2 * np.abs(w).max() / n
    middle = gaussian_step(n) * np.sqrt(np.sum(w**2) / np.sum(w != 0))
    tried = [codes(step) for step in (ends, middle, np.sqrt(ends * middle))]
    best = max(tried, key=lambda c: (w @ c) ** 2 / (c @ c))
    scale = np.float64(jnp.bfloat16(w @ best / (best @ best)))
    return codes(scale), scale


@pytest.mark.parametrize("bits", BITS)
def test_codes_and_scales_are_those_computed_by_hand(bits):
    w = drawn(50, 24)
    w[3, ::2] = 0
    codes, scales = coded(w, bits)
    for row, code, scale in zip(w, codes, scales, strict=True):
        expected, step = by_hand(row, levels(bits))
        np.testing.assert_array_equal(code, expected)
        assert scale == step


@pytest.mark.parametrize("bits", BITS)
def test_the_error_on_normal_weights_is_that_of_the_best_quantiser(bits):
    w = drawn(24, 16384)
    codes, scales = coded(w, bits)
    best = gaussian_error(levels(bits), gaussian_step(levels(bits)))
    error = np.mean((codes * scales - w) ** 2)
    # No group is infinite, so that its own best may be better.
    assert 0.9 * best < error < 1.01 * best
    assert len(np.unique(codes)) == levels(bits)


@pytest.mark.parametrize("bits", BITS)
def test_it_scales_with_its_weights_and_keeps_what_it_made(bits):
    w = drawn(64, 32)
    codes, scales = coded(w, bits)
    same, twice = coded(2 * w, bits)
    np.testing.assert_array_equal(same, codes)
    np.testing.assert_array_equal(twice, 2 * scales)
    again, _ = coded(codes * scales, bits)
    np.testing.assert_allclose(again * _, codes * scales, rtol=0, atol=0)


def few_bits(params, config, group=0):
    return jax.jit(functools.partial(quantised, grids=grids(config), group=group))(params)


def test_many_bits_are_nearly_the_weights_and_16_are_bfloat16():
    params = {"up": drawn(32, 64), "embedding": drawn(256, 32), "scale": drawn(32)}
    for bits in (8, 6, 4):
        found = few_bits(params, Quantisation(bits=bits))
        for name, width in (("up", bits), ("embedding", 8)):
            largest = np.abs(params[name]).max()
            assert np.abs(found[name] - params[name]).max() < 1.5 * largest / 2**width
        np.testing.assert_array_equal(found["scale"], params["scale"])
    rounded = few_bits(params, Quantisation(bits=16, table_bits=32))
    np.testing.assert_array_equal(rounded["up"], params["up"].astype(jnp.bfloat16))
    np.testing.assert_array_equal(rounded["embedding"], params["embedding"])


@pytest.mark.parametrize("name", ["query", "out", "down", "readout", "embedding"])
def test_a_group_is_of_inputs_of_one_output(name):
    """A weight that grows moves the others of its group, and no others."""
    p = PARAMETERS[name]
    w = drawn(*shape(p.dims, MODEL))
    config = Quantisation(bits=2, table_bits=2, group=8)
    place = tuple(s // 2 for s in w.shape)
    grown = w.copy()
    grown[place] = 40.0
    found, other = (few_bits({name: x}, config, 8)[name] for x in (w, grown))
    moved = np.asarray(found) != np.asarray(other)
    inputs = [p.dims.index(d) for d in (p.fan_in or "D")]
    outputs = [i for i in range(w.ndim) if i not in inputs]
    in_group = np.moveaxis(moved, outputs, range(len(outputs)))[tuple(place[i] for i in outputs)]
    assert moved.sum() == in_group.sum() > 4
    flat = np.ravel_multi_index([place[i] for i in inputs], [w.shape[i] for i in inputs])
    assert set(np.flatnonzero(in_group.ravel()) // 8) == {flat // 8}


def test_zeros_stay_zeros_and_a_group_of_them_has_no_nan():
    w = drawn(16, 32)
    w[::3, ::2], w[5] = 0, 0
    for bits in BITS:
        codes, scales = coded(w, bits)
        assert np.all((codes * scales)[w == 0] == 0) and np.isfinite(codes * scales).all()


def test_scanned_and_unrolled_layers_are_quantised_alike():
    slices = {name: drawn(3, *shape(PARAMETERS[name].dims, MODEL)) for name in ("out", "gate")}
    for group in (0, 8):
        config = Quantisation(bits=3)
        together = few_bits({"layers": slices}, config, group)["layers"]
        for i in range(3):
            apart = few_bits({n: w[i] for n, w in slices.items()}, config, group)
            for name in slices:
                np.testing.assert_array_equal(together[name][i], apart[name])


def run_with(mesh=MESH, steps=16, others=None, **values):
    config = Techniques(quantisation=Quantisation(**values), **(others or {}))
    return dataclasses.replace(small_run(steps=steps, training=mesh), techniques=config)


def test_measuring_afterwards_leaves_the_step_as_it_is():
    dense = small_run(training=MESH)
    assert train_text(run_with(steps=12, after=(4,))) == train_text(dense)
    assert train_text(run_with(steps=12, bits=4)) != train_text(dense)


def test_gradients_go_straight_through_to_the_weights_in_float32(text_corpus):
    """One step of plain descent: by the gradient at the quantised weights, from the others."""
    run = run_with(alone(), bits=2)
    compiled = compiled_for(run)
    with jax.set_mesh(compiled.mesh):
        state = initial_state(compiled.method, compiled.shardings, 0)
        used = jax.jit(compiled.method.weights)(state.params, state.techniques)
    by_name = few_bits(state.params, run.techniques.quantisation)
    jax.tree.map(np.testing.assert_array_equal, used, by_name)
    found = len(np.unique(np.asarray(used["layers_0"]["feed_forward"]["up"])[:, 0]))
    assert found == 4
    metrics, evaluated = two_steps(run, text_corpus)
    assert metrics["loss"][0] == pytest.approx(evaluated, rel=1e-6)
    assert metrics["loss"][1] != metrics["loss"][0]


def test_it_is_the_same_on_a_mesh_scanned_and_in_microbatches(text_corpus):
    everything = {**MESH, "layers": "scan", "microbatch": 4}
    one, other = (
        two_steps(run_with(mesh, bits=3, group=8), text_corpus)[0]["loss"]
        for mesh in (alone(), everything)
    )
    assert other[0] == pytest.approx(one[0], rel=1e-6)
    # Of a weight between two levels the last digit says which it is.
    np.testing.assert_allclose(other, one, rtol=2e-4)


def test_it_begins_late_and_is_resumed_to_the_bit(text_corpus, tmp_path):
    """Up to its start the dense run; killed before the start, and after it."""
    dense, late = small_run(steps=16, training=MESH), run_with(bits=2, start=0.5)
    folders = {name: RunDirectory(tmp_path / name) for name in ("dense", "late", "broken")}
    train(dense, text_corpus, folders["dense"])
    row = train(late, text_corpus, folders["late"])
    losses = {
        name: [line["loss"] for line in folders[name].metrics()] for name in ("dense", "late")
    }
    np.testing.assert_allclose(losses["late"][:8], losses["dense"][:8], rtol=2e-6)
    assert losses["late"][8] > losses["dense"][8] * 1.001  # what the first update of few bits sees
    again = train_with_interruptions(late, text_corpus, folders["broken"], (4, 12))
    assert numbers(again) == numbers(row) and curve(folders["broken"]) == curve(folders["late"])
    assert (row["quantisation_bits"], row["quantisation_start"]) == (2.0, 0.5)


def test_a_run_is_measured_at_other_widths_at_its_end(text_corpus, tmp_path):
    dense = small_run(steps=16, training=MESH)
    rows = [
        train(run, text_corpus, RunDirectory(tmp_path / name))
        for name, run in (("dense", dense), ("on", run_with(after=(8, 2), after_groups=(0, 8))))
    ]
    before, after = map(numbers, rows)
    assert {name: after[name] for name in before} == before
    found = {row["run_id"]: row for row in derived(rows)}
    assert list(found) == ["small-b8", "small-b8g8", "small-b2", "small-b2g8"]
    assert abs(found["small-b8"]["excess_loss"]) < 2e-3 < found["small-b2"]["excess_loss"]
    assert found["small-b2g8"]["excess_loss"] < found["small-b2"]["excess_loss"]
    assert found["small-b2"]["bytes_at_rest"] < found["small-b8"]["bytes_at_rest"]
    assert found["small-b2"]["loss_se"] != before["loss_se"]


def test_what_is_measured_is_what_training_with_so_many_bits_evaluates(text_corpus):
    """The initial state measured at 3 bits, and evaluated as that of a run of 3 bits."""
    windows, losses = text_corpus.validation_windows(16, 16), []
    for run in (run_with(after=(3,)), run_with(bits=3)):
        compiled = compiled_for(run)
        with jax.set_mesh(compiled.mesh):
            state = initial_state(compiled.method, compiled.shardings, 0)
            outcomes, found = at_end(run, compiled, state, windows, {})
            losses.append(found.get("loss_after_b3", outcomes["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_sparse_weights_of_few_bits_keep_their_zeros(text_corpus):
    """After a step that prunes three quarters, those are the zeros that products meet."""
    sparse = Sparsity(level=0.75, ramp_start=0.0, ramp_end=0.5, updates=1)
    run = run_with(steps=2, others={"sparsity": sparse}, bits=3)
    compiled = compiled_for(run)
    tokens = np.asarray(text_corpus.examples(0, np.arange(8), 16), np.int32)[None].repeat(2, 0)
    with jax.set_mesh(compiled.mesh):
        state = initial_state(compiled.method, compiled.shardings, 0)
        where = jax.NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
        rates = np.full(2, 0.01, np.float32)
        state, _ = compiled.train(state, place(tokens, where), rates, np.float32(0), np.int32(1))
        used = jax.jit(compiled.method.weights)(state.params, state.techniques)
    kept, few = (tree["layers_0"]["feed_forward"]["up"] for tree in (state.params, used))
    assert np.mean(np.asarray(kept) == 0) == 0.75
    np.testing.assert_array_equal(np.asarray(few) == 0, np.asarray(kept) == 0)
    assert np.any(np.asarray(few) != np.asarray(kept))


def test_a_teacher_may_be_measured_in_few_bits_but_not_trained_so(monkeypatch):
    def needing(run):
        source = types.SimpleNamespace(run=run, other=types.SimpleNamespace(run="teacher"))
        monkeypatch.setattr(sources, "opened", lambda *_: {"teacher": source})
        return techniques.sources_of(small_run(), None, None)

    assert needing(run_with(after=(4,)))["teacher"].run.techniques.quantisation.after == (4,)
    with pytest.raises(UserError, match=r"computes with other weights .*techniques\.quantisation"):
        needing(run_with(bits=4))


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"after": (4, 2)}, {"bits": 3, "start": 0.5}], ids=str)
def test_two_processes_train_and_measure_as_one(values, data, corpus, tmp_path):  # noqa: F811
    mesh = {"data_parallel": 4, "fsdp": 2, "tensor": 1}
    run = dataclasses.replace(run_with(mesh, **values), data=data)
    row = train(run, corpus, RunDirectory(tmp_path / "alone"))
    argument, directory = resolved(run, tmp_path / "work")
    with Job(2, tmp_path / "work", tmp_path / "notes", argument) as job:
        ends = job.end()
    assert [status for status, _, _ in ends] == [0, 0], ends
    found = directory.result()
    measured = [name for name in row if name.startswith(("loss", "bytes"))]
    assert "loss_after_b2" in measured or "after" not in values
    for name in measured:
        # Of a weight between two levels the last digit says which it is.
        assert found[name] == pytest.approx(row[name], rel=5e-4), name
