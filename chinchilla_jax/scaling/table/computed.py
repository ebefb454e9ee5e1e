"""Columns computed from others, as --columns says: `ln(val_ppl)`, `steps*batch_size*seq_len`."""

import math
import re
from collections.abc import Iterable, Sequence

from chinchilla_jax.scaling.table.kinds import words
from chinchilla_jax.scaling.table.metrics import of_log

_STEPS = r"^(n )?(train(ing)? )?(steps|iterations|updates)$"
_BATCH = r"^(global )?(batch|bsz|bs)( size)?$"
_SEQUENCE = r"^(seq|sequence|context|ctx|block)( len(gth)?| size)?$|^n ctx$"
_BATCH_TOKENS = r"^(global )?batch( size)?( in)? tokens$|^tokens per (batch|step)$"
_RATIO = r"^(tokens? per (params?|parameters?)|d n|d over n|tpp)$"
# What tokens are the product of, a pattern a column; `None` is our params.
_TOKENS = ((None, _RATIO), (_STEPS, _BATCH_TOKENS), (_STEPS, _BATCH, _SEQUENCE))


def parts(text: str, names: Sequence[str]) -> list[str]:
    """The columns that `text` is computed from; the text itself where it is a column or no formula.

    >>> parts("steps*batch", ["steps", "batch"]), parts("ln(ppl)", ["ppl"]), parts("a*b", ["a*b"])
    (['steps', 'batch'], ['ppl'], ['a*b'])
    """
    if text in names:
        return [text]
    inner = of_log(text)
    return [inner] if inner else [part.strip() for part in text.split("*")]


def values(text: str, columns: Sequence[Iterable[object]]) -> list[float | None]:
    """The cells of the column `text` from numbers of its parts; None where one is no number.

    A logarithm is of one column, a product of several.
    """
    log = of_log(text) is not None
    found: list[float | None] = []
    for row in zip(*columns, strict=True):
        numbers = [x for x in row if isinstance(x, int | float) and 0 < x < math.inf]
        known = len(numbers) == len(row)
        value = math.log(numbers[0]) if known and log else math.prod(numbers)
        found.append(value if known else None)
    return found


def tokens_of(names: Sequence[str], params: str | None) -> str | None:
    """How tokens may be computed, where no column has them."""
    for patterns in _TOKENS:
        found = [
            params if pattern is None
            else next((n for n in names if re.search(pattern, words(n))), None)
            for pattern in patterns
        ]  # fmt: skip
        if None not in found:
            return "*".join(filter(None, found))
    return None
