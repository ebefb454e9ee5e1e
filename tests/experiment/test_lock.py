"""One at a time holds a folder: by the system's lock, and by a lease where it gives none."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from chinchilla_jax.experiment import lock, storage
from chinchilla_jax.experiment.errors import UserError


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
