"""Frames of windows beyond 2^27, made by hand: raw blocks under a header of any window."""

import importlib.util
import json
import sys
from collections import Counter

import pyarrow as pa
import pytest

from chinchilla_jax.data import sources
from chinchilla_jax.experiment.errors import UserError

TEXTS = [f"document {i} " * 400 for i in range(40)]
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)
SKIPPABLE = (0x184D2A5E).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"123456789"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("zstandard") is None, reason="the package zstandard is not installed"
)


def frame(content, window_log):
    """RFC 8878: magic number, descriptor, window, and blocks of kind 0 (raw)."""
    blocks = [content[i : i + 100_000] for i in range(0, len(content), 100_000)]
    parts = [(0xFD2FB528).to_bytes(4, "little"), bytes([0, (window_log - 10) << 3])]
    for i, block in enumerate(blocks):
        last = int(i == len(blocks) - 1)
        parts += [(len(block) << 3 | last).to_bytes(3, "little"), block]
    return b"".join(parts)


def read(file):
    return [text.decode() for _, text in sources.documents([file], "text", Counter())]


def test_a_frame_made_by_hand_is_one(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(frame(LINES, 20))
    assert read(tmp_path / "a.jsonl.zst") == TEXTS


@needs_package
@pytest.mark.parametrize("window_log", [28, 31])
def test_a_long_window_is_read(tmp_path, window_log):
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    short = pa.compress(LINES[half:], codec="zstd", asbytes=True)
    parts = SKIPPABLE, frame(LINES[:half], window_log), SKIPPABLE, short
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(parts[1:]))
    assert read(tmp_path / "a.jsonl.zst") == TEXTS


@needs_package
def test_a_long_window_that_was_cut_off_is_told(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(frame(LINES, 28)[:-5000])
    with pytest.raises(UserError, match=r"a\.jsonl\.zst cannot be read: the file is cut off"):
        read(tmp_path / "a.jsonl.zst")
    (tmp_path / "b.jsonl.zst").write_bytes(frame(LINES, 28) + b"no frame at all")
    with pytest.raises(UserError, match=r"b\.jsonl\.zst cannot be read: .*zstd"):
        read(tmp_path / "b.jsonl.zst")


def test_without_the_package_it_is_refused_in_one_line(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "zstandard" else found(name)
    )
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(frame(LINES, 28))
    with pytest.raises(UserError, match=r"a\.jsonl\.zst was compressed .*zstd --long") as e:
        read(tmp_path / "a.jsonl.zst")
    assert "\n" not in str(e.value) and "chinchilla_jax[zstd]" in str(e.value)
