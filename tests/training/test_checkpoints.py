"""Checkpoints: bit-identical, on any mesh, verified, refused for another run, safe to kill."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training import verified
from chinchilla_jax.training.checkpoints import Checkpoints, Meta

META: Meta = {
    "horizon": 400,
    "batch_size": 8,
    "data": "d0d0",
    "tokenizer": "bytes",
    "model_version": 2,
    "fingerprint": "c0c0",
}


class TrainState(NamedTuple):
    params: dict
    opt_state: tuple
    step: jax.Array


def make_state(step: int, mesh: tuple[int, int] = (1, 1), width: int = 64) -> TrainState:
    """A state that is a function of `step`, split over a (data, tensor) mesh."""
    devices = jax.make_mesh(
        mesh,
        ("data", "tensor"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.devices()[: mesh[0] * mesh[1]],
    )
    key = jax.random.fold_in(jax.random.key(0), step)
    params = {
        "layer_0": {"query": jax.random.normal(key, (width, width))},
        "embedding": jax.random.normal(key, (256, width)).astype(jnp.bfloat16),
        "gain": jnp.full((width,), 1 + step / 7),
    }
    opt_state = optax.adamw(1e-3).init(params)
    opt_state = jax.tree.map(lambda leaf: leaf + jnp.asarray(step / 3, leaf.dtype), opt_state)

    def place(leaf: jax.Array) -> jax.Array:
        spec = PartitionSpec("data", "tensor") if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(devices, spec))

    return jax.tree.map(place, TrainState(params, opt_state, jnp.int32(step)))


def abstract(state: TrainState) -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_identical(restored: TrainState, expected: TrainState) -> None:
    """The same structure, types and bits, and every array split as expected."""
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert got.dtype == want.dtype
        assert got.sharding.is_equivalent_to(want.sharding, want.ndim)
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


def save_all(folder: Path, *steps: int, keep: int = 2, meta: Meta = META) -> None:
    with Checkpoints(folder, keep, meta) as manager:
        manager.restore_latest(abstract(make_state(0)))
        for step in steps:
            manager.save(step, make_state(step))


def restore(folder: Path, meta: Meta = META, like: TrainState | None = None):
    with Checkpoints(folder, 2, meta) as manager:
        return manager.restore_latest(abstract(make_state(0) if like is None else like))


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("saved_on", [(8, 1), (2, 4)])
def test_a_state_returns_bit_identical_on_its_mesh_and_on_another(tmp_path, saved_on, asynchronous):
    state = make_state(20, saved_on)
    query = state.params["layer_0"]["query"]
    assert query.addressable_shards[0].data.size * 8 == query.size  # it really is split
    with Checkpoints(tmp_path, 2, META, asynchronous) as manager:
        manager.save(20, state)
    for mesh in (saved_on, (1, 1), (4, 2)):
        expected = make_state(20, mesh)
        restored, step = restore(tmp_path, like=expected)
        assert step == 20
        assert_identical(restored, expected)


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def spoil(state):
        return jax.tree.map(jnp.zeros_like, state)

    state = make_state(5, (8, 1))
    with Checkpoints(tmp_path, 2, META, asynchronous=True) as manager:
        manager.save(5, state)
        for _ in range(3):
            state = spoil(state)
    assert_identical(restore(tmp_path)[0], make_state(5))


def test_nothing_to_restore_costs_no_orbax_and_makes_no_folder(tmp_path):
    code = (
        "import sys; from chinchilla_jax.training.checkpoints import Checkpoints\n"
        f"with Checkpoints({str(tmp_path / 'none')!r}, 2, {META!r}) as c:\n"
        "    assert c.restore_latest(None) is None\n"
        "assert 'orbax.checkpoint' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "none").exists()


def test_the_newest_stay_and_a_step_is_saved_once(tmp_path):
    save_all(tmp_path, 10, 20, 30, 40, keep=3)
    assert kept(tmp_path) == {"20", "30", "40"}
    before = (tmp_path / "40").stat().st_mtime_ns
    save_all(tmp_path, 40, keep=3)
    assert (tmp_path / "40").stat().st_mtime_ns == before
    with Checkpoints(tmp_path, 3, META) as manager, pytest.raises(ValueError, match="40"):
        manager.save(35, make_state(35))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 500), ("batch_size", 16), ("data", "dead"), ("tokenizer", "spm"),
        ("model_version", 3), ("fingerprint", "x"),
    ],
)  # fmt: skip
def test_another_run_is_refused_with_both_values(tmp_path, field, value):
    save_all(tmp_path, 10)
    other = {**META, "fingerprint": "all others differ with it", field: value}
    with pytest.raises(UserError) as error:
        restore(tmp_path, other)
    message = str(error.value)
    assert f"{field} = {META[field]}" in message and str(value) in message
    assert "\n" not in message
    assert restore(tmp_path)[1] == 10  # refused, not touched


def test_another_model_is_refused_by_the_first_array_that_differs(tmp_path):
    save_all(tmp_path, 10)
    with pytest.raises(UserError, match=r"float32\[64,64\].*float32\[32,32\]|bfloat16.*256,32"):
        restore(tmp_path, like=make_state(0, width=32))
    fewer = make_state(0)._replace(opt_state=())
    with pytest.raises(UserError, match=r"opt_state\.0\.count = int32\[\], this run has absent"):
        restore(tmp_path, like=fewer)


# Damage. Each function harms one file, or the folder, of the newest checkpoint.


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """64 bytes in the middle, or all there are."""
    data = bytearray(path.read_bytes())
    start = max(0, len(data) // 2 - 32)
    for i in range(start, min(start + 64, len(data))):
        data[i] ^= 0x55
    path.write_bytes(data)


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = random.Random(path.name).randrange(len(data))
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_all(folder, 10, 20)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(p.relative_to(folder) for p in (folder / "20").rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", [truncate, flip, flip_one_bit, Path.unlink])
def test_damage_to_any_file_is_named_and_skipped(saved, tmp_path, caplog, damage):
    """To data, to Orbax's metadata and to our record alike; nothing else is printed."""
    for file in files(saved):
        folder = tmp_path / "run"
        shutil.copytree(saved, folder)
        damage(folder / file)
        caplog.clear()
        state, step = restore(folder)
        assert step == 10
        assert_identical(state, make_state(10))
        (line,) = [r.getMessage() for r in caplog.records]
        assert str(folder / "20") in line and file.name in line and "\n" not in line
        assert kept(folder) == {"10", "damaged-20-1"}
        shutil.rmtree(folder)
    assert len(files(saved)) > 10


