"""A folder that is complete or absent."""

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.formats import folder


def fill(content="one"):
    def write(place):
        (place / "inner").mkdir()
        (place / "a").write_text(content)
        (place / "inner" / "b").write_text("b")

    return write


def test_it_is_made_whole_with_its_parents(tmp_path):
    assert folder.write(tmp_path / "x" / "y", fill())
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["y"]
    assert (tmp_path / "x" / "y" / "inner" / "b").read_text() == "b"


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), ValueError("a fault")])
def test_nothing_is_left_of_one_that_was_not_finished(tmp_path, error):
    def broken(place):
        fill()(place)
        raise error

    with pytest.raises(type(error)):
        folder.write(tmp_path / "y", broken)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_of_the_folder_that_was_to_be_made(tmp_path, monkeypatch):
    def full(place):
        (place / "inner").mkdir()
        storage.write_bytes_atomic(place / "inner" / "a", b"1")

    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for act in ("fsync", "mkdir"):
        with monkeypatch.context() as disk:
            disk.setattr(os, act, no_space)
            with pytest.raises(StorageError, match="cannot be written: No space left") as error:
                folder.write(tmp_path / "y", full)
        assert str(error.value).startswith(f"{tmp_path / 'y'}") and not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file: cannot be read: Not a directory"):
        folder.write(tmp_path / "file" / "y", fill())


def test_the_same_is_left_and_another_is_refused(tmp_path):
    assert folder.write(tmp_path / "y", fill())
    assert not folder.write(tmp_path / "y", fill())
    with pytest.raises(UserError, match=r"is there already, and its a is another"):
        folder.write(tmp_path / "y", fill("two"))
    (tmp_path / "y" / "mine").write_text("mine")
    with pytest.raises(UserError, match=r"is there already, and has 3 files"):
        folder.write(tmp_path / "y", fill())
    (tmp_path / "z").write_text("a file")
    with pytest.raises(UserError, match="is a file"):
        folder.write(tmp_path / "z", fill())
    assert (tmp_path / "y" / "a").read_text() == "one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["y", "z"]


def test_an_object_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="local folder"):
        folder.write("gs://bucket/folder", fill())


def test_what_a_killed_process_left_is_removed_and_what_another_has_is_not(tmp_path, caplog):
    code = (
        "import pathlib, sys, time\n"
        "from chinchilla_jax.formats import folder\n"
        "def fill(place):\n"
        "    (place / 'half').write_text('half')\n"
        "    print('there', flush=True)\n"
        "    time.sleep(60)\n"
        "folder.write(pathlib.Path(sys.argv[1]), fill)\n"
    )
    target = tmp_path / "y"
    (tmp_path / ".y.mine").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        (left,) = tmp_path.glob(".y.*.unfinished")
        assert folder.write(tmp_path / "z", fill()) and left.exists()
        assert folder.write(target, fill()) and (left / "half").exists() and not caplog.records
        process.send_signal(signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        assert not folder.write(target, fill())
    assert [r.getMessage() for r in caplog.records] == [
        f"{left}: removed: an export that was killed left it"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".y.mine", "y", "z"]
