"""Prompts into tokens, and tokens into a terminal."""

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import bytes_tokenizer
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training.prompts import Printer, encoded, visible

BYTES = bytes_tokenizer()


def test_a_prompt_is_its_bytes():
    assert encoded("héé", BYTES, 5).tolist() == list("héé".encode())


@pytest.mark.parametrize("prompt,told", [
    ("", "is empty"),
    ("abc\udcff", "'abc.udcff': has the byte 0xff, so is no UTF-8"),
    ("a\0b", "has a NUL"),
    ("toolong", "has 7 tokens, and the run was trained on sequences of 5; give its last 5"),
    (100 * "x", r"=.x{36}\.\.\..: has 100 tokens"),
])  # fmt: skip
def test_what_is_no_prompt_is_refused(prompt, told):
    with pytest.raises(UserError, match=f"^--prompt.*{told}"):
        encoded(prompt, BYTES, 5)


def test_texts_are_shown_one_after_the_other_as_they_grow():
    shown = []
    printer = Printer(["a", "b"], BYTES, shown.append)

    def add(row, spelled):
        printer.add(row, np.frombuffer(spelled, np.uint8))
        return "".join(shown)

    assert add(1, b"second") == ""
    assert add(0, b"1\xc3") == "a1"  # the second byte of a letter is to come
    assert add(0, b"\xa9.\0") == "a1é."
    assert add(1, b"\xe2\x82\0") == "a1é."
    printer.ended()
    assert "".join(shown) == "a1é.\n\nbsecond\ufffd\n"


def test_a_text_moves_no_cursor():
    assert visible("a\tb\n\x1b[2J\x9b\r\u202e") == "a\tb\n\\x1b[2J\\x9b\\r\\u202e"
