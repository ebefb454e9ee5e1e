"""How often a run passes over its text: one count for the plan, the sampler and the result."""

import math


def unique_tokens(train_tokens: int, sequence: int, most: int | None = None) -> int:
    """Tokens that one epoch predicts: rows of `sequence`; the first, and what is left over, never.

    Args:
      train_tokens: length of the token file.
      most: of them, where the text is capped.
    """
    predicted = max(0, train_tokens - 1)
    return (predicted if most is None else min(predicted, most)) // sequence * sequence


def epochs(tokens: float, train_tokens: int, sequence: int) -> float:
    """Epochs of a run of `tokens`; infinite where the text has not one row."""
    unique = unique_tokens(train_tokens, sequence)
    return tokens / unique if unique else math.inf