def test_a_run_goes_on_after_damage(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for number in (1, 2):
        truncate(tmp_path / "20" / "record.json")
        save_all(tmp_path, 20)
        assert restore(tmp_path)[1] == 20
        assert kept(tmp_path) == {"10", "20", *(f"damaged-20-{n + 1}" for n in range(number))}


def test_other_values_than_were_given_to_orbax_are_found_by_the_digest(saved, tmp_path, caplog):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "20"
    other = make_state(20)
    other.params["gain"] = other.params["gain"].at[3].multiply(1 + 1e-6)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(newest / "default", verified.flatten(other), force=True)
    record = json.loads((newest / "record.json").read_text())
    del record["seal"]
    names = [name for name in storage.files(newest) if name != "record.json"]
    record["files"] = verified.file_digests(newest, names)
    record["seal"] = verified.seal(record)
    (newest / "record.json").write_text(json.dumps(record))
    assert restore(tmp_path)[1] == 10
    assert "the array params.gain is not the one that was written" in caplog.text


def test_a_copied_or_empty_step_is_not_the_latest(tmp_path, caplog):
    save_all(tmp_path, 10, 20)
    shutil.copytree(tmp_path / "20", tmp_path / "30")
    (tmp_path / "40").mkdir()
    state, step = restore(tmp_path)
    assert step == 20
    assert_identical(state, make_state(20))
    assert "its folder is empty" in caplog.text and "that of step 20" in caplog.text


def test_nothing_usable_means_from_the_start(tmp_path):
    save_all(tmp_path, 10)
    truncate(tmp_path / "10" / "record.json")
    assert restore(tmp_path) is None
    save_all(tmp_path, 10)
    assert restore(tmp_path)[1] == 10


WRITER = """
import sys
sys.path.insert(0, {here!r})
from test_checkpoints import META, Checkpoints, abstract, make_state
with Checkpoints({folder!r}, 2, META) as manager:
    found = manager.restore_latest(abstract(make_state(0)))
    start = found[1] if found else 0
    for step in range(start + 1, start + 1000):
        manager.save(step, make_state(step))
        print(step, flush=True)
"""


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
def test_kill_9_loses_nothing_that_was_saved(tmp_path, seed):
    """Killed at a random moment of the saving, deletion included, twice in a row."""
    moment = random.Random(seed)
    code = WRITER.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as p:
            for _ in range(4):  # beyond the first deletion
                last = int(p.stdout.readline())
            time.sleep(moment.uniform(0, 0.3))
            p.send_signal(signal.SIGKILL)
            last = max([last, *map(int, p.stdout.read().split())])
        state, step = restore(tmp_path)
        assert step in (last, last + 1)
        assert_identical(state, make_state(step))
