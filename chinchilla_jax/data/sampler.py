"""Which tokens example n of a run is: a pure function of (seed, n), and nothing else.

The token file is cut into rows of S + 1 tokens that overlap by one, so that every token but the
first is predicted once an epoch. Example n is row perm_{seed, epoch}(n mod rows) with epoch =
n // rows. Hosts, devices and batch size play no part, and the state of an iterator over examples
is one integer: how many were taken.

Of a text that is capped the rows are the first of a random order of all, the same for every seed,
so that fewer are a subset of more. Leading rows would be a few documents: those of 700 kB gave a
loss of 2.41 nats where random rows of the same size gave 1.99.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.epochs import unique_tokens
from chinchilla_jax.experiment.errors import UserError

_ROUNDS = 6  # of the Feistel network; four are pseudo-random (Luby & Rackoff 1988), six to spare
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio
_ROUND_KEYS = np.array([_GOLDEN * number % 2**64 for number in range(_ROUNDS)], np.uint64)
_CAPPED, _NOISY = 0x6A09E667, 0xBB67AE85  # of the orders that no seed decides


@dataclass(frozen=True, eq=False)
class Sampler:
    """Rows of `sequence` + 1 tokens of a flat array, in an order that a seed decides.

    Raises:
      UserError: fewer tokens than one row.
    """

    tokens: np.ndarray  # [N] unsigned integers, usually memory-mapped
    sequence: int  # S, tokens that one row predicts
    most: int | None = None  # tokens predicted in an epoch, of random rows; None: of all
    noise: float = 0.0  # share of those rows whose tokens are random instead
    vocab_size: int = 256  # of what is random

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise UserError(
                f"the corpus has {len(self.tokens)} tokens, too few for one sequence of "
                f"{self.sequence}; give more text or a smaller recipe.sequence_length"
            )

    @property
    def rows(self) -> int:
        """Examples in one epoch."""
        return self.unique_tokens // self.sequence

    @property
    def unique_tokens(self) -> int:
        """Tokens predicted in one epoch; the rest of the file, fewer than S, is never used."""
        return unique_tokens(len(self.tokens), self.sequence, self.most)

    def examples(self, seed: int, numbers: np.ndarray) -> np.ndarray:
        """The examples of these numbers: int32 [*numbers.shape, S + 1].

        Inputs are [..., :-1], targets [..., 1:]. A host that feeds only some rows of a global
        batch asks for just these.
        """
        return self.windows(self.places(seed, numbers)).astype(np.int32)

    def places(self, seed: int, numbers: np.ndarray) -> np.ndarray:
        """Where the examples of these numbers are among `rows`: uint64, of the same shape."""
        epoch, index = np.divmod(np.asarray(numbers).astype(np.uint64), np.uint64(self.rows))
        return permutation(index, self.rows, seed, epoch)

    def windows(self, place: np.ndarray) -> np.ndarray:
        """The rows at these places, [*place.shape, S + 1] of the type of the tokens."""
        row = place
        if self.rows < len(self._windows):
            row = permutation(place, len(self._windows), _CAPPED, np.zeros_like(place))
        windows = self._windows[row]
        if self.noise:
            noisy = self._noisy(place)
            windows[noisy] = random_tokens(row[noisy], self.sequence + 1, self.vocab_size)
        return windows

    def _noisy(self, place: np.ndarray) -> np.ndarray:
        """Which of the rows at these places are noise: exactly the share of them, to a row."""
        order = permutation(place, self.rows, _NOISY, np.zeros_like(place))
        return order < np.uint64(round(self.noise * self.rows))

    @functools.cached_property
    def _windows(self) -> np.ndarray:
        """[rows, S + 1] view of the tokens, nothing copied."""
        view = np.lib.stride_tricks.sliding_window_view(self.tokens, self.sequence + 1)
        return view[:: self.sequence]


def validation_windows(tokens: np.ndarray, count: int, sequence: int) -> np.ndarray:
    """`count` windows spread evenly over `tokens`, the same for every run: int32 [count, S + 1].

    They are rows as a sampler cuts them, so no token is predicted twice.

    Raises:
      UserError: fewer tokens than the windows need.
    """
    rows = unique_tokens(len(tokens), sequence) // sequence
    if rows < count:
        raise UserError(
            f"validation has {len(tokens)} tokens, but {count} windows of {sequence} need "
            f"{count * sequence + 1}; raise data.validation_fraction or lower "
            "measurement.eval_windows"
        )
    view = Sampler(tokens, sequence)._windows
    return view[np.arange(count) * rows // count].astype(np.int32)


def random_tokens(row: np.ndarray, count: int, vocab_size: int) -> np.ndarray:
    """Tokens of which nothing can be learnt, each as likely: int32 [*row.shape, count].

    A function of the row alone, so that it is the same noise at every epoch and under every seed.
    """
    key = _mix(row + np.uint64(_NOISY))[..., None]
    bits = _mix(key + np.arange(count, dtype=np.uint64) * np.uint64(_GOLDEN))
    return _scaled(bits, vocab_size).astype(np.int32)


def permutation(index: np.ndarray, size: int, seed: int, epoch: np.ndarray) -> np.ndarray:
    """perm_{seed, epoch}(index), a permutation of 0 .. size - 1 in O(1) memory per element.

    A Feistel network over pairs (left, right) of Z_a x Z_b with a b >= size; the few values that
    land beyond `size` walk on along their cycle (Black & Rogaway 2002), which keeps it one to one.

    Args:
      index: uint64, each below `size`; size < 2**62.
      epoch: uint64 of the same shape.
    """
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    key = _mix(epoch * np.uint64(_GOLDEN) + _mix(np.array([seed], np.uint64)))
    value = _feistel(index, a, b, key)
    while (outside := value >= size).any():
        value[outside] = _feistel(value[outside], a, b, key[outside])
    return value


def _feistel(value: np.ndarray, a: int, b: int, key: np.ndarray) -> np.ndarray:
    left, right = np.divmod(value, np.uint64(b))
    for number in range(0, _ROUNDS, 2):
        left = _add(left, _mix(key + right + _ROUND_KEYS[number]), a)
        right = _add(right, _mix(key + left + _ROUND_KEYS[number + 1]), b)
    return left * np.uint64(b) + right


def _add(value: np.ndarray, random: np.ndarray, size: int) -> np.ndarray:
    """(value + r) mod size, with r below size."""
    total = value + _scaled(random, size)
    return np.where(total >= size, total - np.uint64(size), total)


def _scaled(random: np.ndarray, size: int) -> np.ndarray:
    """A number below `size` from 64 random bits, without a division."""
    shift = np.uint64(32)
    return (random >> shift) * np.uint64(size) >> shift


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection modulo 2**64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
