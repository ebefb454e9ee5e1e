"""Sparsity as it is planned and counted: the ramp, exact counts, bytes, and what cannot be."""

import dataclasses
import math

import numpy as np
import pytest

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import dense, facts, ledger
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.techniques import Techniques, carried_bytes
from chinchilla_jax.techniques.sparsity import (
    AVERAGE_SIZE,
    SPARSITY,
    Sparsity,
    possible,
    schedule,
)
from tests.training.helpers import small_run

MODEL = ModelConfig(width=32, depth=2, heads=4, kv_heads=4, head_size=8, ff_size=96)
HIDDEN = 2 * (4 * 32 * 32 + 3 * 32 * 96)


def of(config, steps=1000, model=None):
    run = small_run(steps=steps, model=model or vars(MODEL))
    return ledger(dataclasses.replace(run, techniques=Techniques(sparsity=config)))


def test_the_ramp_is_cubic_from_a_quarter_to_three_quarters():
    found = schedule(Sparsity(level=0.8, updates=20), 1000)
    assert len(found) == 20 and found[0][0] == 275 and found[-1] == (750, 1.0)
    for step, share in found:
        assert share == pytest.approx(1 - (1 - (step - 250) / 500) ** 3)


@pytest.mark.parametrize(
    "start,end", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.25, 0.75), (0.0, 1.0)]
)
@pytest.mark.parametrize("steps", [1, 3, 100, 12345])
def test_every_ramp_ends_with_all_of_the_level_inside_training(start, end, steps):
    found = schedule(Sparsity(level=0.5, ramp_start=start, ramp_end=end), steps)
    at, shares = zip(*found, strict=True)
    assert list(at) == sorted(set(at)) and at[0] >= 1 and at[-1] <= steps
    assert list(shares) == sorted(set(shares)) and shares[-1] == 1.0
    assert len(found) <= 20 and at[-1] in (max(1, round(end * steps)), 1)


def test_zeros_are_counted_to_the_weight():
    plain, found = dense(facts(small_run(model=vars(MODEL)))), of(Sparsity(level=0.3))
    zeros = 2 * (4 * math.floor(0.3 * 1024 + 0.5) + 3 * math.floor(0.3 * 3072 + 0.5))
    assert plain.total("nonzero") - found.total("nonzero") == zeros
    assert found.total("stored") == found.total("active") == plain.total("stored")
    assert plain.prefill - found.prefill == plain.decode - found.decode == 2 * zeros
    tables = of(Sparsity(level=0.75, table_exponent=0.5))  # Frantar et al.: 1 - sqrt(1 - level)
    for name in ("embedding", "readout"):
        (table,) = (w for w in tables.weights if w.name == name)
        assert table.nonzero == table.stored // 2
    vectors = [w for w in tables.weights if w.kind == "vector"]
    assert vectors and all(w.nonzero == w.stored for w in vectors)


def test_training_is_counted_as_it_is_carried_out():
    plain, found = (of(config).columns() for config in (Sparsity(), Sparsity(level=0.75)))
    for convention in ("matmul", "chinchilla", "six_nd"):
        assert found[f"flops_{convention}"] == plain[f"flops_{convention}"]
    assert plain["params_average"] == plain["params_total"] and plain["params_average_density"] == 1


