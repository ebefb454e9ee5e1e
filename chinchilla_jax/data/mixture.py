"""Corpora mixed by weight: which part example n is of, and which of that part's own examples.

A pure function of n, as the plain sampler is of seed and number, so that the state is still one
integer. The parts are split off one by one: of n examples of the first i + 1 of them floor(n f) are
of the first i, with f = (w_1 + ... + w_i) / (w_1 + ... + w_(i+1)), to 2**-32. So after n examples a
part has had its share of them to fewer than there are parts, at every n, and takes its examples in
its own order without a gap. A part of weight 1 alone is the plain sampler.

Where examples lie is found for a block of numbers at once, whose next dispatches take it from
memory: so a mixture is read as fast as one text (tests/benchmarks/mixture.py).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.data.sampler import Sampler

_BITS = np.uint64(32)  # of a fraction
_ONE = 1 << 32
_BLOCK = 1 << 14  # examples whose places are found at once: a millisecond


@dataclass(frozen=True, eq=False)
class Mixture:
    """Examples of several texts, in rows of one length."""

    samplers: tuple[Sampler, ...]
    weights: tuple[float, ...]  # positive; their sum plays no part

    def examples(self, seed: int, numbers: np.ndarray) -> np.ndarray:
        """As `Sampler.examples`: int32 [*numbers.shape, S + 1]."""
        asked = np.asarray(numbers)
        part, place = self._places(seed, asked.ravel())
        windows = np.empty((asked.size, self.samplers[0].sequence + 1), np.int32)
        for index, sampler in enumerate(self.samplers):
            here = np.flatnonzero(part == index)
            windows[here] = sampler.windows(place[here])
        return windows.reshape(*asked.shape, -1)

    def _places(self, seed: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the part of each example, its place among the rows of that part), [N] each."""
        first, last = (int(end) // _BLOCK for end in (numbers.min(), numbers.max()))
        if first == last:
            part, place = self._block(seed, first)
            inside = numbers - first * _BLOCK
            return part[inside], place[inside]
        block = numbers // _BLOCK
        part, place = np.empty(len(numbers), np.int8), np.empty(len(numbers), np.uint64)
        for each in np.unique(block).tolist():
            here = block == each
            part[here], place[here] = self._places(seed, numbers[here])
        return part, place

    @functools.cached_property
    def _block(self) -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
        """(seed, block) -> `_places` of all its examples, the latest ones from memory."""

        @functools.lru_cache(maxsize=2)
        def found(seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
            part, number = parts_of(np.arange(block * _BLOCK, (block + 1) * _BLOCK), self.weights)
            place = np.empty(_BLOCK, np.uint64)
            for index, sampler in enumerate(self.samplers):
                here = part == index
                place[here] = sampler.places(seed, number[here])
            return part.astype(np.int8), place

        return found


def parts_of(numbers: np.ndarray, weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(the part of each example, its number among the examples of that part).

    Args:
      numbers: below 2**63, of any shape.
    """
    number = numbers.astype(np.uint64)
    part = np.zeros(number.shape, np.int64)
    undecided = np.ones(number.shape, bool)
    totals = np.cumsum(weights)
    for last in range(len(weights) - 1, 0, -1):
        fraction = round(totals[last - 1] / totals[last] * _ONE)
        before = _share(number, fraction)
        first = undecided & (_share(number + np.uint64(1), fraction) > before)
        here = undecided & ~first
        part[here] = last
        number = np.where(first, before, np.where(here, number - before, number))
        undecided = first
    return part, number


def _share(count: np.ndarray, fraction: int) -> np.ndarray:
    """floor(count fraction / 2**32), exactly."""
    low = count & np.uint64(_ONE - 1)
    return (count >> _BITS) * np.uint64(fraction) + (low * np.uint64(fraction) >> _BITS)
