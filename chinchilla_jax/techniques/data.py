"""Data: what text a run is trained on, where its held-out text stays the same.

A text is capped by rows of it, drawn at random, so that a run repeats them: `repetition.py` has the
law. Noise is put in on purpose, as a control whose answer is known: rows of tokens that are random,
each as likely, teach nothing that holds elsewhere, so that with a share p of them D tokens are
worth (1 - p) D at most. Both are of the text and not of a run: the same rows for every seed, in
every epoch, and the rows of a smaller cap are among those of a larger one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import require
from chinchilla_jax.techniques.repetition import REPETITION
from chinchilla_jax.techniques.technique import Facts, Technique, listed

_WHERE = "techniques.data"


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is taken of the training text of the corpus, and what is put into it."""

    # Tokens that an epoch predicts, in rows drawn at random; 0: all there are.
    unique_tokens: int = field(default=0, metadata={"short": "U"})
    noise: float = 0.0  # share of the rows that are random tokens instead

    def __post_init__(self) -> None:
        require(
            self.unique_tokens >= 0,
            f"{_WHERE}.unique_tokens",
            self.unique_tokens,
            "must be 0 (all of the text) or more",
        )
        require(0 <= self.noise < 1, f"{_WHERE}.noise", self.noise, "must lie in [0, 1), 0 is none")


def _misfit(config: Data, facts: Facts) -> str:
    """Raises UserError for a cap of less than a row."""
    if 0 < config.unique_tokens < facts.sequence_length:
        raise UserError(
            f"{_WHERE}.unique_tokens = {config.unique_tokens}: is less than one sequence of "
            f"{facts.sequence_length} tokens"
        )
    return ""


def _text(train_tokens: int, config: Data) -> int:
    """The first token of a text is never predicted."""
    return min(train_tokens, config.unique_tokens + 1) if config.unique_tokens else train_tokens


def words(fields: Mapping[str, str]) -> str:
    """`65536 unique tokens, 25 % noise`."""
    said = []
    if unique := fields.get("unique_tokens"):
        said.append(f"{float(unique):.10g} unique tokens" if float(unique) else "all of the text")
    if noise := fields.get("noise"):
        said.append(f"{100 * float(noise):g} % noise")
    rest = {name: value for name, value in fields.items() if name not in ("unique_tokens", "noise")}
    return ", ".join([*said, *([listed(rest)] if rest else [])])


TECHNIQUE = Technique(
    name="data",
    off=Data(),
    misfit=_misfit,
    text=_text,
    determines=("unique_tokens",),
    laws=(REPETITION,),
    words=words,
)
