import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.data import build, layout, store
from chinchilla_jax.experiment.errors import UserError


def documents(tokens: np.ndarray) -> list[bytes]:
    """The documents of a flat file of bytes."""
    content = bytes(tokens)
    assert content[:1] == content[-1:] == b"\0"
    return content[1:-1].split(b"\0")


def test_all_documents_are_there_once_and_counted(opened, folder, texts):
    corpus = opened(folder)
    train, held = documents(corpus.train), documents(corpus.validation)
    assert sorted(train + held) == sorted(text.encode() for text in texts)
    for part, contents in ((corpus.meta.train, train), (corpus.meta.validation, held)):
        assert part.documents == len(contents) > 0
        assert part.bytes == sum(map(len, contents))
        assert part.tokens == part.bytes + part.documents + 1
    assert corpus.train_tokens == len(corpus.train)
    assert corpus.train.dtype == np.uint8


def test_validation_is_chosen_by_content_alone(opened, folder, tmp_path, texts):
    held = documents(opened(folder, validation_fraction=0.2).validation)
    size = sum(len(text.encode()) for text in texts)
    assert 0.2 * size <= sum(map(len, held)) < 0.2 * size + 4000
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, text in enumerate(reversed(texts)):
        (renamed / f"{number:03}.txt").write_text(text)
        (renamed / f"copy{number:03}.txt").write_text(text)
    doubled = opened(renamed, validation_fraction=0.2)
    assert sorted(documents(doubled.validation)) == sorted(held)
    assert not set(documents(doubled.train)) & set(held)


def test_a_document_that_is_there_again_is_left_out_and_counted(opened, folder, tmp_path, texts):
    """Repetition is counted by what is different: `max_epochs` would be met with copies."""
    plain = opened(folder)
    for number, text in enumerate(texts[:7]):
        (folder / f"zz{number}.txt").write_text(text)
    (folder / "zz.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    corpus = opened(folder)
    assert corpus.data_fingerprint == plain.data_fingerprint
    assert corpus.meta.skipped == {"copies of another document": 67}
    prepared = max(tmp_path.glob("cache/corpora/*/local_text/1.0.0"), key=os.path.getmtime)
    assert opened(prepared, builder="array_record").meta.skipped["copies of another document"] == 67


def test_fewer_megabytes_are_a_subset_with_the_same_validation(opened, folder):
    whole = opened(folder, validation_fraction=0.1)
    before: set[bytes] = set()
    for megabytes in (0.01, 0.02, 0.04):
        part = opened(folder, validation_fraction=0.1, max_megabytes=megabytes)
        assert bytes(part.validation) == bytes(whole.validation)
        assert before < set(documents(part.train)) < set(documents(whole.train))
        assert part.meta.train.bytes <= megabytes * 1e6
        left = part.meta.skipped[f"bytes beyond data.max_megabytes = {megabytes:g}"]
        assert part.meta.train.bytes + left == whole.meta.train.bytes
        before = set(documents(part.train))
    with pytest.raises(UserError, match=r"data.max_megabytes = 1e-05: the first training doc"):
        opened(folder, max_megabytes=1e-5)


def test_fingerprints_tell_data_and_tokenizer_apart(opened, folder):
    plain, pieces = opened(folder), opened(folder, tokenizer="sentencepiece", vocab_size=300)
    assert plain.data_fingerprint == pieces.data_fingerprint
    assert plain.tokenizer_fingerprint != pieces.tokenizer_fingerprint
    assert pieces.train.dtype == np.uint16
    assert pieces.tokenizer().decode(pieces.train) == bytes(plain.train)
    assert pieces.tokenizer().decode(pieces.validation) == bytes(plain.validation)
    assert plain.data_fingerprint != opened(folder, validation_fraction=0.3).data_fingerprint
    (folder / "000.txt").write_text("another document")
    assert plain.data_fingerprint != opened(folder).data_fingerprint


@pytest.mark.parametrize("fields", [{}, {"tokenizer": "sentencepiece", "vocab_size": 300}])
def test_windows_come_with_the_bytes_that_they_spell(opened, folder, fields):
    corpus = opened(folder, validation_fraction=0.3, **fields)
    windows, predicted = corpus.validation_windows(40, 16)
    assert windows.shape == (40, 17)
    spelled = corpus.tokenizer().decode(windows[:, 1:].ravel())
    assert predicted == len(spelled.replace(b"\0", b""))


def test_examples_come_from_the_training_file(opened, folder):
    corpus = opened(folder)
    rows = (len(corpus.train) - 1) // 32
    examples = corpus.examples(3, np.arange(rows).reshape(1, rows), 32)
    assert examples.shape == (1, rows, 33)
    starts = np.lib.stride_tricks.sliding_window_view(corpus.train, 33)[::32]
    np.testing.assert_array_equal(
        np.unique(examples[0], axis=0), np.unique(starts.astype(np.int32), axis=0)
    )


def test_what_was_left_out_is_said(opened, folder, capsys):
    (folder / "nul.txt").write_bytes(b"a\0b" * 99)
    (folder / "blank.txt").write_text("  ")
    (folder / "picture.png").write_bytes(b"\x89")
    corpus = opened(folder)
    assert corpus.meta.skipped == {
        "NUL bytes inside documents": 99,
        "blank documents": 1,
        "files of unknown format (.png)": 1,
    }
    assert b"ab" * 99 in documents(corpus.train) + documents(corpus.validation)
    error = capsys.readouterr().err
    assert f"left out: {corpus.left_out}" in error
    assert "left out: 99 NUL bytes inside documents, 1 blank documents, 1 files of" in error
    assert "60 documents" not in error
    assert "61 documents" in error


def test_a_prepared_data_set_is_a_corpus(opened, folder, tmp_path):
    direct = opened(folder)
    (prepared,) = tmp_path.glob("cache/corpora/*/local_text/1.0.0")
    corpus = opened(prepared, builder="array_record")
    assert corpus.data_fingerprint == direct.data_fingerprint
    assert bytes(corpus.train) == bytes(direct.train)


def test_a_second_opening_builds_nothing(opened, folder, monkeypatch):
    first = opened(folder)
    monkeypatch.setattr(build, "build", lambda *a: pytest.fail("built again"))
    assert opened(folder).meta == first.meta
    assert opened(folder, max_epochs=9.0).meta == first.meta


def test_opening_imports_nothing_slow(opened, folder, tmp_path):
    opened(folder)
    result = run_python(
        f"{OPEN}\nimport sys\n"
        "slow = {'tensorflow_datasets', 'array_record', 'jax', 'pyarrow', 'sentencepiece'}\n"
        "print(sorted(slow & set(sys.modules)))",
        folder,
        tmp_path,
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_building_imports_no_tensorflow_and_no_jax(folder, tmp_path):
    code = f"{OPEN}\nimport sys\nprint(sorted({{'tensorflow', 'jax'}} & set(sys.modules)))"
    assert run_python(code, folder, tmp_path).stdout.splitlines()[-1] == "[]"


def test_a_sweep_in_progress_keeps_its_corpus(opened, folder, tmp_path):
    begun = opened(folder)
    (folder / "999.txt").write_text("a new document")
    assert opened(folder).data_fingerprint != begun.data_fingerprint
    kept = opened(folder, expected=begun.data_fingerprint)
    assert bytes(kept.train) == bytes(begun.train)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=f"data fingerprint {begun.data_fingerprint}.* is gone"):
        opened(folder, expected=begun.data_fingerprint)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("train.bin", "validation.bin") for damage in (cut, flip)),
        *((name, cut) for name in ("meta.json", "token_bytes.npy")),
        *((name, Path.unlink) for name in ("train.bin", "meta.json", "token_bytes.npy")),
    ],
)
def test_damage_to_the_store_is_named(opened, folder, name, damage):
    path = opened(folder).folder / name
    damage(path)
    with pytest.raises(UserError, match=f"{name} is damaged .*; delete the folder") as error:
        opened(folder)
    assert "\n" not in str(error.value)


