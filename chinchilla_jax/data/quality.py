"""What makes a document good: rules that have been published, or likeness to a curated set.

* `gopher`: the seven rules on documents of Rae et al. 2021 (MassiveText, arXiv 2112.11446, appendix
  A.1.1), for text in English; those against repetition within a document are not among them.
* `classifier`: likeness to a small curated set, by logistic regression on hashed n-grams, as in
  Brown et al. 2020 (arXiv 2005.14165, appendix A) and DCLM (Li et al. 2024, arXiv 2406.11794,
  section 4.4), here of four bytes. The best documents are kept.
* `random`: documents by chance, the control of the same size.
"""

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_WORD = re.compile(r"\S+")
_BULLETS = ("\u2022", "-", "*")
_ELLIPSES = ("...", "\u2026")
_NGRAM = 4  # bytes
_FEATURES = 1 << 14
_FACTOR = np.uint32(2654435761)  # near 2**32 over the golden ratio: Knuth's multiplicative hash
_PENALTY = 1.0  # of the squared weights, over 2, beside a sum over documents


def gopher(text: str) -> bool:
    """Whether a document passes the rules."""
    words = _WORD.findall(text)
    if not 50 <= len(words) <= 100_000:
        return False
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    symbols = max(text.count("#"), text.count("...") + text.count("\u2026"))
    return (
        3 <= sum(map(len, words)) / len(words) <= 10
        and symbols <= 0.1 * len(words)
        and sum(line.startswith(_BULLETS) for line in lines) <= 0.9 * len(lines)
        and sum(line.endswith(_ELLIPSES) for line in lines) <= 0.3 * len(lines)
        and sum(any(c.isalpha() for c in word) for word in words) >= 0.8 * len(words)
        and len(_STOP_WORDS.intersection(word.lower() for word in words)) >= 2
    )


def chance(document: bytes) -> float:
    """A number of [0, 1) that the document decides."""
    return zlib.crc32(document) / 2**32


def features(document: bytes) -> np.ndarray:
    """Counts of its hashed n-grams, damped, of length 1: float32 [_FEATURES]."""
    content = np.frombuffer(document, np.uint8).astype(np.uint32)
    if len(content) < _NGRAM:
        return np.zeros(_FEATURES, np.float32)
    ends = len(content) - _NGRAM + 1
    grams = sum(content[i : i + ends] << np.uint32(8 * i) for i in range(_NGRAM))
    places = (grams * _FACTOR) >> np.uint32(32 - _FEATURES.bit_length() + 1)
    counts = np.log1p(np.bincount(places, minlength=_FEATURES)).astype(np.float32)
    return np.asarray(counts / np.linalg.norm(counts))


def classifier(curated: Sequence[bytes], others: Sequence[bytes]) -> Callable[[bytes], float]:
    """The log-odds that a document is one of `curated`, learnt from some of both kinds.

    Each kind counts alike, however many documents it has.
    """
    from scipy.optimize import minimize

    x = np.stack([features(document) for document in (*curated, *others)])
    sign = np.r_[np.ones(len(curated)), -np.ones(len(others))]
    size = len(sign) / 2
    weight = np.r_[
        np.full(len(curated), size / len(curated)), np.full(len(others), size / len(others))
    ]

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[1:] + w[0])
        slope = -sign * weight / (1 + np.exp(margin))
        value = weight @ np.logaddexp(0, -margin) + _PENALTY / 2 * w[1:] @ w[1:]
        return float(value), np.r_[slope.sum(), slope @ x + _PENALTY * w[1:]]

    w = minimize(objective, np.zeros(1 + _FEATURES), jac=True, method="L-BFGS-B").x
    return lambda document: float(features(document) @ w[1:] + w[0])
