"""The token store: a corpus tokenised once into flat files that training maps into memory.

Its files are those of `layout.py`. Opening checks them and takes well under a tenth of a second;
only a build imports tensorflow_datasets, array_record or sentencepiece.
"""

import contextlib
import functools
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chinchilla_jax.data import overlap, python_source, sources, tokenizers
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
from chinchilla_jax.data.mixture import Mixture
from chinchilla_jax.data.progress import say
from chinchilla_jax.data.sampler import Sampler, validation_windows
from chinchilla_jax.data.tokenizers import Tokenizer
from chinchilla_jax.experiment import contents
from chinchilla_jax.experiment.config import EMBEDDED, DataConfig
from chinchilla_jax.experiment.epochs import unique_tokens
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.json_data import read_json
from chinchilla_jax.experiment.numbers import percentage
from chinchilla_jax.experiment.schema import from_json, typed, within
from chinchilla_jax.experiment.storage import expanded, is_remote, write_text_atomic

_MOST_META = 1 << 24  # bytes of meta.json
_AND = "+"  # between the fingerprints of a mixture
CHECKED_BYTES = 256 << 20  # files up to here are checked whole at every opening, else by size


@dataclass(frozen=True, eq=False)
class Corpus:
    """An opened corpus. Tokens are memory-mapped: what is not read takes no memory."""

    folder: Path
    meta: CorpusMeta
    train: np.ndarray  # [N] of the smallest unsigned type that holds the vocabulary
    validation: np.ndarray
    token_bytes: np.ndarray  # [V] int64, bytes of text that each id spells
    most: int | None = None  # of `sampler.Sampler`, as is the next
    noise: float = 0.0
    selection: str = ""  # fingerprint of what a filter has kept, `selection.py`
    others: tuple["Corpus", ...] = ()  # whose training text is mixed in
    weights: tuple[float, ...] = (1.0,)  # of this one and of the others
    in_others: tuple[float, ...] = ()  # as `held_out_in_training`, of each of the others

    @property
    def train_tokens(self) -> int:
        """Those of an epoch, and the first; of a mixture, until a part of it is used up."""
        if self.others:
            ends = (part.train_tokens / share for part, share in self._parts())
            return int(min(ends))
        return len(self.train) if self.most is None else min(len(self.train), self.most + 1)

    @property
    def data_fingerprint(self) -> str:
        """Of documents and their split; of a mixture those of all its parts."""
        fingerprints = (part.meta.data_fingerprint for part in (self, *self.others))
        return _AND.join(fingerprints)

    def unique_tokens(self, tokens: int, sequence: int) -> int:
        """How many different ones a run of so many predicts."""
        return sum(
            min(round(tokens * share), unique_tokens(len(part.train), sequence, part.most))
            for part, share in self._parts()
        )

    @property
    def text_fingerprint(self) -> str:
        """Of what is trained on: of the data, and of what a filter has kept of them."""
        kept = _AND.join(part.selection for part in (self, *self.others))
        return f"{self.data_fingerprint}/{kept}" if self.selection else self.data_fingerprint

    @property
    def tokenizer_fingerprint(self) -> str:
        return self.meta.tokenizer_fingerprint

    @property
    def held_out_in_training(self) -> float | None:
        """Share of the passages held out that occur word for word in training text, at least; None
        where none was looked up."""
        if not self.meta.overlap_windows:
            return None
        own = self.meta.overlap_shared / self.meta.overlap_windows
        shares = zip((own, *self.in_others), self.weights, strict=True)
        return max(share for share, weight in shares if weight > 0)

    @property
    def left_out(self) -> str:
        """What of the source is not in the corpus, by reason; of a mixture of all its parts."""
        skipped: Counter[str] = Counter()
        for part in (self, *self.others):
            skipped.update(part.meta.skipped)
        return _reasons(skipped) or "nothing"

    def examples(self, seed: int, numbers: np.ndarray, sequence: int) -> np.ndarray:
        """Training examples by number: int32 [*numbers.shape, S + 1]; see `sampler.Sampler`."""
        return self._reader(sequence).examples(seed, numbers)

    @functools.cached_property
    def _reader(self) -> Callable[[int], Sampler | Mixture]:
        """What reads rows of a length: kept, since it remembers where they are."""

        @functools.lru_cache(maxsize=1)
        def made(sequence: int) -> Sampler | Mixture:
            samplers = tuple(part._sampler(sequence) for part, _ in self._parts())
            return Mixture(samplers, self.weights) if self.others else samplers[0]

        return made

    def _sampler(self, sequence: int) -> Sampler:
        return Sampler(self.train, sequence, self.most, self.noise, self.meta.vocab_size)

    def _parts(self) -> list[tuple["Corpus", float]]:
        """This one and the others, each with its share of examples; caps are split likewise."""
        total = sum(self.weights)
        return [
            (
                replace(
                    part,
                    most=self.most if self.most is None else round(self.most * weight / total),
                    noise=self.noise,
                    others=(),
                    weights=(1.0,),
                ),
                weight / total,
            )
            for part, weight in zip((self, *self.others), self.weights, strict=True)
        ]

    def validation_windows(self, count: int, sequence: int) -> tuple[np.ndarray, int]:
        """(windows int32 [count, S + 1], bytes of text that their [:, 1:] spell)."""
        windows = validation_windows(self.validation, count, sequence)
        return windows, int(self.token_bytes[windows[:, 1:]].sum())

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of these tokens, to decode them or to encode other text."""
        if self.meta.tokenizer == "bytes":
            return tokenizers.bytes_tokenizer()
        return tokenizers.sentencepiece_tokenizer((self.folder / MODEL).read_bytes())

    def verify(self) -> None:
        """Reads all files, of whatever size.

        Raises:
          UserError: a file is not what was written; names it.
        """
        for name in (TRAIN, VALIDATION):
            _check_content(self.folder / f"{name}.bin", getattr(self.meta, name))


def open_corpus(config: DataConfig, cache: Path, expected: str | None = None) -> Corpus:
    """Opens the corpus of `config`, building it first when `cache` does not have it.

    Of processes that want to build the same corpus, one does and the others wait.

    Args:
      expected: the data fingerprint that runs in progress were begun with. A corpus of that
        fingerprint and tokenizer in `cache` is opened even when packages were installed or files
        touched since: a sweep goes on with the text it began with.

    Raises:
      UserError: the source is missing, damaged or empty; the corpus in the cache is damaged; or
        it is not the expected one; a part of a mixture has another tokenizer.
    """
    if config.mixed_with:
        return _mixed(config, cache, expected)
    root = cache / "corpora"
    try:
        if expected and (folder := _find(root, config, expected)):
            return _load(folder)
        files, skipped, stamp = _look(config)
        source = root / f"{config.builder}-{_key(config.builder, config.text_field, stamp)}"
        key = _key(
            source.name,
            config.tokenizer,
            config.vocab_size,
            config.validation_fraction,
            config.max_megabytes,
        )
        folder = root / f"{config.builder}-{config.tokenizer}-{key}"
        if not folder.exists():
            with alone(folder):
                if not folder.exists():
                    from chinchilla_jax.data.build import build  # a second of imports

                    say(describe(build(config, files, skipped, source, folder)))
        corpus = _load(folder)
    except OSError as error:
        place = error.filename or root
        raise UserError(f"{place}: {error.strerror or error} (preparing the corpus)") from error
    if expected and corpus.data_fingerprint != expected:
        raise UserError(
            f"the corpus that these runs are of (data fingerprint {expected}) is gone from {root}, "
            f"and the source now gives {corpus.data_fingerprint}: its files or the installed "
            "packages changed; put the old cache back, or use another --workdir (of a registered "
            "forecast only the first will do)"
        )
    return corpus


def tokenizer_of(config: DataConfig, cache: Path, fingerprint: str) -> Tokenizer:
    """The tokenizer of this fingerprint, as a corpus in `cache` has it; no text is prepared.

    Raises:
      UserError: it is not the one of `config`, or no corpus in the cache has it.
    """
    if config.tokenizer == "bytes":
        found = tokenizers.bytes_tokenizer()
        if found.fingerprint == fingerprint:
            return found
        raise UserError(
            f"its tokens are of another tokenizer ({fingerprint}) than bytes ({found.fingerprint})"
        )
    root = cache / "corpora"
    for path in sorted(root.glob(f"*-{config.tokenizer}-*/{META}")):
        with contextlib.suppress(UserError, OSError):  # a damaged one is named when it is opened
            if _read_meta(path).tokenizer_fingerprint == fingerprint:
                model = (path.parent / MODEL).read_bytes()
                found = tokenizers.sentencepiece_tokenizer(model)
                if found.fingerprint == fingerprint:
                    return found
    raise UserError(
        f"its tokenizer ({config.tokenizer}, {fingerprint}) is in no corpus of {root}; prepare the "
        "text that the run was trained on, or set CHINCHILLA_JAX_CACHE to the cache that has it"
    )


def _mixed(config: DataConfig, cache: Path, expected: str | None) -> Corpus:
    """The corpus of `config` with those that it is mixed with."""
    known = expected.split(_AND) if expected else [None] * len(config.weights)
    if len(known) != len(config.weights):
        raise UserError(
            f"data.mixed_with: the mixture has {len(config.weights)} parts, and the text that "
            f"these runs are of {len(known)} (data fingerprint {expected})"
        )
    plain = replace(config, mixed_with=(), weights=())
    first = open_corpus(plain, cache, known[0])
    others, shared = [], []
    for path, fingerprint in zip(config.mixed_with, known[1:], strict=True):
        try:
            part = open_corpus(_part(plain, path), cache, fingerprint)
        except UserError as error:
            raise UserError(f"data.mixed_with = {path!r}: {error}") from None
        if part.tokenizer_fingerprint != first.tokenizer_fingerprint:
            raise UserError(
                f"data.mixed_with = {path!r}: has another tokenizer than the corpus itself, learnt "
                "of its own text; a mixture has one, as data.tokenizer = bytes is"
            )
        shared.append(_overlap(first, part, path, cache / "corpora"))
        others.append(part)
    return replace(first, others=tuple(others), weights=config.weights, in_others=tuple(shared))


def _part(plain: DataConfig, path: str) -> DataConfig:
    """The corpus at a path of `data.mixed_with`, whole."""
    if path in EMBEDDED:
        return replace(plain, builder=path, path="", max_megabytes=None)
    prepared = (expanded(path) / "dataset_info.json").exists()
    builder = "array_record" if prepared else "local_text"
    return replace(plain, builder=builder, path=path, max_megabytes=None)


def _overlap(first: Corpus, part: Corpus, path: str, root: Path) -> float:
    """The share of what `first` holds out that a part has in its training text; said once."""
    file = root / f"overlap-{first.folder.name}-{part.folder.name}.json"
    if file.exists():
        with contents.remedy("remove this file"):
            known = typed(Mapping[str, int], read_json(file, _MOST_META), str(file))
            counts = {name: contents.field(known, name, file) for name in ("windows", "shared")}
            within(str(file), 0, 2**62, **counts)
        return counts["shared"] / max(counts["windows"], 1)
    windows, shared = overlap.shared_windows(
        [part.train], [first.validation], first.meta.validation.tokens
    )
    write_text_atomic(file, json.dumps({"windows": windows, "shared": shared}) + "\n")
    share = shared / max(windows, 1)
    say(
        f"{percentage(share, 1)} of the passages of {overlap.WINDOW} tokens held out occur word "
        f"for word in the training text of {path}"
    )
    return share


def describe(meta: CorpusMeta) -> str:
    """Two or three lines for a person: how much text there is, and what was left out."""
    train, held = meta.train, meta.validation
    lines = [
        f"corpus {meta.builder} {meta.path}".rstrip()
        + f": {train.documents + held.documents:,} documents, "
        f"{(train.bytes + held.bytes) / 1e6:.1f} MB; {train.tokens:,} tokens to train on, "
        f"{held.tokens:,} held out ({train.bytes / train.tokens:.2f} bytes per token, "
        f"fingerprint {meta.data_fingerprint})"
    ]
    if meta.skipped:
        lines.append(f"left out: {_reasons(meta.skipped)}")
    if meta.overlap_windows:
        fraction = meta.overlap_shared / meta.overlap_windows
        lines.append(
            f"{percentage(fraction, 1)} of the passages of {overlap.WINDOW} tokens held out occur "
            "word for word in training; no document does"
        )
    return "\n".join(lines)


def _reasons(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))


def _find(root: Path, config: DataConfig, expected: str) -> Path | None:
    """The folder in the cache with this data fingerprint and the tokenizer of `config`."""
    for path in sorted(root.glob(f"{config.builder}-{config.tokenizer}-*/{META}")):
        with contextlib.suppress(UserError):  # a damaged one is named when it is opened
            meta = _read_meta(path)
            if (meta.data_fingerprint, meta.vocab_size) == (expected, config.vocab_size):
                return path.parent
    return None


def _look(config: DataConfig) -> tuple[list[Path], Counter[str], str]:
    """(files of the source, those skipped by reason, what tells that they changed)."""
    if config.builder in EMBEDDED:
        return [], Counter(), python_source.stamp(config.packages)
    if is_remote(config.path):
        raise UserError(
            f"data.path = {config.path!r}: text is read from local files; copy it first, as by "
            f"gcloud storage cp -r {config.path} text"
        )
    if config.builder == "local_text":
        files, skipped = sources.expand(config.path)
        return files, skipped, sources.stamp(files)
    folder = expanded(config.path)
    if not folder.is_dir():
        raise UserError(f"data.path = {config.path!r}: no such folder")
    return [], Counter(), sources.stamp(sorted(p.absolute() for p in folder.iterdir()))


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:12]


def _load(folder: Path) -> Corpus:
    """Opens a finished folder after checking its files."""
    meta = _read_meta(folder / META)
    dtype = np.dtype(np.min_scalar_type(meta.vocab_size - 1))
    for name in (TRAIN, VALIDATION):
        path, part = folder / f"{name}.bin", getattr(meta, name)
        size = path.stat().st_size if path.exists() else 0
        if size != part.tokens * dtype.itemsize:
            raise _damaged(path, f"{size} bytes, {part.tokens * dtype.itemsize} were written")
        if size <= CHECKED_BYTES:
            _check_content(path, part)
    try:
        token_bytes = np.load(folder / TOKEN_BYTES, allow_pickle=False)
        if token_bytes.shape != (meta.vocab_size,) or token_bytes.dtype != np.int64:
            raise ValueError(f"{meta.vocab_size} whole numbers were written")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder / TOKEN_BYTES, str(error)) from None
    return Corpus(
        folder=folder,
        meta=meta,
        train=np.memmap(folder / f"{TRAIN}.bin", dtype, "r"),
        validation=np.memmap(folder / f"{VALIDATION}.bin", dtype, "r"),
        token_bytes=token_bytes,
    )


def _read_meta(path: Path) -> CorpusMeta:
    try:
        return from_json(CorpusMeta, read_json(path, _MOST_META), path.name)
    except UserError as error:
        raise _damaged(path, str(error).removeprefix(f"{path}: ")) from None


def _check_content(path: Path, part: PartMeta) -> None:
    crc32 = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc32 = zlib.crc32(block, crc32)
    if crc32 != part.crc32:
        raise _damaged(path, "its content is not what was written")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged ({what}); delete the folder {path.parent} to rebuild it")
