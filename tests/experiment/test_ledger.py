"""The ledger by hand, against the counts it is made of, and under the hands of a technique."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment.config import CONVENTIONS
from chinchilla_jax.experiment.counting import count_params, flops_per_step
from chinchilla_jax.experiment.ledger import ledger
from tests.training.helpers import small_run

SHAPE = {"width": 8, "heads": 2, "kv_heads": 2, "head_size": 4, "ff_size": 16, "vocab_size": 10}


def of(definition="modern", **changes):
    return ledger(small_run(sequence=5, model=SHAPE | {"definition": definition} | changes))


def test_inference_by_hand():
    """Two FLOPs a weight; 2 x 5 x 8 for each product of a layer's 8 query numbers with 5 keys."""
    modern = of(depth=1, kv_heads=1)
    weights = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 8 * 10
    assert modern.decode == 2 * weights + 2 * (2 * 5 * 8) == 1472
    assert modern.prefill == modern.decode
    relative = of("chinchilla", depth=3)
    weights = 3 * (4 * 8 * 8 + 2 * 8 * 16) + 8 * 10
    assert relative.decode == 2 * weights + 3 * 3 * (2 * 5 * 8) == 3952
    assert relative.prefill == relative.decode + 3 * 2 * 8 * 8
    assert relative.context == 5


def test_the_columns_of_a_run_of_the_quickstart():
    """1e11-8x2-s0, as its results.csv had it before there was a ledger."""
    run = small_run(
        steps=5651, batch_size=8, sequence=64,
        model={
            "width": 8, "depth": 2, "heads": 1, "kv_heads": 1, "head_size": 8, "ff_size": 24,
            "vocab_size": 256,
        },
    )  # fmt: skip
    before = {
        "flops_matmul": 99992862720, "flops_chinchilla": 138878976000,
        "flops_six_nd": 101242773504, "params_total": 5832, "params_embedding": 2048,
        "params_readout": 2048, "params_non_embedding": 1736, "params_matmul": 3712,
        "params_active": 5832,
    }  # fmt: skip
    columns = ledger(run).columns()
    assert {name: columns[name] for name in before} == before
    assert columns.pop("params_average_density") == 1
    assert all(type(value) is int for value in columns.values())


@given(st.sampled_from(["modern", "chinchilla"]), st.integers(1, 100), st.integers(1, 64))
def test_the_ledger_is_the_counts_and_steps(definition, steps, batch):
    run = small_run(steps=steps, batch_size=batch, model=SHAPE | {"definition": definition})
    columns, count = ledger(run).columns(), count_params(run.model)
    for convention in CONVENTIONS:
        step = flops_per_step(run.model, batch, run.sequence_length, convention)
        assert columns[f"flops_{convention}"] == steps * step
    assert columns["flops_forward"] + columns["flops_backward"] == columns["flops_matmul"]
    for group in ("total", "non_embedding", "matmul", "active", "attention", "norms"):
        assert columns[f"params_{group}"] == getattr(count, group)
    assert columns["params_nonzero"] == count.total
    assert columns["bytes_at_rest"] == 4 * count.total
    # Forward passes of one sequence: distances are projected once for each.
    single = dataclasses.replace(run, batch_size=1)
    tokens = single.steps * single.sequence_length
    assert ledger(single).training["forward"] == tokens * columns["inference_flops_prefill"]


def less(more, ledger):
    """By how much the columns of one exceed those of another."""
    columns, others = more.columns(), ledger.columns()
    return {k: v - others.get(k, 0) for k, v in columns.items() if v != others.get(k, 0)}


@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_half_of_the_hidden_weights_are_zero(definition):
    dense = of(definition)
    sparse = dense.change("hidden", lambda w: w.pruned(w.stored // 2))
    distances = 2 * 8 * 8 if definition == "chinchilla" else 0  # their projection
    hidden = 2 * (4 * 8 * 8 + (2 if distances else 3) * 8 * 16) + distances
    assert less(dense, sparse) == {
        "params_nonzero": hidden // 2,
        "params_nonzero_non_embedding": hidden // 2,
        "inference_flops_prefill": hidden,
        "inference_flops_decode": hidden - distances,
    }


def test_hidden_weights_of_four_bits_and_the_forward_pass_of_a_teacher():
    dense = of()
    hidden = 2 * (4 * 8 * 8 + 3 * 8 * 16)
    quantised = dense.change("hidden", lambda w: w.of_bits(4))
    assert less(dense, quantised) == {"bytes_at_rest": hidden * 7 // 2}
    assert dense.weights[0].stored == 80
    assert [dense.weights[0].of_bits(bits).bytes_at_rest for bits in (1, 3, 16)] == [10, 30, 160]
    assert dataclasses.replace(dense.weights[0], stored=7).of_bits(3).bytes_at_rest == 3
    taught = dense.add("teacher", 1000).add("teacher", 500)
    totals = dict.fromkeys((f"flops_{convention}" for convention in CONVENTIONS), 1500)
    assert less(taught, dense) == {**totals, "flops_teacher": 1500}
