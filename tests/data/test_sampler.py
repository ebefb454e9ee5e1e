import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.data.sampler import Sampler, permutation, validation_windows
from chinchilla_jax.experiment.epochs import epochs
from chinchilla_jax.experiment.errors import UserError


def order(size: int, seed: int, epoch: int) -> np.ndarray:
    return permutation(
        np.arange(size, dtype=np.uint64), size, seed, np.full(size, epoch, np.uint64)
    )


@settings(max_examples=150, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10**6))
def test_it_is_a_permutation_of_every_size(size, seed, epoch):
    np.testing.assert_array_equal(np.sort(order(size, seed, epoch)), np.arange(size))


def test_single_elements_agree_with_the_whole_and_reach_beyond_memory():
    whole = order(1000, 5, 2)
    alone = [permutation(np.array([i], np.uint64), 1000, 5, np.array([2], np.uint64))[0]
             for i in range(1000)]  # fmt: skip
    np.testing.assert_array_equal(whole, alone)
    size = 10**15
    far = permutation(np.arange(1000, dtype=np.uint64), size, 0, np.zeros(1000, np.uint64))
    assert len(set(far.tolist())) == 1000
    assert (far < size).all()
    assert abs(far.mean() / size - 0.5) < 0.05


def test_every_place_is_equally_likely_and_seeds_and_epochs_differ():
    size, draws = 20, 4000
    for fixed in ("seed", "epoch"):
        counts = np.zeros((size, size))
        for number in range(draws):
            drawn = order(size, *((7, number) if fixed == "seed" else (number, 7)))
            counts[np.arange(size), drawn] += 1
        expected = draws / size
        chi2 = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2
        assert 0.8 < chi2 < 1.2  # one for a uniform law; its deviation here is .07


def test_the_order_is_the_one_that_recorded_runs_were_trained_on():
    np.testing.assert_array_equal(order(10, 0, 0), [4, 6, 7, 8, 1, 3, 5, 0, 2, 9])
    np.testing.assert_array_equal(order(10, 1, 3), [3, 0, 2, 4, 9, 6, 8, 1, 7, 5])


def test_each_token_but_the_first_is_predicted_once_an_epoch():
    sampler = Sampler(np.arange(1000, dtype=np.uint16), 16)
    assert sampler.rows == 62
    assert sampler.unique_tokens == 62 * 16
    assert epochs(3 * 62 * 16, 1000, 16) == 3  # as the plan counts them
    for epoch in range(3):
        rows = sampler.examples(4, np.arange(62) + 62 * epoch)
        np.testing.assert_array_equal(np.sort(rows[:, 1:].ravel()), np.arange(1, 62 * 16 + 1))
        np.testing.assert_array_equal(rows[:, 1:] - rows[:, :-1], 1)


def test_an_example_depends_on_seed_and_number_alone():
    sampler = Sampler(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8), 32)
    numbers = np.arange(600)  # several epochs of 156 rows
    straight = sampler.examples(9, numbers)
    assert straight.dtype == np.int32
    assert straight.shape == (600, 33)
    shuffled = np.random.default_rng(1).permutation(600)
    np.testing.assert_array_equal(sampler.examples(9, shuffled), straight[shuffled])
    blocks = sampler.examples(9, numbers.reshape(20, 6, 5))
    np.testing.assert_array_equal(blocks.reshape(600, 33), straight)
    assert (sampler.examples(10, numbers) != straight).any()


def test_validation_windows_are_spread_evenly_and_disjoint():
    tokens = np.arange(10_001, dtype=np.uint32)
    windows = validation_windows(tokens, 50, 20)
    assert windows.shape == (50, 21)
    assert windows.dtype == np.int32
    np.testing.assert_array_equal(np.diff(windows[:, 0]), 200)
    assert len(np.unique(windows[:, 1:])) == 50 * 20
    with pytest.raises(UserError, match="501 windows of 20 need 10021"):
        validation_windows(tokens, 501, 20)


def test_a_corpus_of_less_than_a_row_is_refused():
    with pytest.raises(UserError, match="has 16 tokens, too few for one sequence of 16"):
        Sampler(np.zeros(16, np.uint8), 16)


def rows_of(sampler, seed, epoch=0):
    """The first token of each example of an epoch, where tokens are their own places."""
    return sampler.examples(seed, np.arange(sampler.rows) + epoch * sampler.rows)[:, 0]


def test_a_cap_takes_random_rows_the_same_for_every_seed_and_less_is_a_subset_of_more():
    tokens = np.arange(100_001, dtype=np.uint32)
    some, fewer = (Sampler(tokens, 10, most=most) for most in (3_999, 1_000))
    assert some.rows == 399 and some.unique_tokens == 3_990 and fewer.rows == 100
    taken = set(rows_of(some, 3))
    assert len(taken) == 399
    assert taken == set(rows_of(some, 4)) == set(rows_of(some, 3, epoch=7))
    assert list(rows_of(some, 3)) != list(rows_of(some, 4)) != list(rows_of(some, 4, epoch=1))
    assert set(rows_of(fewer, 3)) < taken
    spread = np.histogram(sorted(taken), bins=10, range=(0, 100_000))[0]
    assert spread.min() > 20  # of all parts of the text, not its beginning
    assert epochs(8_000, 1_001, 10) == 8_000 / fewer.unique_tokens  # as a plan counts them


def test_a_cap_over_all_there_is_changes_nothing():
    tokens = np.random.default_rng(0).integers(0, 256, 5_000, dtype=np.uint8)
    plain, capped = (Sampler(tokens, 16, most=most) for most in (None, 4_999))
    numbers = np.arange(700)
    np.testing.assert_array_equal(capped.examples(1, numbers), plain.examples(1, numbers))


def test_noise_is_exactly_its_share_of_the_rows_and_leaves_the_others_as_they_were():
    tokens = np.zeros(20_001, np.uint8)
    plain, noisy = (Sampler(tokens, 20, most=16_000, noise=noise) for noise in (0.0, 0.3))
    numbers = np.arange(1600)  # two epochs of 800 rows
    clean, found = plain.examples(5, numbers), noisy.examples(5, numbers)
    changed = (found != clean).any(axis=1)
    assert changed[:800].sum() == changed[800:].sum() == 240
    np.testing.assert_array_equal(found[~changed], clean[~changed])
    np.testing.assert_array_equal(
        np.sort(found[:800][changed[:800]].ravel()), np.sort(found[800:][changed[800:]].ravel())
    )
    other = noisy.examples(6, np.arange(800))
    assert {*map(bytes, other)} == {*map(bytes, found[:800])}  # of the text, not of a run
    random = found[changed]
    counts = np.bincount(random[:240].ravel(), minlength=256)
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum() / 255
    assert 0.7 < chi2 < 1.35 and len({*map(bytes, random[:240])}) == 240


def test_noise_has_the_tokens_of_its_vocabulary_wherever_it_is_asked_for():
    sampler = Sampler(np.zeros(3_001, np.uint16), 30, noise=0.5, vocab_size=1000)
    whole = sampler.examples(2, np.arange(100))
    assert 900 < whole.max() < 1000
    alone = [sampler.examples(2, np.array([number]))[0] for number in range(100)]
    np.testing.assert_array_equal(alone, whole)
