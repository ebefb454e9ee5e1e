"""Counts against the published tables; against Flax and XLA see tests/models/test_counting.py."""

import csv
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment import ladder
from chinchilla_jax.experiment.config import CONVENTIONS
from chinchilla_jax.experiment.counting import (
    chinchilla_forward,
    count_params,
    flops_per_step,
    flops_per_token,
)
from chinchilla_jax.experiment.model import ModelConfig

# Hoffmann et al. 2022, Table A4: layers, d_model, d_ff, heads, head size, FLOPs over 6 N D.
TABLE_A4 = (
    (10, 640, 2560, 10, 64, 1.03),
    (20, 1024, 4096, 16, 64, 1.10),
    (24, 1280, 5120, 10, 128, 1.08),
    (26, 1792, 7168, 14, 128, 1.04),
    (28, 2048, 8192, 16, 128, 1.03),
    (40, 3584, 14336, 28, 128, 0.99),
)


def shape(definition="modern", vocab=256, width=64, depth=2, heads=4, kv=4, head=16, ff=192):
    return ModelConfig(
        definition=definition,
        vocab_size=vocab,
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=kv,
        head_size=head,
        ff_size=ff,
    )


def test_all_rows_of_table_a9_within_0_8_percent():
    path = ladder.TABLES / "chinchilla_table_a9.csv"
    with path.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    shapes = ladder.read_table("chinchilla_table_a9")
    assert len(rows) == len(shapes) == 50
    for row, model in zip(rows, shapes, strict=True):
        millions = count_params(model).total / 1e6
        assert millions == pytest.approx(float(row["params_million"]), rel=0.008), row


@pytest.mark.parametrize("depth,width,ff,heads,head,ratio", TABLE_A4)
def test_table_a4_to_two_decimals(depth, width, ff, heads, head, ratio):
    model = shape("chinchilla", 32000, width, depth, heads, heads, head, ff)
    forward = chinchilla_forward(model, 2048)
    layers = sum(flops for part, flops in forward.items() if part not in ("embedding", "logits"))
    assert round(3 * layers / (6 * count_params(model).total * 2048), 2) == ratio


def test_six_nd_is_six_n_d():
    model = shape()
    assert flops_per_step(model, 3, 7, "six_nd") == 6 * count_params(model).total * 21


def test_matmul_by_hand():
    """One layer, no grouping: each product m x k x n counted as 2 m k n, three times."""
    model = shape(width=8, depth=1, heads=2, kv=1, head=4, ff=16, vocab=10)
    tokens, sequence = 2 * 5, 5
    products = 2 * tokens * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 8 * 10)
    attention = 2 * (2 * 2 * sequence * sequence * 8)
    assert flops_per_step(model, 2, sequence, "matmul") == 3 * (products + attention)


@given(
    st.sampled_from(CONVENTIONS),
    st.sampled_from(("modern", "chinchilla")),
    st.integers(1, 64),
    st.integers(1, 512),
)
def test_a_token_costs_what_one_more_sequence_costs(convention, definition, batch, sequence):
    model = shape(definition)
    more = flops_per_step(model, batch + 1, sequence, convention)
    less = flops_per_step(model, batch, sequence, convention)
    assert isinstance(more, int)
    assert (more - less) / sequence == flops_per_token(model, sequence, convention)


def test_groups_add_up_and_grow_with_what_they_count():
    plain, grouped = count_params(shape()), count_params(shape(kv=1))
    assert plain.total == sum(
        (plain.embedding, plain.readout, plain.attention, plain.feed_forward, plain.norms)
    )
    assert plain.attention - grouped.attention == 2 * 2 * 64 * 3 * 16
    for field, part in itertools.product(("feed_forward",), (shape(ff=193),)):
        assert getattr(count_params(part), field) - getattr(plain, field) == 2 * 3 * 64
    tied = count_params(shape("chinchilla"))
    assert tied.readout == 0 and tied.embedding == 256 * 64
    assert tied.matmul == tied.attention + tied.feed_forward + 2 * 64 * 64 + 256 * 64
