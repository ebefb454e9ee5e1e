"""Meshes, bytes and seconds from numbers alone."""

import dataclasses
import signal

import pytest

from chinchilla_jax.experiment import estimate, grid
from chinchilla_jax.experiment.communication import traffic
from chinchilla_jax.experiment.counting import count_params, flops_per_step
from chinchilla_jax.experiment.hardware import HARDWARE, by_name
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.memory import state_bytes
from chinchilla_jax.experiment.meshes import MeshShape, held, misfit
from tests.training.helpers import small_run, with_training

H200 = by_name("h200")


def run_of(width, depth, batch=256, sequence=2048, definition="modern", **training):
    return small_run(
        batch_size=batch,
        sequence=sequence,
        model={
            "definition": definition, "width": width, "depth": depth, "heads": width // 64,
            "kv_heads": width // 64, "head_size": 64, "ff_size": 4 * width, "vocab_size": 32768,
        },
        training={"data_parallel": 0, "remat": "auto"} | training,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    cells = grid.plan(load_experiment("configs/chinchilla.py", []))
    return [cell for cell in cells if cell.status == "planned"]


@pytest.mark.parametrize("definition", ["modern", "chinchilla"])
def test_a_mesh_of_one_device_holds_three_copies_of_every_parameter(definition):
    run = run_of(512, 8, definition=definition)
    total = count_params(run.model).total
    assert sum(held(run.model, MeshShape())) == total
    assert state_bytes(run, MeshShape()) == 12 * total + 16
    eighth = state_bytes(run, MeshShape(1, 4, 2))
    assert 12 * total / 8 < eighth < 12 * total / 8 * 1.02


@pytest.mark.parametrize("hardware", HARDWARE, ids=lambda h: h.name)
def test_what_is_suggested_divides_fits_and_stays_within_the_devices(cells, hardware):
    for cell in cells[::20]:
        for devices in (1, 8, 256):
            e = estimate.suggest(cell.run, devices, hardware)
            assert e.mesh.devices <= devices
            assert not misfit(cell.run, e.mesh)
            assert e.batch_per_device * e.microbatches * e.mesh.parts == cell.run.batch_size
            assert e.fits == (e.memory.total <= estimate.USABLE * hardware.memory)
            assert e.fits == (not e.reason)
            assert e.mesh.tensor <= hardware.fast_devices


def test_no_number_of_devices_takes_for_ever(cells):
    def end(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    try:
        found = estimate.suggest(cells[0].run, 999_999_999_999, H200)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert found.mesh == estimate.suggest(cells[0].run, found.mesh.devices, H200).mesh


def test_data_first_then_fsdp_then_tensor():
    small = estimate.suggest(run_of(512, 8), 8, H200)
    assert small.mesh == MeshShape(8, 1, 1)
    large = run_of(4096, 40)
    assert state_bytes(large, MeshShape()) > estimate.USABLE * H200.memory / 2
    assert estimate.suggest(large, 64, H200).mesh.fsdp > 1
    assert estimate.suggest(large, 64, H200).mesh.tensor == 1
    # One sequence cannot be split: only tensor is left.
    one = estimate.suggest(dataclasses.replace(large, batch_size=1), 8, H200).mesh
    assert one.parts == 1 and one.tensor > 1


def test_a_cell_that_fits_no_mesh_says_so():
    e = estimate.suggest(run_of(8192, 80), 1, by_name("v5e"))
    assert not e.fits
    assert "GB" in e.reason and "14.4 GB" in e.reason


def test_microbatches_as_few_as_fit_unless_the_config_says():
    run = run_of(2048, 24, batch=512)
    e = estimate.suggest(run, 8, by_name("h100"))
    assert e.fits and e.microbatches > 1
    fewer = [n for n in range(1, e.microbatches) if 512 // e.mesh.parts % n == 0]
    for n in fewer:
        assert not estimate.on_mesh(run, e.mesh, n, by_name("h100")).fits
    chosen = estimate.suggest(with_training(run, microbatch=16), 8, by_name("h100"))
    assert chosen.microbatches == 32


def test_arithmetic_and_collectives_by_hand():
    """Data parallel over one board: FLOPs over peaks, and gradients around a ring of eight."""
    run = run_of(1024, 12)
    e = estimate.on_mesh(run, MeshShape(8, 1, 1), 1, H200)
    flops = flops_per_step(run.model, 256, 2048, "matmul")
    assert e.arithmetic_seconds == pytest.approx(flops / (8 * 989e12))
    params = count_params(run.model)
    gradients = 2 * (params.total - params.norms) + 2 * params.embedding  # float32 there
    assert e.collective_seconds == pytest.approx(2 * 7 / 8 * gradients / 450e9)
    # Two boards: each of eight sends an eighth of it over the network, once each way.
    two = estimate.on_mesh(run, MeshShape(16, 1, 1), 1, H200)
    network = 2 * (gradients / 8) * (1 / 2) / 50e9
    assert two.collective_seconds == pytest.approx(e.collective_seconds + network)


def test_fsdp_sends_weights_twice_besides():
    run = run_of(1024, 12)
    data = traffic(run, MeshShape(8, 1, 1), microbatches=1, compute=2)
    fsdp = traffic(run, MeshShape(1, 8, 1), microbatches=1, compute=2)
    assert data.gather == 0 and data.reduce == fsdp.reduce
    layers = count_params(run.model).attention + count_params(run.model).feed_forward
    ends = count_params(run.model)
    assert fsdp.gather == 2 * 2 * layers + 4 * ends.embedding + 2 * ends.readout
    assert traffic(run, MeshShape(), microbatches=1, compute=2).reduce == 0


def test_useful_devices_grow_with_the_work():
    counts = [estimate.useful_devices(run_of(w, d, b), 8, H200) for w, d, b in (
        (64, 4, 8), (256, 6, 32), (512, 8, 128), (2048, 24, 512),
    )]  # fmt: skip
    assert counts == sorted(counts)
    assert counts[0] == 1 and counts[-1] == 8
    assert all(8 % count == 0 for count in counts)


def test_more_devices_than_there_are_take_no_longer():
    few, many = (estimate.suggest(run_of(64, 4, 8), n, H200) for n in (8, 999_999_999_999))
    assert many.fits and many.hours > 0 and few.fits


def test_every_cell_of_the_largest_grid_has_an_estimate(cells):
    found = [estimate.suggest(cell.run, 256, H200) for cell in cells]
    assert all(e.fits and e.hours > 0 for e in found)
    text = estimate.footer(found, 256, H200)
    assert f"{len(cells)} of {len(cells)} cells fit 256 x h200" in text
