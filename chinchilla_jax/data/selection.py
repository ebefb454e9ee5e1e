"""The documents of a training text that a filter keeps, as a text of its own in the cache.

The text held out is never filtered: what is chosen is measured on what is not. Selecting is done
once and kept beside the corpora, in a folder that appears by one rename.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from chinchilla_jax.data import python_source, quality, sources
from chinchilla_jax.data.layout import META, TRAIN, alone
from chinchilla_jax.data.progress import progress, say
from chinchilla_jax.data.store import Corpus
from chinchilla_jax.data.tokenizers import SEPARATOR
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.json_data import read_json
from chinchilla_jax.experiment.numbers import percentage
from chinchilla_jax.experiment.storage import write_text_atomic

VERSION = 1  # of what is kept of a text
_BLOCK = 1 << 22  # tokens looked through at once
_LEARNT_FROM = 500  # documents of each kind, at most


def selected(corpus: Corpus, how: str, keep: float, curated: str) -> Corpus:
    """The corpus with what a filter keeps of its training text, and of all that are mixed in.

    Args:
      how: gopher, classifier or random.
      keep: the share of the tokens, of the last two: the best documents up to that.
      curated: files of the curated set, as in `data.path`, or python_source.LIBRARY; of the
        classifier alone.
    Raises:
      UserError: no curated text, one that is all of what is held out, or nothing is kept.
    """
    good = _curated(curated) if how == "classifier" else _Curated("", list)
    every = (replace(corpus, others=(), weights=(1.0,)), *corpus.others)
    parts = [_selected(part, how, keep, good) for part in every]
    return replace(parts[0], others=tuple(parts[1:]), weights=corpus.weights)


@dataclass(frozen=True)
class _Curated:
    """What a classifier holds good, and what tells that it changed."""

    stamp: str
    read: Callable[[], Iterable[bytes]]


def _curated(path: str) -> _Curated:
    if path == python_source.LIBRARY:
        read = partial(python_source.documents, path, Counter())
        return _Curated(python_source.stamp(path), lambda: (text for _, text in read()))
    files, _ = sources.expand(path)
    return _Curated(
        sources.stamp(files),
        lambda: (text for _, text in sources.documents(files, "text", Counter())),
    )


def _selected(corpus: Corpus, how: str, keep: float, good: _Curated) -> Corpus:
    key = json.dumps([VERSION, corpus.folder.name, how, keep, good.stamp])
    name = f"selected-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder = corpus.folder.with_name(name)
    if not folder.exists():
        with alone(folder):
            if not folder.exists():
                _write(corpus, how, keep, good, folder)
    meta = read_json(folder / META)
    train = np.memmap(folder / f"{TRAIN}.bin", corpus.train.dtype, "r")
    return replace(corpus, train=train, selection=meta["selection"])


def _write(corpus: Corpus, how: str, keep: float, good: _Curated, folder: Path) -> None:
    spans = spans_of(corpus.train)
    decode = corpus.tokenizer().decode

    def read() -> Iterator[bytes]:
        with progress(f"selecting by {how}", len(corpus.train)) as advance:
            for first, end in spans.tolist():
                advance(end - first)
                yield decode(corpus.train[first:end])

    if how == "gopher":
        kept = np.array([quality.gopher(text.decode(errors="replace")) for text in read()])
    else:
        score = quality.chance if how == "random" else _learnt(corpus, good, spans, decode)
        kept = best(np.array([score(text) for text in read()]), spans[:, 1] - spans[:, 0], keep)
    if not kept.any():
        raise UserError(
            f"techniques.data.quality = {how!r}: keeps no document of {corpus.meta.path}"
        )
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir()
    tokens, digest = 1, hashlib.sha256()
    with (building / f"{TRAIN}.bin").open("wb") as file:
        file.write(np.array([SEPARATOR], corpus.train.dtype).tobytes())
        for first, end in spans[kept].tolist():
            content = corpus.train[first : end + 1].tobytes()  # with the separator behind it
            digest.update(content)
            tokens += end + 1 - first
            file.write(content)
    meta = {"selection": digest.hexdigest()[:16], "documents": int(kept.sum()), "tokens": tokens}
    write_text_atomic(building / META, json.dumps(meta) + "\n")
    building.rename(folder)
    say(
        f"{how} keeps {kept.sum():,} of {len(spans):,} documents of {corpus.meta.path}, "
        f"{percentage(tokens / len(corpus.train))} of the tokens"
    )


def spans_of(tokens: np.ndarray) -> np.ndarray:
    """Where documents begin and end: int64 [documents, 2], the separator at the end not in it."""
    found = [
        start + np.flatnonzero(tokens[start : start + _BLOCK] == SEPARATOR)
        for start in range(0, len(tokens), _BLOCK)
    ]
    places = np.concatenate(found)
    return np.stack([places[:-1] + 1, places[1:]], axis=1)


def best(score: np.ndarray, tokens: np.ndarray, keep: float) -> np.ndarray:
    """Which documents are kept: those of highest score, until they have the share of the tokens."""
    order = np.argsort(-score, kind="stable")
    before = np.cumsum(tokens[order]) - tokens[order]
    kept = np.zeros(len(score), bool)
    kept[order[before < keep * tokens.sum()]] = True
    return kept


def _learnt(
    corpus: Corpus, good: _Curated, spans: np.ndarray, decode: Callable[[np.ndarray], bytes]
) -> Callable[[bytes], float]:
    """The classifier of the curated set against documents of the corpus, evenly over it."""
    curated = list(good.read())
    held = {decode(corpus.validation[a:b]) for a, b in spans_of(corpus.validation).tolist()}
    told = sum(text in held for text in curated)
    curated = [text for text in curated if text not in held]
    if told:
        say(f"{told} documents of the curated set are held out, and nothing is learnt from them")
    if not curated:
        raise UserError("techniques.data.curated: all of its documents are held out")
    places = np.linspace(0, len(spans) - 1, min(_LEARNT_FROM, len(spans))).astype(int)
    others = [decode(corpus.train[a:b]) for a, b in spans[places].tolist()]
    return quality.classifier(_some(curated), others)


def _some(documents: list[bytes]) -> list[bytes]:
    """Evenly over them, as many as are learnt from."""
    places = np.linspace(0, len(documents) - 1, min(_LEARNT_FROM, len(documents))).astype(int)
    return [documents[place] for place in places]
