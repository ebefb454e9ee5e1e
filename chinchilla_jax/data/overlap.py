"""How much of the validation text the training text repeats word for word.

No document is in both parts, since a hash of the document decides. Passages may be (licences,
quotations, boilerplate); a large share means that the validation loss measures memory.
"""

from collections.abc import Iterable, Iterator

import numpy as np

WINDOW = 64  # tokens that must agree; a power of two
_SAMPLES = 1 << 14  # windows of validation looked up: a share is known within .4 %
_CHUNK = 1 << 16  # positions hashed at once, so that all stays in the cache
_FACTOR = 0x9E3779B97F4A7C15  # odd


def shared_windows(
    train: Iterable[np.ndarray], validation: Iterable[np.ndarray], validation_tokens: int
) -> tuple[int, int]:
    """(windows of `validation` looked up, those of them that occur anywhere in `train`).

    The sample is chosen by content, in the manner of winnowing (Schleimer et al. 2003): of all
    WINDOW tokens in a row, at any offset, those whose hash is below a threshold, in both parts
    alike. Memory is bounded by the sample and a block; time is linear in the tokens.

    Args:
      train, validation: the tokens of each part, in consecutive blocks of any size.
    """
    threshold = min(2**64 - 1, 2**64 * _SAMPLES // max(validation_tokens, 1))
    wanted = np.concatenate([np.empty(0, np.uint64), *_sampled(validation, threshold)])
    wanted, count = np.unique(wanted, return_counts=True)
    found = np.zeros(len(wanted), bool)
    for hashes in _sampled(train, threshold) if len(wanted) else ():
        place = np.searchsorted(wanted, hashes)
        place[place == len(wanted)] = 0
        found[place[wanted[place] == hashes]] = True
    return int(count.sum()), int(count[found].sum())


def _sampled(blocks: Iterable[np.ndarray], threshold: int) -> Iterator[np.ndarray]:
    """Hashes below `threshold` of all windows of WINDOW tokens, those of a block together."""
    tail = np.empty(0, np.uint8)  # the last tokens of the blocks before
    for block in blocks:
        tokens = np.concatenate([tail, block])
        tail = tokens[max(0, len(tokens) - WINDOW + 1) :]
        kept = [np.empty(0, np.uint64)]
        for start in range(0, len(tokens) - WINDOW + 1, _CHUNK):
            hashes = _window_hashes(tokens[start : start + _CHUNK + WINDOW - 1])
            kept.append(hashes[hashes < threshold])
        yield np.concatenate(kept)


def _window_hashes(tokens: np.ndarray) -> np.ndarray:
    """Polynomial hash modulo 2**64 of every window, by doubling: log2(WINDOW) passes."""
    hashes, factor, width = (tokens.astype(np.uint64) + 1) * np.uint64(_FACTOR), _FACTOR, 1
    while width < WINDOW:
        hashes = hashes[:-width] * np.uint64(factor) + hashes[width:]
        factor, width = factor * factor % 2**64, 2 * width
    return hashes