def test_large_files_are_verified_on_request(opened, folder, monkeypatch):
    monkeypatch.setattr(store, "CHECKED_BYTES", 10)
    corpus = opened(folder)
    corpus.verify()
    flip(corpus.folder / "train.bin")
    with pytest.raises(UserError, match=r"train.bin is damaged \(its content"):
        opened(folder).verify()


def test_a_corpus_that_cannot_be_split_or_is_too_small_says_so(opened, tmp_path):
    (tmp_path / "one.txt").write_text("one document")
    with pytest.raises(UserError, match=r"one document .* cannot be split"):
        opened(tmp_path / "one.txt")
    (tmp_path / "two.txt").write_text("another document")
    corpus = opened(tmp_path / "*.txt")
    assert corpus.meta.train.documents == corpus.meta.validation.documents == 1
    with pytest.raises(UserError, match=r"512 windows of 64 need 32769; raise data.valid"):
        corpus.validation_windows(512, 64)
    with pytest.raises(UserError, match="too few for one sequence of 64"):
        corpus.examples(0, np.arange(3), 64)


@pytest.mark.parametrize("place", [build.overlap, build.shutil, build])
def test_a_build_that_fails_leaves_nothing_and_the_next_is_whole(
    opened, folder, tmp_path, monkeypatch, place
):
    step = {build.overlap: "shared_windows", build.shutil: "rmtree", build: "_split"}[place]
    with monkeypatch.context() as patched:
        patched.setattr(place, step, stop)
        with pytest.raises(KeyboardInterrupt):
            opened(folder)
    assert not list((tmp_path / "cache").rglob("local_text-bytes-*/meta.json"))
    opened(folder).verify()


def stop(*arguments: object, **fields: object) -> None:
    raise KeyboardInterrupt


def test_killed_at_any_moment_the_next_build_is_whole(folder, tmp_path, opened):
    started = time.monotonic()
    run_python(OPEN, folder, tmp_path / "timing")
    duration = time.monotonic() - started
    for moment in (0.5, 0.75, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-c", OPEN, str(folder), str(tmp_path / "cache")],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment * duration)
        process.kill()
        process.wait()
    reference = opened(folder).meta
    whole = run_python(f"{OPEN}\nprint(corpus.meta)", folder, tmp_path / "timing").stdout
    assert str(reference) == whole.splitlines()[-1]


def test_of_two_processes_one_builds_and_the_other_waits(folder, tmp_path, opened):
    name = opened(folder).folder.name
    other = tmp_path / "other"
    with layout.alone(other / "corpora" / name):
        process = subprocess.Popen(
            [sys.executable, "-c", f"{OPEN}\nprint('opened')", str(folder), str(other)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stderr is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        line = process.stderr.readline()
        assert line == f"another process is preparing {name}; waiting for it\n"
        assert not (other / "corpora" / name).exists()
        shutil.copytree(opened(folder).folder, other / "corpora" / name)
    output, error = process.communicate(timeout=60)
    watchdog.cancel()
    assert output == "opened\n"
    assert "documents" not in error  # it opened what the other process had built


OPEN = """
import sys
from pathlib import Path
from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
corpus = open_corpus(DataConfig(builder="local_text", path=sys.argv[1]), Path(sys.argv[2]))
"""


def run_python(code: str, folder: Path, place: Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` with the folder of texts and a cache in `place`."""
    cache = place / "cache"
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(cache)],
        check=True,
        capture_output=True,
        text=True,
    )
