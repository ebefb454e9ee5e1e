"""The estimate of memory against XLA's own plan of it, on meshes of eight CPU devices.

What is compared, per device: XLA's arguments (the state and one batch), which the estimate has
exactly, and its temporaries, which it has within ten percent for layers under a scan and float32.
Of unrolled layers XLA keeps less on one device, where it needs no stacks of them (15 %), and more
on a mesh, where its CPU back end adds up all gradients at the end of the step.
"""

import pytest

from chinchilla_jax.experiment import memory
from chinchilla_jax.experiment.meshes import MeshShape
from tests.training.helpers import small_run
from tests.training.programs import compiled_step


def run_on(mesh, definition, remat, **changes):
    training = {"layers": "scan", "loss_chunk_tokens": 4096} | changes.pop("training", {})
    return small_run(
        batch_size=16,
        sequence=changes.pop("sequence", 128),
        model={
            "definition": definition, "width": 128, "depth": 4, "head_size": 16, "ff_size": 384,
            "vocab_size": 1024,
        } | changes,
        training={
            "data_parallel": mesh[0], "fsdp": mesh[1], "tensor": mesh[2], "remat": remat,
        } | training,
    )  # fmt: skip


CASES = [
    ((2, 4, 1), "modern", "dots", {}),
    ((2, 2, 2), "chinchilla", "full", {}),
]
MORE = [
    ((8, 1, 1), "modern", "none", {}),
    ((1, 1, 1), "modern", "full", {}),
    ((2, 4, 1), "chinchilla", "none", {}),
    ((2, 2, 2), "modern", "none", {}),
    ((8, 1, 1), "chinchilla", "dots", {}),
    ((1, 8, 1), "modern", "full", {"training": {"loss_chunk_tokens": 64}}),
    ((4, 2, 1), "modern", "none", {"kv_heads": 4}),
    ((1, 4, 2), "chinchilla", "dots", {"sequence": 256}),
    ((8, 1, 1), "modern", "none", {"training": {"loss_chunk_tokens": 64}}),
    ((1, 1, 1), "chinchilla", "full", {"depth": 8}),
    ((2, 4, 1), "modern", "attention", {}),
]


@pytest.mark.parametrize(
    "mesh,definition,remat,changes",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_bytes_of_a_device(mesh, definition, remat, changes):
    run = run_on(mesh, definition, remat, **changes)
    estimate = memory.estimate(run, MeshShape(*mesh), microbatches=1, compute=4, fused=False)
    analysis = compiled_step(run).memory_analysis()
    batch = 4 * (run.batch_size // (mesh[0] * mesh[1])) * (run.sequence_length + 1)
    assert analysis.argument_size_in_bytes == estimate.state + batch + 8
    assert analysis.alias_size_in_bytes == pytest.approx(estimate.state, abs=16)  # donated
    temporaries = estimate.activations + estimate.temporaries
    assert temporaries == pytest.approx(analysis.temp_size_in_bytes, rel=0.1)
