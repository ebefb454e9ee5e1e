"""What devices send each other, counted in compiled programs, is what the formula says.

Counted in float32: XLA's CPU back end widens bfloat16 before it sends it. It also adds gradients
up everywhere where GPUs and TPUs scatter them: a payload is that of either.
"""

from collections import Counter

import pytest

from chinchilla_jax.experiment.communication import traffic
from chinchilla_jax.experiment.meshes import MeshShape
from tests.training.helpers import small_run
from tests.training.hlo import collectives
from tests.training.programs import compiled_step

WIDTH, DEPTH, VOCAB, BATCH, SEQUENCE = 64, 3, 320, 16, 24


def run_on(mesh, definition="modern", **training):
    return small_run(
        batch_size=BATCH,
        sequence=SEQUENCE,
        model={
            "definition": definition, "width": WIDTH, "depth": DEPTH, "head_size": 8,
            "ff_size": 192, "vocab_size": VOCAB,
        },
        training={"data_parallel": mesh[0], "fsdp": mesh[1], "tensor": mesh[2], "layers": "scan"}
        | training,
    )  # fmt: skip


def axes_of(groups, mesh):
    """Which mesh axes the groups of devices run along; tensor is the innermost."""
    _, fsdp, tensor = mesh
    first = set(groups[0])
    assert 0 in first
    axes = ((1, tensor, "tensor"), (tensor, fsdp, "fsdp"), (tensor * fsdp, mesh[0], "data"))
    names = [name for stride, size, name in axes if size > 1 and stride in first]
    sizes = {"data": mesh[0], "fsdp": fsdp, "tensor": tensor}
    count = 1
    for name in names:
        count *= sizes[name]
    assert len(first) == count, f"{groups[0]} on {mesh}"
    return "+".join(sorted(names))


def counted(run, mesh):
    """Bytes by (kind, axes), in arrays of at least two dimensions and in the rest."""
    matrices, vectors = Counter(), Counter()
    for c in collectives(compiled_step(run).as_text()):
        key = c.kind, axes_of(c.groups, mesh)
        for dtype, shape in c.shapes:
            size = 4
            for n in shape:
                size *= n
            assert dtype in ("f32", "s32")
            # [1, C], chunks of the loss, are vectors of tokens.
            large = sum(n > 1 for n in shape) >= 2
            (matrices if large else vectors)[key] += size * c.times
    return matrices, vectors


CASES = [
    ((8, 1, 1), "modern", {}),
    ((2, 4, 1), "modern", {}),
    ((2, 2, 2), "chinchilla", {"loss_chunk_tokens": 32}),
]
MORE = [
    ((1, 8, 1), "chinchilla", {"remat": "full"}),
    ((1, 8, 1), "modern", {"remat": "attention"}),
    ((1, 4, 2), "modern", {"remat": "full"}),
    ((1, 1, 8), "chinchilla", {}),
    ((2, 2, 2), "modern", {"layers": "unrolled", "remat": "dots"}),
    ((4, 2, 1), "chinchilla", {"remat": "dots", "loss_chunk_tokens": 32}),
    ((2, 4, 1), "modern", {"microbatch": 8}),
]


@pytest.mark.parametrize(
    "mesh,definition,training",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_collectives_send_what_the_formula_says(mesh, definition, training):
    run = run_on(mesh, definition, **training)
    matrices, vectors = counted(run, mesh)
    micro = run.batch_size // (run.execution.microbatch or run.batch_size)
    expected = traffic(run, MeshShape(*mesh), microbatches=micro, compute=4)
    batch_axes = "+".join(n for n, size in zip(("data", "fsdp"), mesh, strict=False) if size > 1)
    wanted = {
        ("all-gather", "fsdp"): expected.gather,
        ("all-reduce", batch_axes): expected.reduce,
        ("all-reduce", "tensor"): expected.tensor,
    }
    assert dict(matrices) == {key: size for key, size in wanted.items() if size}
    # Gains and biases, norms of the gradient, and per token the sums of the loss: no more.
    assert sum(vectors.values()) <= micro * small(run, mesh)


def small(run, mesh):
    """A generous bound on vectors: eight of the width a layer, eight numbers a token."""
    model = run.model
    tokens = run.batch_size * run.sequence_length // (mesh[0] * mesh[1])
    return 4 * (8 * (model.depth + 1) * model.width + 8 * tokens + 1000)


@pytest.mark.parametrize("mesh,definition,training", CASES[1:])
def test_nothing_is_gathered_but_weights(mesh, definition, training):
    """No activation is, and no table over tensor: the largest gathers are named one by one."""
    run = run_on(mesh, definition, **training)
    tokens = BATCH * SEQUENCE
    t = mesh[2]
    weights = {
        (WIDTH, 8 // t, 8), (8 // t, 8, WIDTH), (WIDTH, 192 // t), (192 // t, WIDTH),
        (VOCAB // t, WIDTH), (WIDTH, VOCAB // t),
    }  # fmt: skip
    for c in collectives(compiled_step(run).as_text()):
        assert c.kind in ("all-gather", "all-reduce"), c
        for _, shape in c.shapes:
            assert tokens not in shape, c
            if c.kind == "all-gather":
                assert tuple(n for n in shape if n > 1) in weights, c
                assert axes_of(c.groups, mesh) == "fsdp", c
