"""One path layer: what holds on a file system holds in an object store, faults included."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment import lock, storage
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.storage import LineFile, StorageError


@pytest.fixture(params=["local", "gs"])
def folder(request, tmp_path):
    """A folder in either kind of place."""
    if request.param == "local":
        return tmp_path
    request.getfixturevalue("gcs")
    return storage.path(f"gs://bucket/{tmp_path.name}")


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
        storage.read_json(folder / "a" / "b")


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


def test_lines_are_all_there_after_a_flush_and_after_another_begins(folder):
    file = LineFile(folder / "lines")
    file.append("1\n")
    file.append("2\n")
    file.flush()
    another = LineFile(folder / "lines")
    another.append("3\n")
    another.flush()
    assert storage.read_text(folder / "lines") == "1\n2\n3\n"


def test_lines_of_an_object_are_written_at_intervals(gcs, monkeypatch):
    file = LineFile(storage.path("gs://bucket/lines/file"))
    file.append("1\n")
    assert "lines/file" not in gcs.objects
    monkeypatch.setattr(storage, "REWRITE_SECONDS", 0.0)
    file.append("2\n")
    assert gcs.objects["lines/file"][0] == b"1\n2\n"


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


class TestLease:
    """The lock where the system gives none."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setenv("CHINCHILLA_JAX_LOCK", "lease")
        monkeypatch.setenv("CHINCHILLA_JAX_LEASE_SECONDS", "0.1")

    @pytest.fixture
    def foreign(self, monkeypatch):
        """Leases of this process look like those of another machine."""
        machines = iter(range(1000))
        monkeypatch.setattr(lock, "_machine", lambda: str(next(machines)))

    def test_one_at_a_time_and_free_when_given_back(self, folder, foreign):
        with lock.lock(folder) as first:
            assert first is not None and lock.owner(folder) == lock.myself()
            with lock.lock(folder) as second:
                assert second is None
            with lock.lock(folder, patient=True) as second:
                assert second is None  # it was renewed meanwhile
        with lock.lock(folder) as third:
            assert third is not None
        leases = [c.name for c in storage.children(folder) if c.name.startswith("lease")]
        assert leases == ["lease-000002"]

    def test_of_many_takers_one_gets_it(self, folder, foreign):
        barrier, held, overlap = threading.Barrier(6), [], []

        def take():
            barrier.wait()
            with lock.lock(folder) as mine:
                if mine is not None:
                    held.append(1)
                    overlap.append(len(held))
                    time.sleep(0.3)
                    held.pop()

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert overlap and set(overlap) == {1}

    def test_a_silent_owner_is_taken_over_and_learns_it(self, folder, foreign, monkeypatch):
        """Nobody's clock but the watcher's own; the owner comes back to find it gone."""
        silent = threading.Event()
        renew = lock._Lease._renew_for_ever

        def renew_later(lease):
            silent.wait(20)
            renew(lease)

        with monkeypatch.context() as patch:
            patch.setattr(lock._Lease, "_renew_for_ever", renew_later)
            context = lock.lock(folder)
            owner = context.__enter__()
        assert owner is not None
        with lock.lock(folder) as hasty:
            assert hasty is None
        with lock.lock(folder, patient=True) as taker:
            assert taker is not None
            owner.check()
            silent.set()
            owner._thread.join(10)
            with pytest.raises(lock.LockLost, match="taken over"):
                owner.check()
            with pytest.raises(lock.LockLost):
                owner.guard(lambda: False)()
            context.__exit__(None, None, None)  # does not give back what is another's
            taker.check()
            with lock.lock(folder, patient=True) as third:
                assert third is None

    def test_a_dead_process_of_this_machine_keeps_nobody_waiting(self, folder):
        code = (
            "import os, sys; from chinchilla_jax.experiment import lock, storage;"
            "context = lock.lock(storage.path(sys.argv[1])); assert context.__enter__();"
            "os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder)])
        assert done.returncode == -9
        with lock.lock(folder) as mine:
            assert mine is not None

    def test_a_late_taker_of_a_number_long_gone_does_not_get_it(self, folder, foreign):
        """It listed the folder before two others came and went."""
        for _ in range(2):
            with lock.lock(folder) as mine:
                assert mine is not None
        with lock.lock(folder) as mine:
            late = lock._Lease(folder, 1)
            assert mine is not None and not late.take()
            mine.check()

    def test_another_word_is_one_line(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CHINCHILLA_JAX_LOCK", "hope")
        with pytest.raises(UserError, match="CHINCHILLA_JAX_LOCK=hope"), lock.lock(tmp_path):
            pass


def test_one_who_only_looks_keeps_nobody_from_a_lock(tmp_path):
    with lock.lock(tmp_path):
        pass
    with (tmp_path / "lock").open("rb") as watcher:  # in the middle of `is_held`
        lock.flock(watcher, exclusive=False)
        threading.Timer(0.1, lambda: lock.unlock(watcher)).start()
        with lock.lock(tmp_path) as mine:
            assert mine is not None
            with lock.lock(tmp_path) as second:
                assert second is None and lock.is_held(tmp_path)


def test_a_file_system_without_flock_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(UserError, match="CHINCHILLA_JAX_LOCK=lease"), lock.lock(tmp_path):
        pass
