"""The share of a host that each worker gets: disjoint, complete, and told in the right words."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.estimate import resolve
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.hardware import by_device_kind
from chinchilla_jax.training import placement, worker
from chinchilla_jax.training.placement import Group, Host, Place
from chinchilla_jax.training.sweep import devices_for
from tests.training.helpers import small_run

hosts = st.builds(
    Host,
    platform=st.sampled_from(["cpu", "gpu"]),
    devices=st.integers(1, 16).map(lambda n: tuple(map(str, range(n)))),
    cores=st.integers(1, 24).map(lambda n: tuple(range(3, 3 + n))),
)


def host(platform, devices, cores=2):
    return Host(platform, tuple(map(str, range(devices))), tuple(range(cores)))


@given(hosts, st.integers(1, 16), st.integers(1, 20))
def test_groups_share_no_device_and_none_is_idle_that_could_work(host, size, most):
    if size > len(host.devices):
        with pytest.raises(UserError, match=f"--devices_per_cell={size}: this host has"):
            placement.places(host, size)
        return
    groups = [place.devices for place in placement.places(host, size, most=most)]
    used = [device for group in groups for device in group]
    assert len(groups) == min(most, len(host.devices) // size)
    assert len(set(used)) == len(used) and set(used) <= set(host.devices)
    if host.platform == "gpu":
        assert all(len(group) == size for group in groups)


@given(hosts.filter(lambda host: host.platform == "cpu"), st.data())
def test_cores_follow_their_devices(host, data):
    size = data.draw(st.integers(1, len(host.devices)))
    places = placement.places(host, size, most=data.draw(st.integers(1, 20)))
    assert {place.environment["JAX_NUM_CPU_DEVICES"] for place in places} == {str(size)}
    cores = [core for place in places for core in place.cores]
    assert all(place.cores for place in places) and set(cores) <= set(host.cores)
    if len(host.devices) <= len(host.cores):  # then a core belongs to one device
        assert len(set(cores)) == len(cores)
    if len(host.devices) % len(places) == 0:
        assert set(cores) == set(host.cores)


def test_cores_and_logical_devices_of_a_cpu():
    """Two cores as eight devices: one each for two cells of four, or all for one of eight."""
    four = placement.places(host("cpu", 8), 4)
    assert [place.cores for place in four] == [(0,), (1,)]
    assert {place.environment["JAX_NUM_CPU_DEVICES"] for place in four} == {"4"}
    assert placement.places(host("cpu", 8), 8)[0].cores == (0, 1)
    assert [place.cores for place in placement.places(host("cpu", 8), 1)] == [(0,)] * 4 + [(1,)] * 4
    assert [place.cores for place in placement.places(host("cpu", 2), 1)] == [(0,), (1,)]
    assert [place.cores for place in placement.places(host("cpu", 2), 1, most=1)] == [(0, 1)]


def test_gpus_go_by_cuda_visible_devices():
    box = Host("gpu", ("GPU-a", "GPU-b", "5", "6"), (0,))
    names = [p.environment for p in placement.places(box, 2)]
    gpu = {"JAX_PLATFORMS": "cuda,cpu"}  # so that it never is the CPU instead
    assert names == [
        {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"} | gpu, {"CUDA_VISIBLE_DEVICES": "5,6"} | gpu
    ]  # fmt: skip
    assert not any(place.cores for place in placement.places(box, 2))


@given(st.integers(2, 16), st.integers(1, 8))
def test_cells_that_share_a_gpu_share_its_memory(share, gpus):
    shares = placement.places(host("gpu", gpus), 1, share)
    assert len(shares) == share * gpus
    memory = {}
    for place in shares:
        gpu = place.environment["CUDA_VISIBLE_DEVICES"]
        fraction = float(place.environment["XLA_CLIENT_MEM_FRACTION"])
        memory[gpu] = memory.get(gpu, 0) + fraction
    assert len(memory) == gpus
    assert all(0.7 < fraction < 0.8 for fraction in memory.values())
    assert len({place.devices for place in shares[:gpus]}) == gpus  # one on each before two on any


def test_the_users_memory_fraction_does_not_clash_with_ours():
    shared = placement.places(host("gpu", 1), 1, 2)[0]
    alone = placement.places(host("gpu", 1), 1)[0]
    mine = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5", "HOME": "/h"}
    assert placement.environment(shared, mine) == {"HOME": "/h"} | shared.environment
    assert placement.environment(alone, mine) == mine | alone.environment


def test_tpu_chips_go_by_libtpus_variables():
    two = placement.places(host("tpu", 8), 2)
    assert [p.environment["TPU_VISIBLE_CHIPS"] for p in two] == ["0,1", "2,3", "4,5", "6,7"]
    assert {p.environment["TPU_CHIPS_PER_PROCESS_BOUNDS"] for p in two} == {"1,2,1"}
    ports = {p.environment["TPU_PROCESS_PORT"] for p in two}
    assert len(ports) == 4
    assert all(
        p.environment["TPU_PROCESS_ADDRESSES"].endswith(p.environment["TPU_PROCESS_PORT"])
        for p in two
    )
    assert placement.places(host("tpu", 8), 8)[0].environment == {}  # as the machine says it is
    with pytest.raises(UserError, match="1, 2 or 4 chips"):
        placement.places(host("tpu", 8), 3)
    with pytest.raises(UserError, match="one process"):
        placement.places(host("tpu", 8), 1, 2)


@pytest.mark.parametrize(
    "text,names",
    [("0,1", ("0", "1")), ("", ()), ("-1", ()), ("2,-1,3", ("2",)), ("GPU-x, 1", ("GPU-x", "1"))],
)
def test_what_a_variable_leaves_visible(text, names):
    assert placement.visible(text) == names


def test_gpus_are_counted_by_nvidia_smi():
    listing = (
        "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb Device 0: (UUID: MIG-9)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-2)\n"
    )
    assert placement.gpus_listed(listing) == (("0", "1"), "NVIDIA H200")
    mixed = "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-2)\n"
    assert placement.gpus_listed(mixed) == (("0", "1"), "")
    assert placement.gpus_listed("No devices were found\n") == ((), "")


def test_this_host_reads_the_environment(monkeypatch):
    monkeypatch.setattr(placement, "usable_cores", lambda: (4, 6, 9))
    assert placement.this_host({"JAX_PLATFORMS": "cpu"}).devices == ("0", "1", "2")
    eight = placement.this_host({"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"})
    assert eight == Host("cpu", tuple("01234567"), (4, 6, 9), "cpu")

    def listing(command, **_):
        return SimpleNamespace(
            stdout="GPU 0: NVIDIA H200 (UUID: a)\nGPU 1: NVIDIA H200 (UUID: b)\n"
        )

    monkeypatch.setattr(placement.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(placement.subprocess, "run", listing)
    assert placement.this_host({}) == Host("gpu", ("0", "1"), (4, 6, 9), "NVIDIA H200")
    assert placement.this_host({"CUDA_VISIBLE_DEVICES": "1"}).devices == ("1",)
    assert placement.this_host({"JAX_PLATFORMS": "cpu"}).platform == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "gpu", "tpu", "rocm", "cuda,cpu", "cpux", "no"])
def test_a_platform_that_is_not_here_is_refused_and_never_the_cpu_instead(monkeypatch, asked):
    monkeypatch.setattr(placement, "_gpus", lambda environ: None)
    monkeypatch.setattr(placement, "_chips", lambda environ: None)
    with pytest.raises(UserError, match=f"JAX_PLATFORMS={asked}: .* no {asked[:3]}.* device here"):
        placement.this_host({"JAX_PLATFORMS": asked})
    plugin = SimpleNamespace(name="xla_no")
    monkeypatch.setattr(placement.metadata, "entry_points", lambda group: [plugin])
    if asked == "no":
        assert placement.this_host({"JAX_PLATFORMS": asked}).platform == "other"


@pytest.mark.parametrize("error", [RuntimeError("no\nplugin"), AssertionError()])
def test_a_device_that_jax_finds_not_is_one_line(monkeypatch, tmp_path, error):
    def devices():
        raise error

    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"^JAX has no device .*JAX_PLATFORMS is cuda\): no .*$"):
        worker.prepare_jax(tmp_path)


def test_tpu_chips_are_counted_on_the_pci_bus(tmp_path, monkeypatch):
    monkeypatch.setattr(placement.importlib.util, "find_spec", lambda name: name == "libtpu")
    devices = [("0x1ae0", "0x0063")] * 4 + [("0x1ae0", "0x0042"), ("0x10de", "0x0063")]
    for number, (vendor, device) in enumerate(devices):  # a network card and a GPU among them
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
        (tmp_path / str(number) / "device").write_text(f"{device}\n")
    assert placement._chips({}, tmp_path) == (tuple("0123"), "TPU v5 lite")
    assert placement._chips({"TPU_VISIBLE_CHIPS": "0,3"}, tmp_path)[0] == ("0", "3")
    assert placement._chips({}, tmp_path / "none") is None
    assert all(
        by_device_kind(kind)
        for kind in placement.TPU_KINDS.values()
        if kind not in ("TPU v3", "TPU7x")
    )


def with_mesh(batch, **training):
    return small_run(batch_size=batch, training={"data_parallel": 0} | training)


@pytest.mark.parametrize(
    "run,most,devices",
    [
        (with_mesh(8), 8, 8),
        (with_mesh(6), 8, 6),
        (with_mesh(6), 4, 3),
        (with_mesh(7), 4, 1),
        (with_mesh(8), 5, 4),
        (with_mesh(8, tensor=2), 8, 8),
        (with_mesh(2, tensor=4), 8, 8),
        (with_mesh(6, fsdp=2), 8, 6),
        (with_mesh(8, microbatch=2), 8, 2),
        (with_mesh(8, data_parallel=2), 8, 2),
    ],
)
def test_a_mesh_takes_only_devices_that_get_work(run, most, devices):
    assert placement.mesh_devices(run, most) == devices


def test_a_mesh_that_does_not_fit_is_one_line():
    with pytest.raises(UserError, match="fsdp 4 x tensor 2 needs 8 devices, and gets 4"):
        placement.mesh_devices(with_mesh(8, fsdp=4, tensor=2), 4)


@dataclasses.dataclass(frozen=True)
class FakeCell:
    run: int  # its size: how many devices it gets


@given(st.lists(st.sampled_from([1, 2, 4, 8]), max_size=30), st.integers(1, 3))
def test_classes_of_cells_take_turns_on_the_devices(sizes, share):
    """Played through: every cell is run, and no two classes hold a device at one time."""
    cells = [FakeCell(size) for size in sizes]
    groups = placement.groups(host("gpu", 8), cells, lambda run: run, share)
    queue = {size: sizes.count(size) for size in set(sizes)}
    waiting, alive = list(range(len(groups))), []
    while waiting or alive:
        started = False
        for number in list(waiting):
            before = [groups[n] for n in {*alive, *waiting} if n < number]
            if placement.may_start(groups[number], before):
                waiting.remove(number)
                alive.append(number)
                started = True
        holders = {}
        for number in alive:
            for device in groups[number].place.devices:
                holders.setdefault(device, set()).add(groups[number].cells)
        assert all(len(classes) == 1 for classes in holders.values())
        assert started or alive
        size = groups[alive[0]].cells[0].run
        assert len(groups[alive[0]].place.devices) == size
        if queue[size]:
            queue[size] -= 1
        if not queue[size]:
            alive.pop(0)
    assert not any(queue.values())


def test_a_class_has_no_more_workers_than_cells():
    cells = [FakeCell(1)] * 3 + [FakeCell(4)]
    groups = placement.groups(host("gpu", 8), cells, lambda run: run)
    assert [group.place.devices for group in groups] == [("0",), ("1",), ("2",), tuple("0123")]
    later = Group(Place(tuple("4567")), (cells[3],))
    assert not placement.may_start(groups[3], groups[:3])
    assert placement.may_start(later, groups[:3])  # devices that the first class leaves free


@pytest.mark.parametrize("logical,size", [(8, 4), (8, 1), (2, 2)])
def test_a_worker_sees_its_devices(logical, size):
    """JAX itself, in the environment of a place."""
    place = placement.places(host("cpu", logical), size)[0]
    code = "import jax; print(len(jax.devices()), jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=placement.environment(place, {"PATH": "/usr/bin"}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(size), "cpu"]


H200_BOX = Host("gpu", tuple("01234567"), (0, 1), "NVIDIA H200")


def large_run(width, depth, batch=64, **training):
    model = {
        "width": width, "depth": depth, "heads": width // 64, "kv_heads": width // 64,
        "head_size": 64, "ff_size": 4 * width, "vocab_size": 32000,
    }  # fmt: skip
    return small_run(
        batch_size=batch,
        sequence=2048,
        model=model,
        training={"data_parallel": 0, "dtype": "bfloat16"} | training,
    )


def test_by_itself_a_cell_gets_what_the_plan_says_it_can_use():
    """A small model one GPU, a larger one all; asked for more it gets what is asked."""
    small, large = large_run(256, 4, batch=1), large_run(2048, 24)
    assert devices_for(small, H200_BOX) == 1
    assert devices_for(large, H200_BOX) == 8
    assert devices_for(large, H200_BOX, asked=4) == 4
    assert devices_for(large_run(256, 4), H200_BOX, asked=4) == 4
    assert devices_for(large_run(2048, 24, fsdp=4, data_parallel=1), H200_BOX, asked=8) == 4
    unknown = Host("gpu", tuple("01234567"), (0, 1), "NVIDIA Something")
    assert devices_for(large, unknown) == 1
    assert devices_for(large_run(2048, 24, tensor=2), unknown) == 2
    assert devices_for(large, host("cpu", 8)) == 1


def test_a_run_goes_on_the_mesh_that_fits_unless_it_chooses_one():
    """40 billion parameters in float32 with their moments: 480 GB, on GPUs of 141 GB."""
    hardware = by_device_kind(H200_BOX.kind)
    huge = large_run(8192, 48)
    found = resolve(huge, 8, hardware).execution
    assert found.fsdp * found.tensor >= 4 and found.data_parallel
    assert fingerprint(resolve(huge, 8, hardware)) == fingerprint(huge)
    chosen = large_run(8192, 48, fsdp=2)
    assert resolve(chosen, 8, hardware) == chosen
    assert resolve(huge, 8, None) == huge
