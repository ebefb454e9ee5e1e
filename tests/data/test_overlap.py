import numpy as np
import pytest

from chinchilla_jax.data import overlap


def blocks(tokens: np.ndarray, size: int) -> list[np.ndarray]:
    return [tokens[start : start + size] for start in range(0, len(tokens), size)]


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens, with three passages of validation copied into training at odd places."""
    train = rng.integers(0, 256, 30_000, dtype=np.uint8)
    validation = rng.integers(0, 256, 4_000, dtype=np.uint8)
    for source, target, length in ((0, 77, 500), (1500, 20_001, 64), (3000, 9_999, 63)):
        train[target : target + length] = validation[source : source + length]
    return train, validation


@pytest.mark.parametrize("size", [30_000, 1000, 13])
def test_it_counts_what_a_direct_search_counts(size, monkeypatch):
    train, validation = planted(np.random.default_rng(0))
    seen = {bytes(train[i : i + overlap.WINDOW]) for i in range(len(train) - overlap.WINDOW + 1)}
    windows = [bytes(validation[i : i + overlap.WINDOW]) for i in range(4000 - overlap.WINDOW + 1)]
    shared = sum(window in seen for window in windows)
    assert shared == 500 - 63 + 1  # and the passage of 63 tokens is too short

    monkeypatch.setattr(overlap, "_SAMPLES", 4000)  # all of them
    found = overlap.shared_windows(blocks(train, size), blocks(validation, size), 4000)
    assert found == (len(windows), shared)


def test_a_passage_that_is_held_out_twice_counts_twice(monkeypatch):
    rng = np.random.default_rng(2)
    monkeypatch.setattr(overlap, "_SAMPLES", 1 << 20)
    passage, other = rng.integers(0, 256, (2, overlap.WINDOW), dtype=np.uint8)
    held_out = np.concatenate([passage, passage, other, passage])
    assert overlap.shared_windows([passage], [held_out], len(held_out))[1] == 3


def test_a_sample_estimates_the_share(monkeypatch):
    rng = np.random.default_rng(1)
    train = rng.integers(0, 50_000, 200_000, dtype=np.uint16)
    validation = rng.integers(0, 50_000, 80_000, dtype=np.uint16)
    train[5_001:45_001] = validation[:40_000]
    monkeypatch.setattr(overlap, "_SAMPLES", 4000)
    looked_up, shared = overlap.shared_windows([train], [validation], len(validation))
    assert looked_up == pytest.approx(4000, abs=4 * 4000**0.5)
    assert shared / looked_up == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_too_little_text_has_no_windows():
    few = np.zeros(10, np.uint8)
    assert overlap.shared_windows([few], [few], 10) == (0, 0)
