import glob
import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from chinchilla_jax.data import sources
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import cache_folder


def read(path: object, field: str = "text") -> tuple[list[bytes], dict[str, int]]:
    files, skipped = sources.expand(str(path))
    return [text for _, text in sources.documents(files, field, skipped)], dict(skipped)


def zstandard(path: Path, content: bytes) -> Path:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(content)
    return path


def test_every_format_gives_the_same_documents(tmp_path, texts):
    lines = b"".join(json.dumps({"id": 1, "text": text}).encode() + b"\n" for text in texts)
    (tmp_path / "a.jsonl").write_bytes(lines)
    half = lines.index(b"\n", len(lines) // 2) + 1
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[:half]) + gzip.compress(lines[half:]))
    zstandard(tmp_path / "c.jsonl.zst", lines)
    (tmp_path / "c4-train.00000-of-01024.json.gz").write_bytes(gzip.compress(lines))
    parquet.write_table(pa.table({"text": texts}), tmp_path / "d.parquet", row_group_size=7)
    wide = pa.table({"text": pa.array(texts, pa.large_string())})
    parquet.write_table(wide, tmp_path / "e.parquet", compression="zstd")
    expected = [text.encode() for text in texts]
    for file in sorted(tmp_path.iterdir()):
        assert read(file) == (expected, {}), file.name
    everything, _ = read(f"{tmp_path / 'a.jsonl'}, {tmp_path / '[b-c]*.*'},{tmp_path}/*.parquet")
    assert everything == expected * 6


@pytest.mark.parametrize("mark", ["\n\n", "\n", " "])
def test_a_long_text_file_is_cut_and_nothing_lost(tmp_path, mark):
    content = (mark.join("word" * 50 for _ in range(15_000))).encode()
    (tmp_path / "long.txt").write_bytes(b"\xef\xbb\xbf" + content)
    zstandard(tmp_path / "long.txt.zst", content)
    for name in ("long.txt", "long.txt.zst"):
        pieces, _ = read(tmp_path / name)
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= sources.MAX_TEXT
        assert min(map(len, pieces[:-1])) >= sources.MAX_TEXT // 2
        assert all(piece.endswith(mark.encode()) for piece in pieces[:-1])


@pytest.mark.parametrize("letter", ["é", "ℓ", "😀"])
def test_no_letter_is_cut_in_two(tmp_path, letter):
    content = "a" + letter * sources.MAX_TEXT
    (tmp_path / "long.txt").write_text(content)
    pieces, _ = read(tmp_path)
    assert "".join(piece.decode() for piece in pieces) == content
    assert max(map(len, pieces)) <= sources.MAX_TEXT


def test_a_text_file_up_to_the_limit_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n" * (sources.MAX_TEXT // 2))
    assert len(read(tmp_path)[0]) == 1


def test_what_gives_no_document_is_counted_by_reason(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    rows = [{"text": "row"}, {"text": None}, {"text": ""}]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.table({"text": ["column", None]}), tmp_path / "z.parquet")
    documents, skipped = read(tmp_path)
    assert documents == [b"text", b"row", b"column"]
    assert skipped == {
        "blank documents": 2,
        "blank lines": 2,
        "empty files": 1,
        "files of unknown format (.png)": 1,
        "rows without text (null)": 2,
    }


def names(path: object) -> tuple[list[str], dict[str, int]]:
    files, skipped = sources.expand(str(path))
    return [file.name for file in files], dict(skipped)


def test_a_file_is_read_once_by_whatever_names_it_is_reached(tmp_path):
    """Links in a circle, also two of them, whose paths would be without number."""
    inner = tmp_path / "t" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text("a")
    (tmp_path / "t" / "b.txt").write_text("b")
    (tmp_path / "t" / "self").symlink_to(".")
    (inner / "up").symlink_to("..")
    (tmp_path / "t" / "same.txt").symlink_to("b.txt")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.txt").write_text("c")
    (tmp_path / "t" / "linked").symlink_to(outside)
    again = {"files named again": 1}
    for path in ("t", "t/**", "t/**/*.txt", "**/t/**"):
        found, skipped = names(tmp_path / path)
        assert (sorted(found), skipped) == (["a.txt", "b.txt", "c.txt"], again), path
    assert names(f"{outside},{outside}/../outside/c.txt") == (["c.txt"], again)


def test_a_glob_names_what_a_shell_would(tmp_path, monkeypatch):
    for name in ("a.txt", "x/a.txt", "x/y/a.txt", "x/y/b.md", ".h/a.txt", "x/.hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for pattern in (
        "**",
        "**/*.txt",
        "x/**",
        "x/**/a.txt",
        "**/y/*",
        "x/*/**",
        "*",
        "x/.*",
        "**/[b]*",
    ):
        named = glob.glob(pattern, recursive=True)  # noqa: PTH207 (what it is compared with)
        expected = sorted(name for name in named if Path(name).is_file())
        files, _ = sources.expand(pattern)
        assert [str(file.relative_to(tmp_path)) for file in files] == expected, pattern


