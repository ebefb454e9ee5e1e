"""Experts as they are planned and counted, without JAX, and what cannot be."""

import dataclasses

import pytest

from chinchilla_jax.experiment.config import CONVENTIONS, Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.meshes import MeshShape, misfit
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.techniques import Techniques, trained_shape
from chinchilla_jax.techniques.experts import Experts, with_experts
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.sparsity import Sparsity
from tests.training.helpers import small_run

MODEL = ModelConfig(width=32, depth=2, heads=4, kv_heads=4, head_size=8, ff_size=96)


def of(model=MODEL, **config):
    techniques = Techniques(experts=Experts(**config))
    run = small_run(model=vars(model))
    return dataclasses.replace(run, techniques=techniques, model=with_experts(
        run.model, techniques.experts))  # fmt: skip


def experiment(**changes):
    ladder = LadderConfig(widths=(24, 32), sizes_per_budget=(0,), min_tokens_per_param=0.1)
    return Experiment(**({"name": "t", "budgets": (1e11,), "ladder": ladder} | changes))


@pytest.mark.parametrize(
    "config,shared,size",
    [
        ({"routed": 4}, 0, 96),
        ({"routed": 8, "per_token": 2}, 0, 48),
        ({"routed": 8, "per_token": 2, "shared": 1}, 32, 32),
        ({"routed": 64, "per_token": 6, "shared": 2, "granularity": 12}, 16, 8),
    ],
)
def test_what_a_run_holds_and_meets(config, shared, size):
    run = of(**config)
    assert (run.model.ff_size, run.model.expert_size) == (shared, size)
    columns, dense = ledger(run).columns(), ledger(small_run(model=vars(MODEL))).columns()
    routed, picks = config["routed"], config.get("per_token", 1)
    router = 2 * 32 * routed
    of_width = 2 * 3 * 32  # layers, matrices, inputs
    assert columns["params_feed_forward"] == of_width * (shared + routed * size) + router
    met = of_width * (shared + picks * size) + router
    rest = dense["params_total"] - of_width * 96
    assert columns["params_active"] == rest + met
    assert columns["params_total"] == columns["params_nonzero"] == rest + (
        of_width * (shared + routed * size) + router
    )  # fmt: skip
    assert columns["bytes_at_rest"] == 4 * columns["params_total"]
    extra = met - of_width * 96
    assert columns["inference_flops_decode"] - dense["inference_flops_decode"] == 2 * extra
    assert columns["flops_router"] == 6 * router * run.tokens
    for name in CONVENTIONS:
        grown = columns[f"flops_{name}"] - dense[f"flops_{name}"]
        assert grown == 6 * extra * run.tokens, name


def test_one_expert_is_the_dense_run():
    dense = plan(experiment())
    one = plan(experiment(techniques=Techniques(experts=Experts(routed=1, shared=3))))
    assert [cell.run for cell in one] == [cell.run for cell in dense]
    assert Techniques(experts=Experts(routed=1)) == Techniques()


def test_runs_have_the_tokens_of_their_dense_partners_in_every_convention():
    for convention in CONVENTIONS:
        cells = plan(
            experiment(flops_convention=convention, vary={"techniques.experts.routed": (1, 4, 8)})
        )
        assert len(cells) == 6
        for dense, *others in (cells[:3], cells[3:]):
            for cell in others:
                assert (cell.tokens, cell.run.steps) == (dense.tokens, dense.run.steps)
                assert cell.params > 1.5 * dense.params
    assert [c.run.run_id.split("-", 2)[2] for c in cells[:3]] == ["E1-s0", "E4-s0", "E8-s0"]


def test_a_row_tells_of_experts_by_the_techniques_columns_alone():
    run = of(routed=4)
    told = {name for name in row_of(run) if "expert" in name}
    assert told == {f"experts_{f.name}" for f in dataclasses.fields(Experts)}


@pytest.mark.parametrize(
    "values,message",
    [
        ({"routed": 0}, r"routed = 0: must be 1 \(dense\) or more"),
        ({"routed": 4, "per_token": 4}, "per_token = 4: must be at least 1 and fewer than routed"),
        ({"routed": 4, "per_token": 0}, "per_token = 0: must be at least 1"),
        ({"routed": 4, "shared": -1}, "shared = -1: must be 0 or more"),
        ({"routed": 4, "granularity": -2}, "granularity = -2: must be 0 or more"),
        ({"routed": 4, "bias_rate": -1.0}, "bias_rate = -1.0: must be 0 or more"),
        ({"routed": 4, "balance": "lose"}, "balance = 'lose': expected bias or loss or none; did"),
        ({"routed": 4, "capacity": 0.5}, r"capacity = 0.5: must be 0 .* 1 \(an equal split\)"),
    ],
)
def test_a_configuration_that_means_nothing_is_one_line(values, message):
    with pytest.raises(UserError, match=rf"^techniques\.experts\.{message}") as raised:
        Experts(**values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"routed": 8, "granularity": 5}, "granularity = 5: does not divide the feed-forward size"),
        ({"routed": 8, "per_token": 3, "shared": 2}, r"granularity = 5 \(per_token \+ shared"),
    ],
)
def test_a_network_that_does_not_divide_into_experts_is_one_line(values, message):
    with pytest.raises(UserError, match=rf"^techniques\.experts\.{message}.* near it are 3, 4, 6"):
        with_experts(MODEL, Experts(**values))
    shapes = LadderConfig(shapes=(MODEL,), sizes_per_budget=(0,))
    with pytest.raises(UserError, match="does not divide the feed-forward size 96 of width 32"):
        plan(experiment(ladder=shapes, techniques=Techniques(experts=Experts(**values))))


def test_experts_that_the_mesh_does_not_divide_are_named():
    run = of(routed=6, model=dataclasses.replace(MODEL))
    assert misfit(run, MeshShape(1, 1, 4)) == "tensor 4 does not divide experts 6"
    assert misfit(run, MeshShape(2, 2, 2)) == ""


def test_a_ladder_has_no_experts_of_its_own():
    shape = with_experts(MODEL, Experts(routed=4))
    with pytest.raises(UserError, match=r"a ladder has dense shapes; techniques\.experts\.routed"):
        LadderConfig(shapes=(shape,))


@pytest.mark.parametrize(
    "other,message",
    [
        ({"sparsity": Sparsity(level=0.5, group_size=32)}, "does not divide the 24 inputs of expe"),
        (
            {"quantisation": Quantisation(bits=4.0, group=32)},
            "does not divide the 24 inputs of exp",
        ),
    ],
)
def test_what_other_techniques_cannot_do_to_experts_is_one_line(other, message):
    """The dense shape has inputs of 32 and 96, which groups of 32 divide."""
    trained_shape(MODEL, Techniques(**other))
    with pytest.raises(UserError, match=message):
        trained_shape(MODEL, Techniques(experts=Experts(routed=8, per_token=4), **other))
