"""The files of the token store, as `build.py` writes and `store.py` reads them.

    <cache>/corpora/<builder>-<key>/                the documents, a TFDS data set
    <cache>/corpora/<builder>-<tokenizer>-<key>/    train.bin, validation.bin, meta.json, ...

A key names the configuration and what can be told of the source without reading it: names, sizes
and times of files, or the versions of installed packages. A folder appears by one rename when all
of it is written, so that a build interrupted at any moment leaves nothing that can be opened.

Documents are ordered by a hash of their text. The first of them, `validation_fraction` of the
text, are validation; the next, up to `max_megabytes`, are training. So position and file names
decide nothing, of copies of one document one is kept, and a smaller `max_megabytes` is a
subset with the same validation.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chinchilla_jax.data.progress import say
from chinchilla_jax.experiment import faults, lock
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import within

VERSION = 2  # of these files and of what is kept of a source; a new one builds anew
TRAIN, VALIDATION = "train", "validation"
META, MODEL, TOKEN_BYTES = "meta.json", "tokenizer.model", "token_bytes.npy"


@dataclass(frozen=True, kw_only=True)
class PartMeta:
    """What one flat file holds."""

    tokens: int
    bytes: int  # of text in UTF-8; separators are not text
    documents: int
    crc32: int

    def __post_init__(self) -> None:
        within("part", 1, 2**62, tokens=self.tokens)
        for name in ("bytes", "documents", "crc32"):
            within("part", 0, 2**62, **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class CorpusMeta:
    """The content of meta.json: where tokens come from, how many there are, what was left out."""

    version: int
    builder: str
    path: str
    tokenizer: str
    vocab_size: int
    data_fingerprint: str  # of the documents and their split, whatever the tokenizer
    tokenizer_fingerprint: str
    train: PartMeta
    validation: PartMeta
    overlap_windows: int  # passages of validation looked up in training, `overlap.WINDOW` tokens
    overlap_shared: int  # those of them found there
    skipped: dict[str, int]  # by reason

    def __post_init__(self) -> None:
        within("corpus", 1, 2**32, vocab_size=self.vocab_size)  # ids are of an unsigned type


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the lock of `folder`, waiting for it; it is freed however the process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        try:
            lock.flock(file)
        except BlockingIOError:
            say(f"another process is preparing {folder.name}; waiting for it")
            lock.flock(file, wait=True)
        except OSError as error:
            raise UserError(
                f"{folder.parent}: cannot be locked ({faults.reason(error)}); "
                "set CHINCHILLA_JAX_CACHE to a folder on a local disk"
            ) from None
        yield