def test_a_comma_in_a_name_that_is_there_parts_nothing(tmp_path):
    (tmp_path / "a,b.txt").write_text("text")
    assert names(tmp_path / "a,b.txt") == (["a,b.txt"], {})


def test_a_home_that_nobody_has_is_one_line():
    with pytest.raises(UserError, match=r"^~nosuchuser9/x: there is no such home"):
        sources.expand("~nosuchuser9/x")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("CHINCHILLA_JAX_CACHE", raising=False)
    with pytest.raises(UserError, match=r"has no home .*set CHINCHILLA_JAX_CACHE to a folder"):
        cache_folder()


def latin1(text: str) -> bytes:
    return text.encode("latin-1")


WRONG = {
    "latin.txt": (latin1("caf\xe9"), "latin.txt is not UTF-8: 0xe9 at byte 3"),
    "late.txt": (b"a\n" * 1_800_000 + b"\xff", "late.txt is not UTF-8: 0xff at byte 3600000"),
    "wide.txt": ("text".encode("utf-16"), "wide.txt is not UTF-8: 0xff at byte 0"),
    "empty.txt": (b"", "empty.txt is empty"),
    "cut.jsonl": (
        b'{"text": "a"}\n{"text"',
        "cut.jsonl, line 2: not an object in JSON on one line",
    ),
    "bytes.jsonl": (
        latin1('{"text": "\xe9"}'),
        "bytes.jsonl, line 1: not an object in JSON on one line",
    ),
    "list.jsonl": (b"[1]", "list.jsonl, line 1: expected an object"),
    "other.jsonl": (b'{"texts": ""}', r"line 1 has no such field; did you mean texts\?"),
    "number.jsonl": (b'{"text": 3}', "line 1: field text is no text: 3"),
    "half.jsonl": (b'{"text": "\\ud800"}', "line 1: half of a surrogate pair"),
    "short.txt.gz": (gzip.compress(b"text" * 9000)[:-20], "short.txt.gz cannot be read: Trunc"),
    "flipped.txt.gz": (gzip.compress(b"text")[:-6] + b"123456", "flipped.txt.gz cannot be read"),
    "no.txt.zst": (b"text", "no.txt.zst cannot be read"),
    "no.parquet": (b"text" * 9, "no.parquet cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damage_is_one_line_that_names_the_file(tmp_path, name):
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_truncated_zst_or_parquet_is_an_error(tmp_path, texts):
    whole = zstandard(tmp_path / "a.txt.zst", "".join(texts).encode()).read_bytes()
    (tmp_path / "a.txt.zst").write_bytes(whole[: len(whole) // 2])
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    broken = bytearray((tmp_path / "a.parquet").read_bytes())
    broken[100:200] = bytes(100)
    (tmp_path / "a.parquet").write_bytes(broken)
    for name in ("a.txt.zst", "a.parquet"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_parquet_columns_are_checked(tmp_path):
    parquet.write_table(pa.table({"n": [1], "body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no such field \(the fields are body, n\)"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column n holds int64, not text"):
        read(tmp_path / "a.parquet", "n")
    raw = pa.array([b"good", b"bad \xff"]).view(pa.string())
    parquet.write_table(pa.table({"text": raw}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="0xff at byte 4 of row 1"):
        read(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(),
     pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)  # fmt: skip
def test_text_of_every_kind_that_arrow_writes_is_text(tmp_path, kind):
    texts = ["one", "zwei ü", None, "one"]
    column = pa.array(texts).cast(kind) if kind != pa.string_view() else pa.array(texts, kind)
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    found, _ = read(tmp_path / "a.parquet")
    assert found == [text.encode() for text in texts if text]
    lists = pa.array([["one"]])
    parquet.write_table(pa.table({"text": lists}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"column text holds list<.*>, not text"):
        read(tmp_path / "b.parquet")


@pytest.mark.parametrize("name", ["absent.txt", "*.txt", "."])
def test_nothing_to_read_says_what_would_be(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such file.*\.json, \.jsonl, \.parquet, \.txt"):
        sources.expand(name)


def test_the_stamp_tells_a_touched_or_other_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("text")
    before = sources.stamp([file])
    assert sources.stamp([file]) == before
    file.write_text("texts")
    assert sources.stamp([file]) != before


def test_reading_is_lazy(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n{"text": broken}')
    rows = sources.documents([tmp_path / "a.jsonl"], "text", Counter())
    assert next(rows) == (str(tmp_path / "a.jsonl"), b"first")
    with pytest.raises(UserError, match="line 2"):
        next(rows)
