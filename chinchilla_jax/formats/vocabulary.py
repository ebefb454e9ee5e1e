"""Our tokenizers as files of Hugging Face's tokenizers: the same ids for the same text.

Id 0 stands between documents, and no text contains it: it is spelled NUL, begins a text, ends it
and pads it. Bytes are a BPE over bytes without a merge. A SentencePiece vocabulary is a BPE whose
merges are, for each piece, the pairs of pieces that spell it, in the order in which it was learnt;
what no piece spells are bytes. One thing differs: SentencePiece's own sign for a space, ▁, is a
space to it, and to our encoder the three bytes that it is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.data.tokenizers import SEPARATOR, Piece, Tokenizer, pieces_of
from chinchilla_jax.experiment import storage

NUL, SPACE = "\0", "▁"
MODEL = "tokenizer.model"  # a SentencePiece model, as llama.cpp and others look for it


def byte_signs() -> list[str]:
    """What a BPE over bytes writes for each byte: itself where it is printable (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    signs, others = [], 0
    for byte in range(256):
        signs.append(chr(byte if byte in printable else 256 + others))
        others += byte not in printable
    return signs


def write(folder: Path, tokenizer: Tokenizer, sequence_length: int) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, and the model that they are made from.

    Args:
      sequence_length: tokens that the model was trained to see.
    """
    made = _bytes() if tokenizer.name == "bytes" else _sentencepiece(tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), NUL),
        "model_max_length": sequence_length,
        "clean_up_tokenization_spaces": False,
    }
    for name, content in (("tokenizer.json", made), ("tokenizer_config.json", settings)):
        storage.write_text_atomic(folder / name, json.dumps(content, indent=1) + "\n")
    if tokenizer.model:
        storage.write_bytes_atomic(folder / MODEL, tokenizer.model)


def _bytes() -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return _tokenizer(
        vocabulary=[NUL, *byte_signs()[1:]],
        merges=[],
        byte_fallback=False,
        normalizer=None,
        pre_tokenizer={**byte_level, "trim_offsets": True},
        decoder={**byte_level, "trim_offsets": True},
    )


def _sentencepiece(tokenizer: Tokenizer) -> dict[str, Any]:
    pieces = pieces_of(tokenizer.model)

    def replace(old: str, new: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"String": old}, "content": new}

    undo = [replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    return _tokenizer(
        vocabulary=[NUL, *(piece.text for piece in pieces[1:])],
        merges=merges(pieces[1:]),
        byte_fallback=True,
        normalizer=replace(" ", SPACE),
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": undo},
    )


def merges(pieces: Sequence[Piece]) -> list[list[str]]:
    """Pairs of pieces that spell a piece, by its score: in the order in which it was learnt."""
    learnt = sorted((piece for piece in pieces if not piece.is_byte), key=lambda p: -p.score)
    ranks = {piece.text: rank for rank, piece in enumerate(learnt)}
    found = []
    for text in ranks:
        halves = ((text[:i], text[i:]) for i in range(1, len(text)))
        pairs = [[left, right] for left, right in halves if left in ranks and right in ranks]
        found += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found


def _tokenizer(
    *,
    vocabulary: Sequence[str],
    merges: Sequence[Sequence[str]],
    byte_fallback: bool,
    normalizer: Any,
    pre_tokenizer: Any,
    decoder: Any,
) -> dict[str, Any]:
    """The content of `tokenizer.json`."""
    nul = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": SEPARATOR, "content": NUL, **nul, "special": True}],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": byte_fallback,
            "ignore_merges": False,
            "vocab": {sign: number for number, sign in enumerate(vocabulary)},
            "merges": merges,
        },
    }
