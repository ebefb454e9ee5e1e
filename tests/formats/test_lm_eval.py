"""Held-out text as a task of lm-eval, without lm-eval: the windows that it will cut are ours."""

import json

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import bytes_tokenizer
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.formats import lm_eval

BYTES = bytes_tokenizer()


def rolling(tokens, length):
    """(inputs, predictions) as `lm_eval.utils.get_rolling_token_windows` 0.4.13 cuts a text."""
    for end in range(length, len(tokens) + length, length):
        end = min(end, len(tokens))
        first = (end - 1) // length * length
        yield ([0, *tokens][end - length : end], tokens[first:end])


def held(documents, sequence=8, most=100):
    tokens = BYTES.encode([text.encode() for text in documents]).astype(np.uint16)
    return lm_eval.held_out(tokens, BYTES, sequence, most), tokens


def test_windows_are_those_that_lm_eval_cuts():
    text, _ = held(["a first document of some length", "b", "short", "and a last one, long too"])
    cut = [pair for each in text.texts for pair in rolling(BYTES.encode([each.encode()])[:-1], 8)]
    assert len(cut) == len(text.windows) > 5
    for window, (inputs, predicted) in zip(text.windows, cut, strict=True):
        assert window[:-1].tolist() == inputs and window[1:].tolist() == predicted.tolist()


def test_texts_begin_documents_and_are_in_order_without_a_token_twice():
    documents = ["one document that is long enough", "tiny", "x", "and another that is long enough"]
    text, tokens = held(documents)
    stream, at = tokens.tobytes().decode("utf-16-le"), 0
    for each in text.texts:
        assert len(each) % 8 == 0 and any(part and part in each for part in documents)
        at = stream.index(each, at) + len(each)
    assert text.texts[0] == documents[0] and "\0" in text.texts[1]


def test_a_text_ends_where_a_character_does():
    text, _ = held(["abcdefg\u4e16" * 8])
    (only,) = text.texts
    assert len(only.encode()) % 8 == 0 and "\ufffd" not in only
    with pytest.raises(UserError, match="no 8 tokens in a row"):
        held(["abcdefg\u4e16"])


@pytest.mark.parametrize("most", [1, 2, 7])
def test_there_are_at_most_as_many_as_asked_spread_over_documents(most):
    documents = [f"{number:02}: a document of some length " for number in range(30)]
    text, _ = held(documents, most=most)
    assert 0 < len(text.windows) <= most
    numbers = [int(each[:2]) for each in text.texts]
    assert most < 7 or (len(numbers) > 1 and numbers[-1] > 5)


def test_few_are_not_all_of_one_long_document():
    documents = [chr(97 + number) * 800 for number in range(10)]
    text, _ = held(documents, most=10)
    assert len(text.windows) == 10 and {each[0] for each in text.texts} == set("abcdefghij")


def test_the_task_counts_no_bytes_of_separators(tmp_path, monkeypatch):
    class Dataset:
        from_list = staticmethod(list)

    text, _ = held(["tiny \u00e9", "small", "longer than these two"])
    lm_eval.write(tmp_path, text)
    code = (tmp_path / "lm_eval" / "held_out.py").read_text().replace("import datasets\n", "")
    names = {"__file__": str(tmp_path / "lm_eval" / "held_out.py"), "datasets": None}
    names["datasets"] = type("datasets", (), {"Dataset": Dataset})
    exec(code, names)
    (split,) = names["dataset"](version=1).values()
    assert [names["text"](doc) for doc in split] == text.texts
    spelled = sum(names["process_results"](doc, [-1.0])["bits_per_byte"][1] for doc in split)
    assert spelled == BYTES.token_bytes[text.windows[:, 1:]].sum() < text.windows[:, 1:].size
    lines = (tmp_path / "lm_eval" / "held_out.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == text.texts
