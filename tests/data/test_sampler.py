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
