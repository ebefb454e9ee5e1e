"""Documents out of a person's files: plain text, JSON lines and Parquet, also compressed.

Every reader streams: its memory is bounded by one block, one line or one batch of rows, never by
the file. Nothing is dropped in silence: what cannot be a document is counted by reason, what is
damaged is an error that names the file.
"""

import fnmatch
import glob
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from chinchilla_jax.data import zstd
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.experiment.storage import expanded

MAX_TEXT = 1 << 16  # bytes; a longer text file is cut into documents of at most this
_BLOCK = 1 << 20  # bytes read at once
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Documents = Iterator[bytes]


def expand(path: str) -> tuple[list[Path], Counter[str]]:
    """The files that `path` names, in order, and the count of those skipped by reason.

    Args:
      path: files, folders and globs (with ** for any depth), comma-separated. A folder stands
        for all files in it, at any depth, whose format is known by their suffix. A file named or
        matched by a glob is read as plain text when its suffix says nothing. Linked folders are
        followed, and a file that is named several times, or by several links, is read once.

    Raises:
      UserError: a part that names nothing, an empty file named directly, or no file at all.
    """
    files: list[Path] = []
    skipped: Counter[str] = Counter()
    whole = expanded(path).exists()  # a name may have a comma in it
    for part in filter(None, (text.strip() for text in ([path] if whole else path.split(",")))):
        place = expanded(part)
        if place.is_dir():
            inside = sorted(_inside(place))
            found = [file for file in inside if _suffix(file) in READERS]
            for file in set(inside).difference(found):
                skipped[f"files of unknown format ({file.suffix or 'no suffix'})"] += 1
        elif place.is_file():
            found = [place]
            if not place.stat().st_size:
                raise UserError(f"data.path: {place} is empty")
        else:
            found = sorted(_matching(str(place)))
        if not found:
            known = ", ".join(sorted(READERS))
            raise UserError(
                f"data.path = {part!r}: no such file, nor a folder or pattern with files of a "
                f"known format ({known}, also with {' or '.join(COMPRESSIONS)})"
            )
        files += found
    real: dict[Path, Path] = {}
    for file in files:
        real.setdefault(file.resolve(), file)
    if again := len(files) - len(real):
        skipped["files named again"] = again
    full = [file.absolute() for file in real.values() if file.stat().st_size]
    if empty := len(real) - len(full):
        skipped["empty files"] = empty
    if not full:
        raise UserError(f"data.path = {path!r}: every file there is empty")
    return full, skipped


def _inside(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file below a folder; a link to a folder that is on the way to it leads nowhere."""
    if (real := os.path.realpath(folder)) in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _inside(folder / entry.name, (*above, real))
        elif entry.is_file():
            yield folder / entry.name


def _matching(pattern: str) -> Iterator[Path]:
    """The files that a glob names; ** stands for folders of any depth, none of them hidden."""
    parts = pattern.split("/")
    deep = parts.index("**") if "**" in parts else len(parts)
    start, rest = "/".join(parts[:deep]), parts[deep:]
    for place in map(Path, glob.glob(start or "/") if parts[0] != "**" else ["."]):  # noqa: PTH207
        if not rest and place.is_file():
            yield place
        for file in _inside(place) if rest and place.is_dir() else ():
            if _matches(rest, file.relative_to(place).parts):
                yield file


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a path is of a pattern, both by their parts."""
    if not parts or not names:
        return not parts and not names
    if parts[0] == "**":
        shown = next((i for i, name in enumerate(names) if name.startswith(".")), len(names))
        if len(parts) == 1:
            return shown == len(names)
        return any(_matches(parts[1:], names[i:]) for i in range(min(shown, len(names) - 1) + 1))
    hidden = names[0].startswith(".") and not parts[0].startswith(".")
    return not hidden and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:])


