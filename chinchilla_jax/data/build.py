"""Building a token store: survey the documents, split them by hash, tokenise, count, check.

Two passes over the prepared data set (three when a vocabulary is learnt), in memory that the
corpus does not set: the largest document, some megabytes of text, and a histogram.
"""

import hashlib
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.data import corpora, overlap, tokenizers
from chinchilla_jax.data.copies import Seen
from chinchilla_jax.data.layout import (
    META,
    MODEL,
    TOKEN_BYTES,
    TRAIN,
    VALIDATION,
    VERSION,
    CorpusMeta,
    PartMeta,
    alone,
)
from chinchilla_jax.data.progress import progress
from chinchilla_jax.data.tokenizers import SEPARATOR, Tokenizer
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.experiment.storage import expanded, write_text_atomic

_BUCKETS = 1 << 16  # of document hashes
_BATCH_BYTES = 4 << 20  # of text tokenised at once


@dataclass(frozen=True)
class _Split:
    """Which documents go where, by the first two bytes of their digest."""

    held: int  # buckets below are validation
    learn: int  # from `held` to below this: the sample that a vocabulary is learnt from
    end: int  # from `held` to below this: training; the rest is left out

    def part(self, digest: bytes) -> str:
        bucket = _bucket(digest)
        if bucket >= self.end:
            return ""
        return VALIDATION if bucket < self.held else TRAIN


def build(
    config: DataConfig, files: list[Path], skipped: Counter[str], source: Path, folder: Path
) -> CorpusMeta:
    """Writes the token store of `config` and lets `folder` appear when all of it is there.

    Args:
      files: of the source, and `skipped` those left out of it by reason (local_text only).
      source: the folder of the prepared documents, made first if it is not there.
    """
    dataset, text_field = _dataset(config, files, source)
    skipped = skipped + Counter((dataset.info.metadata or {}).get("skipped", {}))
    sizes = np.zeros(_BUCKETS, np.int64)
    for digest, text in _documents(dataset, text_field, "surveying", skipped):
        sizes[_bucket(digest)] += len(text)
    split = _split(sizes, config)
    if left := int(sizes[split.end :].sum()):
        skipped[f"bytes beyond data.max_megabytes = {config.max_megabytes:g}"] = left

    def read(doing: str) -> Iterator[tuple[bytes, bytes, str]]:
        """Later passes: what they skip or clean has been counted."""
        for digest, text in _documents(dataset, text_field, doing, Counter()):
            if part := split.part(digest):
                yield digest, text, part

    tokenizer = tokenizers.bytes_tokenizer()
    if config.tokenizer == "sentencepiece":
        sample = (
            text
            for digest, text, _ in read("learning a vocabulary")
            if split.held <= _bucket(digest) < split.learn
        )
        model = tokenizers.train_sentencepiece(sample, config.vocab_size)
        tokenizer = tokenizers.sentencepiece_tokenizer(model)

    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # of a build that was killed
    building.mkdir()
    parts = {name: _PartWriter(building / f"{name}.bin", tokenizer) for name in (TRAIN, VALIDATION)}
    for digest, text, part in read("tokenising"):
        parts[part].add(digest, text)
    train, validation = parts[TRAIN].close(), parts[VALIDATION].close()
    windows, shared = overlap.shared_windows(
        _blocks(building / f"{TRAIN}.bin", tokenizer.dtype),
        _blocks(building / f"{VALIDATION}.bin", tokenizer.dtype),
        validation.tokens,
    )
    meta = CorpusMeta(
        version=VERSION,
        builder=config.builder,
        path=config.path or f"({config.packages} packages)",
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        data_fingerprint=hashlib.sha256(
            parts[TRAIN].digest() + parts[VALIDATION].digest()
        ).hexdigest()[:16],
        tokenizer_fingerprint=tokenizer.fingerprint,
        train=train,
        validation=validation,
        overlap_windows=windows,
        overlap_shared=shared,
        skipped=dict(sorted(skipped.items())),
    )
    np.save(building / TOKEN_BYTES, tokenizer.token_bytes)
    (building / MODEL).write_bytes(tokenizer.model)
    write_text_atomic(building / META, json.dumps(to_json(meta), indent=1) + "\n")
    building.rename(folder)
    return meta