@pytest.mark.parametrize("level", [0.5, 0.75, 0.9])
def test_the_average_over_training_is_that_of_the_cubic(level):
    """1 - .625 level of what is pruned, in the limit of many updates; exactly by hand for few."""
    columns = of(Sparsity(level=level, updates=5000), steps=100_000).columns()
    wanted = columns["params_total"] - 0.625 * level * HIDDEN
    assert columns["params_average"] == pytest.approx(wanted, rel=2e-4)
    assert columns["params_average_density"] == columns["params_average"] / columns["params_total"]
    few = of(Sparsity(level=level, updates=2), steps=8)  # updates after steps 4 and 6
    zeros = np.array([0, 0, 0, 0, 0.875, 0.875, 1, 1]) * level
    by_hand = sum(w.stored for w in few.weights)
    for w in few.weights:
        if w.kind == "hidden":
            by_hand -= 2 * np.mean(np.floor(zeros * (w.stored // 2) + 0.5))
    assert few.average() == pytest.approx(by_hand, rel=1e-12)


def test_bytes_at_rest_are_values_and_their_positions():
    """A bitmap, or a place for each where few are left; never more than dense."""
    plain = of(Sparsity())

    def saved(config):
        return plain.total("bytes_at_rest") - of(config).total("bytes_at_rest")

    assert saved(Sparsity(level=0.5)) == 4 * HIDDEN - (4 * HIDDEN // 2 + HIDDEN // 8)
    assert saved(Sparsity(level=0.5, group_size=4)) == 4 * HIDDEN - (2 * HIDDEN + HIDDEN // 8)
    quarter = HIDDEN // 4  # 1:4, whose place takes two bits
    assert saved(Sparsity(level=0.75, group_size=4)) == 4 * HIDDEN - (4 * quarter + quarter // 4)
    (up,) = (w for w in of(Sparsity(level=0.99)).weights if w.name == "up")
    assert up.nonzero == 2 * 31 and up.bytes_at_rest == math.ceil(62 * (32 + 12) / 8)
    assert saved(Sparsity(level=0.01)) == 0


def test_four_bits_of_what_is_left():
    (up,) = (w for w in of(Sparsity(level=0.5)).weights if w.name == "up")
    assert up.of_bits(4).bytes_at_rest == up.stored * (0.5 * 4 + 1) / 8
    assert up.of_bits(1).bytes_at_rest == up.stored / 8  # all of them take less


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"level": 1.0}, r"level = 1.0: must lie in \[0, 1\)"),
        ({"level": -0.1}, "level = -0.1"),
        ({"level": 0.5, "ramp_start": 0.6, "ramp_end": 0.5}, r"ramp_end = 0.5: .* = \[0.6, 1\]"),
        ({"level": 0.5, "ramp_end": 1.1}, "ramp_end = 1.1"),
        ({"level": 0.5, "ramp_start": -0.1}, "ramp_start = -0.1"),
        ({"level": 0.5, "updates": 0}, "updates = 0"),
        ({"level": 0.6, "group_size": 4}, "group_size = 4: .* level = 0.6 .* 2:4 is level .5"),
        ({"level": 0.5, "group_size": 1}, "group_size = 1"),
        ({"level": 0.5, "group_size": -4}, "group_size = -4"),
        ({"level": 0.5, "table_exponent": -1.0}, "table_exponent = -1.0"),
    ],
)
def test_a_configuration_that_means_nothing_is_one_line(fields, message):
    with pytest.raises(UserError, match=f"^techniques.sparsity.{message}") as raised:
        Sparsity(**fields)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"level": 0.9999}, "level = 0.9999: of the 1024 weights of query .* prunes 1024"),
        ({"level": 0.0001}, "level = 0.0001: of the 1024 weights of query .* prunes 0"),
        ({"level": 0.5, "group_size": 64}, "group_size = 64: does not divide the 32 inputs of que"),
        ({"level": 2 / 3, "group_size": 3}, "group_size = 3: does not divide the 32 inputs"),
        ({"level": 0.999, "table_exponent": 2.0}, "level = 0.999: of the 8192 weights of embedd"),
    ],
)
def test_what_a_shape_cannot_have_is_one_line_before_anything_is_planned(fields, message):
    with pytest.raises(UserError, match=f"^techniques.sparsity.{message}") as raised:
        possible(MODEL, Sparsity(**fields))
    assert "\n" not in str(raised.value)
    ladder = LadderConfig(shapes=(MODEL,), sizes_per_budget=(0,))
    with pytest.raises(UserError, match=message):
        plan(
            Experiment(
                name="t", budgets=(1e11,), ladder=ladder,
                techniques=Techniques(sparsity=Sparsity(**fields)),
            )
        )  # fmt: skip


def test_a_grid_over_levels_pairs_each_with_its_dense_run():
    cells = plan(
        Experiment(
            name="t", budgets=(3e11,),
            ladder=LadderConfig(widths=(24, 32), sizes_per_budget=(0,)),
            vary={"techniques.sparsity.level": (0.0, 0.5, 0.75)},
        )
    )  # fmt: skip
    assert [c.run.run_id.split("-", 2)[2] for c in cells] == ["sp0-s0", "sp0.5-s0", "sp0.75-s0"] * 2
    for size in (cells[:3], cells[3:]):
        assert (
            len({(c.params, c.tokens, c.flops, c.run.batch_size, c.run.steps) for c in size}) == 1
        )


@pytest.mark.parametrize("level", [0.5, 0.75])
def test_a_laws_price_is_the_average_of_the_ledger(level):
    """C = 6 N D (1 - .625 S) / (1 - S), N non-zero (Frantar et al. 2023), is 6 times Jin's N D."""
    found = of(Sparsity(level=level, updates=5000), steps=100_000)
    average = sum(w.average for w in found.weights if w.kind == "hidden")
    nonzero = sum(w.nonzero for w in found.weights if w.kind == "hidden")
    assert average / nonzero == pytest.approx(SPARSITY.price({"sparsity": level}), rel=2e-4)
    columns = {"params": 1e8, "tokens": 1e9}
    dense = AVERAGE_SIZE.completed(columns)
    assert dense["params_average"] == 1e8 and SPARSITY.completed(columns)["nonzero_params"] == 1e8
    assert SPARSITY.price(SPARSITY.completed({})) == 1


def test_at_level_zero_a_ramp_or_a_group_makes_no_run_of_its_own():
    ramps = {"techniques.sparsity.ramp_end": (0.5, 0.75), "techniques.sparsity.group_size": (0, 4)}
    cells = plan(
        Experiment(
            name="t", budgets=(3e11,), ladder=LadderConfig(widths=(32,)),
            vary={"techniques.sparsity.level": (0.0, 0.5), **ramps},
        )
    )  # fmt: skip
    planned = [cell.run for cell in cells if cell.status == "planned"]
    assert len(cells) == 8 and len(planned) == 5
    assert planned[0].techniques == Techniques()
    assert "is the same run as" in cells[1].reason


def test_masks_are_carried_in_a_byte_each():
    run = dataclasses.replace(
        small_run(model=vars(MODEL)), techniques=Techniques(sparsity=Sparsity(level=0.5))
    )
    assert carried_bytes(run.techniques, facts(run)) == HIDDEN
    tables = Techniques(sparsity=Sparsity(level=0.5, table_exponent=1.0))
    assert carried_bytes(tables, facts(run)) == HIDDEN + 2 * 256 * 32
