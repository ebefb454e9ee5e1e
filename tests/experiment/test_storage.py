"""One path layer: what holds on a file system holds in an object store, faults included."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.loading import cache_folder


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))


def test_what_is_written_is_read_and_listed(folder):
    assert not storage.exists(folder / "a" / "b") and storage.children(folder / "a") == []
    storage.write_text_atomic(folder / "a" / "b", "ü\n")
    storage.write_bytes_atomic(folder / "a" / "b", b"two")
    assert storage.read_text(folder / "a" / "b") == "two"
    assert storage.exists(folder / "a") and storage.exists(folder / "a" / "b")
    assert [child.name for child in storage.children(folder / "a")] == ["b"]
    storage.remove(folder / "a" / "b")
    storage.remove(folder / "a" / "b")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(folder / "a" / "b")
    with pytest.raises(UserError, match="no such file"):
        json_data.read_json(folder / "a" / "b")


def test_others_see_at_once_what_is_written(folder):
    """A listing that is kept would hide it."""
    assert not storage.exists(folder / "a")
    code = (
        "import sys; from chinchilla_jax.experiment import storage;"
        "storage.write_text_atomic(sys.argv[1], 'x')"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(folder / name)], check=True)
        assert storage.exists(folder / name)
        assert storage.children(folder)[-1].name == name


def test_of_many_who_create_a_file_one_does(folder):
    barrier, won = threading.Barrier(6), []

    def attempt(number):
        barrier.wait()
        if storage.create(folder / "file", f"{number}".encode()):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and storage.read_text(folder / "file") == str(won[0])
    assert [child.name for child in storage.children(folder)] == ["file"]


def digests(folder):
    return storage.digests(folder, storage.files(folder), lambda file: file.read_text())


def test_a_folder_is_moved_and_a_changed_file_has_another_digest(folder):
    storage.write_text_atomic(folder / "a" / "b" / "c", "1")
    storage.write_text_atomic(folder / "a" / "d", "2")
    before = digests(folder / "a")
    assert list(before) == ["b/c", "d"]
    storage.move_folder(folder / "a", folder / "e")
    assert digests(folder / "e") == before
    assert not storage.exists(folder / "a")
    storage.write_text_atomic(folder / "e" / "d", "3")
    after = digests(folder / "e")
    assert after["b/c"] == before["b/c"] and after["d"] != before["d"]


@pytest.mark.parametrize("text", ["s3://bucket/x", "http://host/x"])
def test_another_scheme_is_one_line(text):
    with pytest.raises(UserError, match="neither a local path nor gs://"):
        storage.path(text)


def test_text_and_cache_are_local(monkeypatch):
    with pytest.raises(UserError, match="text is read from local files"):
        open_corpus(DataConfig(builder="local_text", path="gs://bucket/text"), Path("unused"))
    monkeypatch.setenv("CHINCHILLA_JAX_CACHE", "gs://bucket/cache")
    with pytest.raises(UserError, match="kept on a local disk"):
        cache_folder()


def test_without_gcsfs_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gcsfs; pip install 'chinchilla_jax\[gcs\]'"):
        storage.path("gs://bucket/x")


def test_a_local_path_imports_no_object_store():
    code = (
        "import sys; from chinchilla_jax.experiment import records, storage; storage.path('x');"
        "assert not {'etils', 'fsspec', 'gcsfs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_store_is_asked_again(gcs, status):
    place = storage.path("gs://bucket/busy")
    gcs.fail(status, times=1, method="POST")
    storage.write_text_atomic(place, "x")
    assert gcs.objects["busy"][0] == b"x"


def test_what_no_retry_mends_is_one_line_at_once_and_nothing_is_written(gcs):
    place = storage.path("gs://bucket/quota/file")
    storage.write_text_atomic(place, "before")
    gcs.fail(403, times=9, method="POST")
    gcs.requests.clear()
    with pytest.raises(StorageError, match=r"quota/file: cannot be written: .*injected"):
        storage.write_text_atomic(place, "after")
    assert len(gcs.requests) == 1
    gcs.faults.clear()
    assert storage.read_text(place) == "before"


@pytest.mark.parametrize(
    "number,tries", [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EROFS, 1), (errno.ESTALE, 3)]
)
def test_a_fault_is_tried_again_where_it_may_pass(no_pauses, tmp_path, number, tries):
    calls = []

    def action():
        calls.append(1)
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=f"cannot be written: {os.strerror(number)}"):
        storage.attempt(tmp_path / "x", "written", action)
    assert len(calls) == tries


def test_a_mistake_of_ours_is_not_taken_for_the_disk(tmp_path):
    def action():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        storage.attempt(tmp_path / "x", "written", action)
