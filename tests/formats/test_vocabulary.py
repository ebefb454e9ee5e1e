"""Our tokenizers as tokenizer.json: ids by the file alone are the ids of our encoder."""

import json
from itertools import pairwise

import pytest

from chinchilla_jax.data.tokenizers import (
    Piece,
    bytes_tokenizer,
    sentencepiece_tokenizer,
    train_sentencepiece,
)
from chinchilla_jax.formats import vocabulary

TEXTS = (
    "héllo wörld\n\tdef f(x):  return x\r\n",
    "   leading, trailing   ",
    "世界 🙂 a naïve <0x41> <document> <|endoftext|>",
    "aaaaaaa bbbbbbbbbb the the thethe",
    "",
)


@pytest.fixture(scope="module")
def learnt():
    pytest.importorskip("sentencepiece")
    words = ("the", "model", "learns", "a", "curve", "naïve", "世界", "aaa", "bbbb", "def", "\n\t")
    documents = [" ".join(words[(i * k) % 11] for k in range(60)).encode() for i in range(1, 80)]
    return sentencepiece_tokenizer(train_sentencepiece(documents, 340))


def encoded(file, text):
    """By the rules of a BPE of Hugging Face's tokenizers, one merge after the other."""
    model = file["model"]
    vocab, ranks = model["vocab"], {tuple(m): i for i, m in enumerate(model["merges"])}
    if model["byte_fallback"]:
        rule = file["normalizer"]
        symbols = list(text.replace(rule["pattern"]["String"], rule["content"]))
    else:
        symbols = [vocabulary.byte_signs()[byte] for byte in text.encode()]
    while pairs := [(ranks[p], i) for i, p in enumerate(pairwise(symbols)) if p in ranks]:
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    ids = []
    for symbol in symbols:
        spelled = [f"<0x{byte:02X}>" for byte in symbol.encode()]
        ids += [vocab[symbol]] if symbol in vocab else [vocab[byte] for byte in spelled]
    return ids


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_ids_are_those_of_our_encoder(tmp_path, kind, request):
    tokenizer = bytes_tokenizer() if kind == "bytes" else request.getfixturevalue("learnt")
    vocabulary.write(tmp_path, tokenizer, 64)
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    assert sorted(file["model"]["vocab"].values()) == list(range(tokenizer.vocab_size))
    for text in TEXTS:
        ours = tokenizer.encode([text.encode()]).tolist()
        assert [*encoded(file, text), 0] == ours, text
    assert (tmp_path / "tokenizer.model").exists() == (kind == "sentencepiece")


def test_no_text_merges_into_what_spells_a_byte():
    pieces = [Piece("<0x41>", 0.0, True), Piece("<0x", -1.0, False), Piece("41>", -2.0, False)]
    letters = [Piece(letter, -9.0 - i, False) for i, letter in enumerate("<0x41>")]
    found = vocabulary.merges([*pieces, *letters])
    assert ["0", "x"] not in found and ["<0x", "41>"] not in found
    assert vocabulary.merges([*pieces[1:], Piece("<0x41>", -3.0, False)]) == [["<0x", "41>"]]


def test_nul_begins_ends_and_pads(tmp_path):
    vocabulary.write(tmp_path, bytes_tokenizer(), 64)
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    (added,) = file["added_tokens"]
    assert (added["id"], added["content"], added["special"]) == (0, "\0", True)
    assert file["model"]["vocab"]["\0"] == 0
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert [settings[f"{name}_token"] for name in ("bos", "eos", "pad")] == ["\0"] * 3
    assert settings["model_max_length"] == 64


def test_signs_of_bytes_are_those_of_gpt_2():
    signs = vocabulary.byte_signs()
    assert len(set(signs)) == 256
    assert signs[ord("A")] == "A" and signs[ord(" ")] == "Ġ" and signs[ord("\n")] == "Ċ"
    assert signs[0xAD] == "Ń" and signs[0xFF] == "ÿ"