def stamp(files: list[Path]) -> str:
    """Digest of names, sizes and times of `files`: what tells changed files without reading."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file}\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def documents(
    files: list[Path], text_field: str, skipped: Counter[str]
) -> Iterator[tuple[str, bytes]]:
    """Yields (name of the file, text) of every document, in the order of the files.

    Args:
      text_field: the field that holds the text, in JSON lines and Parquet.
      skipped: counts, by reason, what yields no document.

    Raises:
      UserError: bad UTF-8, damaged or truncated files, a missing field; names the file and the
        line, row or byte.
    """
    import pyarrow  # slow to import, and only a build needs it

    for file in files:
        reader = READERS.get(_suffix(file), _text)
        try:
            for text in reader(file, text_field, skipped):
                if text.strip():
                    yield str(file), text
                else:
                    skipped["blank documents"] += 1
        except (OSError, EOFError, pyarrow.ArrowException) as error:
            raise UserError(f"data.path: {file} cannot be read: {_one_line(error)}") from None


def _text(file: Path, text_field: str, skipped: Counter[str]) -> Documents:
    """A whole text file, or its pieces of at most MAX_TEXT bytes, cut where the text pauses."""
    with _open(file) as stream:
        rest = stream.read(_BLOCK)
        offset = len(_BYTE_ORDER_MARK) if rest.startswith(_BYTE_ORDER_MARK) else 0
        rest = rest[offset:]
        while rest:
            block = stream.read(_BLOCK)
            start = 0
            while len(rest) - start > MAX_TEXT:
                end = _pause(rest, start, start + MAX_TEXT)
                yield _checked(rest[start:end], file, offset + start)
                start = end
            if not block:
                yield _checked(rest[start:], file, offset + start)
            offset, rest = offset + start, rest[start:] + block if block else b""


def _pause(text: bytes, start: int, end: int) -> int:
    """Where to cut `text[start:end]`: after its last blank line, else line, word, character."""
    middle = (start + end) // 2
    for mark in (b"\n\n", b"\n", b" "):
        found = text.rfind(mark, middle, end)
        if found >= 0:
            return found + len(mark)
    continuation = next((i for i in range(4) if text[end - i] & 0xC0 != 0x80), 0)
    return end - continuation


def _jsonl(file: Path, text_field: str, skipped: Counter[str]) -> Documents:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                skipped["blank lines"] += 1
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # 5,000 digits are a ValueError too
                raise UserError(
                    f"data.path: {where}: not an object in JSON on one line ({_one_line(error)})"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"data.path: {where}: expected an object with fields on every line")
            if text_field not in row:
                raise _missing_field(where, text_field, list(row))
            text = row[text_field]
            if text is None:
                skipped["rows without text (null)"] += 1
            elif isinstance(text, str):
                try:
                    yield text.encode()
                except UnicodeEncodeError:
                    raise UserError(f"data.path: {where}: half of a surrogate pair") from None
            else:
                raise UserError(f"data.path: {where}: field {text_field} is no text: {text!r:.40}")


def _parquet(file: Path, text_field: str, skipped: Counter[str]) -> Documents:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BLOCK) as table:
        schema = table.schema_arrow
        if text_field not in schema.names:
            raise _missing_field(str(file), text_field, schema.names)
        kind = schema.field(text_field).type
        stored = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(stored).removeprefix("large_").removesuffix("_view") not in ("string", "binary"):
            raise UserError(f"data.path: {file}: column {text_field} holds {kind}, not text")
        row = 0
        for batch in table.iter_batches(batch_size=256, columns=[text_field]):
            # As binary: decoding is checked here, where the row can be named.
            for value in batch.column(0).cast(stored).cast(pa.large_binary()):
                text = value.as_py()
                if text is None:
                    skipped["rows without text (null)"] += 1
                else:
                    yield _checked(text, file, 0, f" of row {row}")
                row += 1


def _open(file: Path) -> BinaryIO:
    """A stream of the decompressed bytes of `file`."""
    import pyarrow as pa

    compression = COMPRESSIONS.get(file.suffix.lower())
    stream = pa.input_stream(str(file), compression=compression, buffer_size=_BLOCK)
    reader = io.BufferedReader(stream, _BLOCK)
    try:
        reader.peek(1)
    except OSError as error:
        if zstd.TOO_LONG not in str(error):
            raise
        return io.BufferedReader(zstd.long_windows(file), _BLOCK)
    return reader


def _checked(text: bytes, file: Path, offset: int, of: str = "") -> bytes:
    """`text`, once it is known to be UTF-8; `offset` is where it begins in the file or row."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.path: {file} is not UTF-8: 0x{text[error.start]:02x} at byte "
            f"{offset + error.start}{of}; convert it (iconv -t UTF-8)"
        ) from None
    return text


def _suffix(file: Path) -> str:
    """The suffix that tells the format: .jsonl of both a.jsonl and a.jsonl.gz."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _missing_field(where: str, name: str, names: list[str]) -> UserError:
    return UserError(
        f"data.text_field = {name!r}: {where} has no such field{nearest(name, names)} "
        f"(the fields are {', '.join(sorted(names))})"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


READERS: dict[str, Callable[[Path, str, Counter[str]], Documents]] = {
    ".txt": _text,
    ".jsonl": _jsonl,
    ".json": _jsonl,  # an object a line too, as in the shards of C4
    ".parquet": _parquet,
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
