"""A task of lm-eval with held-out text of the run, beside its exported model.

    lm_eval --model hf --model_args pretrained=DIR --tasks held_out --include_path DIR/lm_eval

It is offline, and moves with the folder. lm-eval cuts a text into windows of the model's length of
which each begins with the last token of the one before, and the first with the token that ends a
text: as our rows are cut. So its bits per byte are those of our evaluation on these windows.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.data.tokenizers import SEPARATOR, Tokenizer
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError

FOLDER = "lm_eval"
_TASK = """\
task: held_out
custom_dataset: !function held_out.dataset
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: !function held_out.text
process_results: !function held_out.process_results
metric_list:
  - metric: bits_per_byte
metadata:
  version: 1
"""
_CODE = '''\
"""Held-out text of a run. NUL stands between documents, and is none of its bytes."""

import json
from pathlib import Path

import datasets


def dataset(**_):
    lines = Path(__file__).with_suffix(".jsonl").read_text().split("\\n")
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines if line])}


def text(doc):
    return doc["text"]


def process_results(doc, results):
    return {"bits_per_byte": (results[0], len(doc["text"].replace("\\0", "").encode()))}
'''


@dataclass(frozen=True)
class HeldOut:
    """Stretches of held-out text, each from the beginning of a document on.

    Attributes:
      texts: what they spell, NUL between documents.
      windows: the same as rows of a sampler, int32 [count, S + 1].
    """

    texts: list[str]
    windows: np.ndarray


def held_out(tokens: np.ndarray, tokenizer: Tokenizer, sequence: int, most: int) -> HeldOut:
    """At most so many windows of whole stretches, spread over the documents of `tokens`.

    A stretch is as long as its document, in whole windows, at least one, but no longer than what a
    document has to give where all give alike. Where no tokenizer gives back these tokens of its
    text, as where it ends within a character, it ends a window earlier.

    Raises:
      UserError: there is no such stretch.
    """
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == SEPARATOR)
    before = np.array([-1, *ends[:-1]])  # the separator that a document comes after
    alike = math.ceil(most / max(1, len(ends)))
    wanted = [min(max(1, int(length) // sequence), alike) for length in ends - before - 1]
    step = max(1, math.ceil(sum(wanted) / most))
    texts: list[str] = []
    windows: list[np.ndarray] = []
    reached = -1
    for number in range(0, len(ends), step):
        start = int(before[number])
        room = min(wanted[number], most - len(windows), (len(tokens) - start - 1) // sequence)
        if start < reached or room < 1:
            continue
        found = _stretch(tokens[start + 1 :], tokenizer, sequence, room)
        if found:
            ids = np.array([SEPARATOR, *tokens[start + 1 : start + 1 + found[1] * sequence]])
            rows = np.lib.stride_tricks.sliding_window_view(ids, sequence + 1)[::sequence]
            texts.append(found[0])
            windows.extend(rows)
            reached = start + found[1] * sequence
    if not windows:
        raise UserError(
            f"of the text held out no {sequence} tokens in a row are text by themselves"
        )
    return HeldOut(texts, np.stack(windows).astype(np.int32))


def _stretch(
    tokens: np.ndarray, tokenizer: Tokenizer, sequence: int, most: int
) -> tuple[str, int] | None:
    """The text of as many windows as are found again in it, and their number."""
    for count in range(most, 0, -1):
        ids = tokens[: count * sequence]
        try:
            text = tokenizer.decode(ids).decode()
        except UnicodeDecodeError:
            continue
        again = tokenizer.encode([part.encode() for part in text.split("\0")])[:-1]
        # The one sign that our encoder and a tokenizer.json of it take for different text.
        if "▁" not in text and np.array_equal(again, ids):
            return text, count
    return None


def write(folder: Path, text: HeldOut) -> None:
    """Writes the task, its data and its code."""
    lines = "".join(json.dumps({"text": each}) + "\n" for each in text.texts)
    for name, content in (("yaml", _TASK), ("py", _CODE), ("jsonl", lines)):
        storage.write_text_atomic(folder / FOLDER / f"held_out.{name}", content)
