"""Data: what text a run is trained on, where its held-out text stays the same.

Documents are kept by rules or by likeness to a curated set (`data/quality.py`); a share of random
documents is the control of the same size. Rows of what is left may be fewer, and some be noise.

A text is capped by rows of it, drawn at random, so that a run repeats them: `repetition.py` has the
law. Noise is put in on purpose, as a control whose answer is known: rows of tokens that are random,
each as likely, teach nothing that holds elsewhere, so that with a share p of them D tokens are
worth (1 - p) D at most. Both are of the text and not of a run: the same rows for every seed, in
every epoch, and the rows of a smaller cap are among those of a larger one.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import one_of, require
from chinchilla_jax.techniques.repetition import REPETITION
from chinchilla_jax.techniques.technique import Facts, Technique, listed

_WHERE = "techniques.data"
RANKED = ("classifier", "random")  # documents by a score, of which a share is kept
FILTERS = ("gopher", *RANKED)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is taken of the training text of the corpus, and what is put into it."""

    # Tokens that an epoch predicts, in rows drawn at random; 0: all there are.
    unique_tokens: int = field(default=0, metadata={"short": "U"})
    noise: float = 0.0  # share of the rows that are random tokens instead
    # Which documents are kept: gopher, classifier or random (`data/quality.py`); empty: all.
    quality: str = field(default="", metadata={"short": "Q"})
    keep: float = 0.5  # share of the tokens that the last two keep, in the best documents
    # What the classifier holds good: files as in data.path, or standard_library, Python's.
    curated: str = ""

    def __post_init__(self) -> None:
        require(
            self.unique_tokens >= 0,
            f"{_WHERE}.unique_tokens",
            self.unique_tokens,
            "must be 0 (all of the text) or more",
        )
        require(0 <= self.noise < 1, f"{_WHERE}.noise", self.noise, "must lie in [0, 1), 0 is none")
        one_of(f"{_WHERE}.quality", self.quality, ("", *FILTERS))
        require(0 < self.keep <= 1, f"{_WHERE}.keep", self.keep, "must lie in (0, 1]")
        require(
            bool(self.curated) or self.quality != "classifier",
            f"{_WHERE}.curated",
            self.curated,
            "name the files that the classifier holds good, or standard_library",
        )


def _reduced(config: Data) -> Data:
    """Without the fields of a filter that is not in use."""
    plain = Data()
    if config.quality != "classifier":
        config = replace(config, curated=plain.curated)
    return config if config.quality in RANKED else replace(config, keep=plain.keep)


def _misfit(config: Data, facts: Facts) -> str:
    """Raises UserError for a cap of less than a row."""
    if 0 < config.unique_tokens < facts.sequence_length:
        raise UserError(
            f"{_WHERE}.unique_tokens = {config.unique_tokens}: is less than one sequence of "
            f"{facts.sequence_length} tokens"
        )
    return ""


def _text(train_tokens: int, config: Data) -> int:
    """What rules keep is not known before they have read it: all of it, as far as a plan knows."""
    if config.quality in RANKED:
        train_tokens = math.ceil(config.keep * train_tokens)
    # The first token of a text is never predicted.
    return min(train_tokens, config.unique_tokens + 1) if config.unique_tokens else train_tokens


def words(fields: Mapping[str, str]) -> str:
    """`25 % of the text by classifier, 65536 unique tokens, 25 % noise`."""
    said = []
    if quality := fields.get("quality"):
        keep = f"{100 * float(fields.get('keep', Data.keep)):g} % of the text"
        ranked = f"random {keep}" if quality == "random" else f"{keep} by {quality}"
        said.append(ranked if quality in RANKED else f"text by {quality}")
    if unique := fields.get("unique_tokens"):
        said.append(f"{float(unique):.10g} unique tokens" if float(unique) else "all of the text")
    if noise := fields.get("noise"):
        said.append(f"{100 * float(noise):g} % noise")
    if other := fields.get("mixed_with"):
        said.append(_mixture(other, fields.get("weights", "")))
    known = ["unique_tokens", "noise", "curated", *(["quality", "keep"] if quality else [])]
    known += ["mixed_with", "weights"] if other else []
    rest = {name: value for name, value in fields.items() if name not in known}
    return ", ".join([*said, *([listed(rest)] if rest else [])])


def _mixture(others: str, weights: str) -> str:
    """`50 % c_source`, of columns as a row has them: lists in brackets."""
    names = [name.strip(" '\"") for name in others.strip("[]").split(",")]
    parts = [float(x) for x in re.findall(r"[\d.e+-]+", weights)]
    if len(parts) != 1 + len(names):
        return f"mixed with {', '.join(names)}"
    shares = (f"{100 * part / sum(parts):.3g} %" for part in parts[1:])
    return " and ".join(f"{share} {name}" for share, name in zip(shares, names, strict=True))


TECHNIQUE = Technique(
    name="data",
    off=Data(),
    reduced=_reduced,
    misfit=_misfit,
    text=_text,
    beside={"data_mixed_with": "", "data_weights": ""},
    determines=("unique_tokens",),
    laws=(REPETITION,),
    words=words,
)
