"""Text to ids and back, without loss: bytes, or SentencePiece as an extra.

In both, id 0 ends a document and no text contains it. Every other id spells a fixed number of
bytes, so nats per token become bits per byte exactly:

    bits per byte = nats summed over tokens / (ln 2 x bytes that these tokens spell)
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chinchilla_jax.experiment.errors import UserError

SEPARATOR = 0
SAMPLE_BYTES = 32 << 20  # of text from which a SentencePiece vocabulary is learnt
_SPACE = "▁"  # what SentencePiece writes for a space


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """How documents become ids.

    `encode` maps documents (UTF-8, without NUL) to one flat array in which each is followed by
    SEPARATOR; `decode` maps ids back to bytes, a separator to NUL.
    """

    name: str
    vocab_size: int
    fingerprint: str  # sixteen hex digits
    token_bytes: np.ndarray  # [V] int64, bytes of text that each id spells; 0 for the separator
    encode: Callable[[Sequence[bytes]], np.ndarray]
    decode: Callable[[np.ndarray], bytes]
    model: bytes = b""  # what is stored beside the tokens

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer type that holds every id."""
        return np.dtype(np.min_scalar_type(self.vocab_size - 1))


def bytes_tokenizer() -> Tokenizer:
    """256 ids: the bytes of UTF-8, and NUL between documents."""
    return Tokenizer(
        name="bytes",
        vocab_size=256,
        fingerprint=_fingerprint(b"bytes of UTF-8, NUL after each document"),
        token_bytes=(np.arange(256) != SEPARATOR).astype(np.int64),
        encode=lambda texts: np.frombuffer(b"".join(t + b"\0" for t in texts), np.uint8),
        decode=lambda ids: np.asarray(ids).astype(np.uint8).tobytes(),
    )


def sentencepiece_tokenizer(model: bytes) -> Tokenizer:
    """The tokenizer of a serialized SentencePiece model with byte fallback."""
    processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
    vocab_size = processor.get_piece_size()
    pieces = [_piece_bytes(processor, number) for number in range(vocab_size)]
    # SentencePiece reads its own sign for a space as a space; these bytes spell it instead.
    literal = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]

    def encode(texts: Sequence[bytes]) -> np.ndarray:
        parts = [text.decode().split(_SPACE) for text in texts]
        encoded = iter(processor.encode([p for document in parts for p in document]))
        ids: list[int] = []
        for document in parts:
            for number in range(len(document)):
                ids += literal if number else []
                ids += next(encoded)
            ids.append(SEPARATOR)
        return np.array(ids, np.int64)

    return Tokenizer(
        name="sentencepiece",
        vocab_size=vocab_size,
        fingerprint=_fingerprint(model),
        token_bytes=np.array([0] + [len(piece) for piece in pieces[1:]], np.int64),
        encode=encode,
        decode=lambda ids: b"".join(pieces[number] for number in np.asarray(ids).tolist()),
        model=model,
    )


class Piece(NamedTuple):
    """What one id of a SentencePiece model is."""

    text: str
    score: float  # the higher, the sooner two neighbours become it
    is_byte: bool  # not found in text, but what spells a character that is no piece


def pieces_of(model: bytes) -> list[Piece]:
    """All of a serialized SentencePiece model, by id."""
    processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
    return [
        Piece(processor.id_to_piece(i), processor.get_score(i), processor.is_byte(i))
        for i in range(processor.get_piece_size())
    ]


def train_sentencepiece(documents: Iterable[bytes], vocab_size: int) -> bytes:
    """Learns a BPE vocabulary from `documents`: identity normalisation, byte fallback.

    Args:
      documents: the sample; some SAMPLE_BYTES are plenty, and all of it is held in memory.

    Returns:
      The serialized model.

    Raises:
      UserError: the sample cannot fill `vocab_size`, or sentencepiece is not installed.
    """
    trainer = _sentencepiece().SentencePieceTrainer
    model = io.BytesIO()
    lines = (line for text in documents for line in text.decode().split("\n") if line)
    try:
        trainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.9999,  # rarer characters are spelled in bytes
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,  # indentation
            max_sentence_length=1 << 16,
            unk_id=SEPARATOR,  # with byte fallback no text is unknown, so its id is free
            unk_piece="<document>",
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=os.cpu_count() or 1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split("]")[-1].split())
        raise UserError(f"data.vocab_size = {vocab_size}: {reason or error}") from None
    return model.getvalue()


def _piece_bytes(processor: Any, number: int) -> bytes:
    """The bytes that one id spells."""
    piece = processor.id_to_piece(number)
    if number == SEPARATOR:
        return b"\0"
    if processor.is_byte(number):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError(
            "data.tokenizer = 'sentencepiece': it is not installed; "
            "run `pip install 'chinchilla_jax[spm]'`, or use data.tokenizer = 'bytes'"
        ) from None
    return sentencepiece


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