def _dataset(config: DataConfig, files: list[Path], source: Path) -> tuple[Any, str]:
    """(the prepared TFDS data set, the name of its text field)."""
    if config.builder == "array_record":
        folder = expanded(config.path)
        return corpora.open_prepared(folder, config.text_field), config.text_field
    with alone(source):
        folder = corpora.prepare(config, files, source)
    return corpora.open_prepared(folder, "text"), "text"


def _documents(
    dataset: Any, text_field: str, doing: str, skipped: Counter[str]
) -> Iterator[tuple[bytes, bytes]]:
    """One pass over the documents: (digest, text), each once, without NUL, none of them blank."""
    seen = Seen()
    total = sum(split.num_bytes for split in dataset.info.splits.values())
    with progress(doing, total) as advance:
        for text in corpora.documents(dataset, text_field):
            advance(len(text))
            if b"\0" in text:  # it marks the end of a document here
                skipped["NUL bytes inside documents"] += text.count(b"\0")
                text = text.replace(b"\0", b"")
            if not text or text.isspace():
                skipped["blank documents"] += 1
                continue
            digest = hashlib.blake2b(text, digest_size=16).digest()
            if seen.again(digest):
                skipped["copies of another document"] += 1
                continue
            yield digest, text


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:2], "big")


def _split(sizes: np.ndarray, config: DataConfig) -> _Split:
    """The split of a corpus with `sizes[i]` bytes of text in bucket i.

    Raises:
      UserError: a single document, or none below `max_megabytes`.
    """
    filled = np.flatnonzero(sizes)
    if len(filled) < 2:
        raise UserError(
            f"data.path = {config.path!r}: one document (or copies of one) cannot be split into "
            "training and validation; give more text"
        )
    total = np.cumsum(sizes)
    held = int(np.searchsorted(total, config.validation_fraction * total[-1])) + 1
    held = min(held, int(filled[-1]))  # something is left to train on

    def after(size: float) -> int:
        """The bucket where `size` bytes beyond validation end."""
        return int(np.searchsorted(total, total[held - 1] + size, side="right"))

    end = _BUCKETS if config.max_megabytes is None else after(config.max_megabytes * 1e6)
    first = int(filled[np.searchsorted(filled, held)])
    if end <= first:
        raise UserError(
            f"data.max_megabytes = {config.max_megabytes:g}: the first training document has "
            f"{sizes[first] / 1e6:.3g} MB of all {total[-1] / 1e6:.3g} MB; give more"
        )
    return _Split(held, min(end, max(first + 1, after(tokenizers.SAMPLE_BYTES))), end)


def _blocks(path: Path, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The tokens of a flat file; read, since pages of a memory map would count as memory."""
    with path.open("rb") as file:
        while len(block := np.fromfile(file, dtype, _BATCH_BYTES)):
            yield block


class _PartWriter:
    """Appends documents to one flat file of ids, which begins with a separator."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._file = path.open("wb")
        self._tokenizer = tokenizer
        self._pending: list[bytes] = []
        self._pending_bytes = self._tokens = self._bytes = self._documents = self._crc32 = 0
        self._digest = hashlib.sha256()
        self._write(np.array([SEPARATOR]))

    def add(self, digest: bytes, text: bytes) -> None:
        self._digest.update(digest)
        self._pending.append(text)
        self._pending_bytes += len(text)
        self._bytes += len(text)
        self._documents += 1
        if self._pending_bytes >= _BATCH_BYTES:
            self._flush()

    def close(self) -> PartMeta:
        self._flush()
        self._file.close()
        return PartMeta(
            tokens=self._tokens, bytes=self._bytes, documents=self._documents, crc32=self._crc32
        )

    def digest(self) -> bytes:
        """Of all documents, in order."""
        return self._digest.digest()

    def _flush(self) -> None:
        self._write(self._tokenizer.encode(self._pending))
        self._pending, self._pending_bytes = [], 0

    def _write(self, ids: np.ndarray) -> None:
        content = ids.astype(self._tokenizer.dtype).tobytes()
        self._file.write(content)
        self._crc32 = zlib.crc32(content, self._crc32)
        self._tokens += len(ids)
