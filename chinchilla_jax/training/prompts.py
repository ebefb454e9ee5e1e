"""Prompts into tokens, and tokens into a terminal."""

import codecs
from collections.abc import Callable, Sequence

import numpy as np

from chinchilla_jax.data.tokenizers import SEPARATOR, Tokenizer
from chinchilla_jax.experiment.errors import UserError

_SHOWN = "\n\t"  # of the characters that would make a terminal do something


def encoded(prompt: str, tokenizer: Tokenizer, window: int) -> np.ndarray:
    """The tokens of a prompt, [1 to `window`].

    Args:
      prompt: as the command line gave it, with surrogates for what is not UTF-8.
    Raises:
      UserError: it is empty, longer than the window, or has bytes that no text has.
    """
    shown = repr(prompt if len(prompt) < 40 else f"{prompt[:36]}...")
    if not prompt:
        raise UserError("--prompt: is empty; give the beginning of a text")
    try:
        text = prompt.encode()
    except UnicodeEncodeError as error:
        byte = ord(prompt[error.start]) & 0xFF
        raise UserError(f"--prompt={shown}: has the byte 0x{byte:02x}, so is no UTF-8") from None
    if b"\0" in text:
        raise UserError(f"--prompt={shown}: has a NUL, which stands between documents")
    tokens = tokenizer.encode([text])[:-1]
    if len(tokens) > window:
        raise UserError(
            f"--prompt={shown}: has {len(tokens)} tokens, and the run was trained on sequences of "
            f"{window}; give its last {window}"
        )
    return tokens


class Printer:
    """Writes texts as they grow, one after the other: a later one waits for those before it.

    Args:
      write: of the terminal.
    """

    def __init__(
        self, prompts: Sequence[str], tokenizer: Tokenizer, write: Callable[[str], object]
    ) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = [decoder("replace") for _ in prompts]
        self._waiting = [visible(prompt) for prompt in prompts]
        self._tokenizer, self._write = tokenizer, write
        self._row = 0

    def add(self, row: int, tokens: np.ndarray) -> None:
        """Goes on with a text; the separator that ends a document is not shown."""
        spelled = self._tokenizer.decode(tokens[tokens != SEPARATOR])
        self._waiting[row] += visible(self._decoders[row].decode(spelled))
        if row == self._row:
            self._flush()

    def ended(self) -> None:
        """No text goes on."""
        while True:
            self._waiting[self._row] += visible(self._decoders[self._row].decode(b"", final=True))
            self._flush()
            self._write("\n")
            if self._row == len(self._waiting) - 1:
                return
            self._row += 1
            self._write("\n")

    def _flush(self) -> None:
        self._write(self._waiting[self._row])
        self._waiting[self._row] = ""


def visible(text: str) -> str:
    """With control characters written out, so that a model cannot move a cursor."""
    return "".join(
        c if c.isprintable() or c in _SHOWN else c.encode("unicode_escape").decode() for c in text
    )
