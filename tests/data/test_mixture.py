"""Corpora mixed by weight: exact at every example, the plain sampler where there is one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.data.mixture import Mixture, parts_of
from chinchilla_jax.data.sampler import Sampler
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.schema import from_json, to_json

WEIGHTS = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5)


@given(weights=WEIGHTS, start=st.integers(0, 2**40))
def test_parts_have_their_shares_at_every_example_and_count_without_a_gap(weights, start):
    numbers = np.arange(start, start + 500, dtype=np.uint64)
    part, number = parts_of(numbers, weights)
    for index, weight in enumerate(weights):
        mine = number[part == index]
        np.testing.assert_array_equal(np.diff(mine), np.ones(max(0, len(mine) - 1)))
        if len(mine):
            exact = weight / sum(weights) * int(numbers[part == index][0])
            slack = len(weights) + start / 2**31  # of fractions that have 32 bits
            assert abs(int(mine[0]) - exact) < slack
    np.testing.assert_array_equal(parts_of(numbers[::-1], weights)[0], part[::-1])


def test_the_first_examples_of_all_parts_are_their_first():
    part, number = parts_of(np.arange(2000), (0.6, 0.3, 0.1))
    assert [int((part == i).sum()) for i in range(3)] == pytest.approx([1200, 600, 200], abs=2)
    for index in range(3):
        assert number[part == index][0] == 0
    for end in range(1, 2000):  # in every batch, whatever its size
        assert abs((part[:end] == 1).sum() - 0.3 * end) < 2


def random_text(seed, size=9_000):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_one_corpus_at_weight_one_is_the_plain_sampler_to_the_bit():
    sampler = Sampler(random_text(0), 32)
    numbers = np.arange(1200).reshape(30, 40)
    plain = sampler.examples(7, numbers)
    mixed = Mixture((sampler,), (1.0,)).examples(7, numbers)
    assert mixed.dtype == plain.dtype and mixed.shape == plain.shape
    np.testing.assert_array_equal(mixed, plain)


def test_examples_of_a_part_come_in_the_order_of_its_plain_sampler():
    samplers = (Sampler(random_text(0), 32), Sampler(random_text(1, 3_000), 32, most=900))
    mixture = Mixture(samplers, (3.0, 1.0))
    numbers = np.arange(900)
    part, _ = parts_of(numbers, (3.0, 1.0))
    found = mixture.examples(2, numbers)
    for index, sampler in enumerate(samplers):
        mine = found[part == index]
        np.testing.assert_array_equal(mine, sampler.examples(2, np.arange(len(mine))))
    shuffled = np.random.default_rng(0).permutation(900)
    np.testing.assert_array_equal(mixture.examples(2, shuffled), found[shuffled])


@pytest.fixture
def other(tmp_path):
    place = tmp_path / "other"
    place.mkdir()
    for number in range(30):
        (place / f"{number}.txt").write_text(f"quite another document {number}. " * 40)
    return place


def test_a_mixture_is_opened_whole_and_holds_out_what_the_corpus_does(folder, other, opened):
    plain, alone = opened(folder), opened(other)
    mixed = opened(folder, mixed_with=(str(other),), weights=(0.75, 0.25))
    assert mixed.data_fingerprint == f"{plain.data_fingerprint}+{alone.data_fingerprint}"
    np.testing.assert_array_equal(mixed.validation, plain.validation)
    found = mixed.examples(0, np.arange(400), 16)
    by_hand = Mixture((Sampler(plain.train, 16), Sampler(alone.train, 16)), (0.75, 0.25))
    np.testing.assert_array_equal(found, by_hand.examples(0, np.arange(400)))
    assert mixed.train_tokens == min(int(plain.train_tokens / 0.75), int(alone.train_tokens / 0.25))
    assert mixed.unique_tokens(1600, 16) == 1600
    assert mixed.unique_tokens(10**9, 16) == plain.unique_tokens(10**9, 16) + alone.unique_tokens(
        10**9, 16
    )
    again = opened(folder, mixed.data_fingerprint, mixed_with=(str(other),), weights=(0.75, 0.25))
    assert again.data_fingerprint == mixed.data_fingerprint


def test_another_text_of_a_part_is_not_continued(folder, other, opened):
    fields = {"mixed_with": (str(other),), "weights": (1.0, 1.0)}
    begun = opened(folder, **fields).data_fingerprint
    (other / "more.txt").write_text("a document that came later " * 20)
    kept = opened(folder, begun, **fields)  # the text it was begun with is in the cache
    assert kept.data_fingerprint == begun
    with pytest.raises(UserError, match=r"the mixture has 2 parts, and the text .* of 1"):
        opened(folder, begun.partition("+")[0], **fields)
    with pytest.raises(UserError, match=r"corpus that these runs are of .* is gone"):
        opened(folder, begun[:-1] + ("0" if begun[-1] != "0" else "1"), **fields)


def test_contamination_between_the_parts_is_told_once(folder, tmp_path, opened, capsys):
    """Of a part that has, among its own, every document of the corpus."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_text(f"{file.read_text()} and more of it")
    fields = {"mixed_with": (str(copy),), "weights": (1.0, 1.0), "validation_fraction": 0.1}
    corpus = opened(folder, **fields)
    assert corpus.held_out_in_training > 0.5
    said = capsys.readouterr()
    line = next(x for x in (said.out + said.err).splitlines() if f"text of {copy}" in x)
    assert "passages of 64 tokens held out occur word for word" in line
    assert float(line.split("%")[0].split()[-1]) > 50
    (record,) = (tmp_path / "cache" / "corpora").glob("overlap-*.json")
    assert json.loads(record.read_text())["shared"] > 0
    assert opened(folder, **fields).held_out_in_training == corpus.held_out_in_training
    again = capsys.readouterr()
    assert f"text of {copy}" not in again.out + again.err
    for content in (
        "[",
        "[]",
        "{}",
        '{"windows": "a", "shared": 1}',
        '{"windows": 1, "shared": -1}',
    ):
        record.write_text(content)
        with pytest.raises(UserError, match=r"overlap-.*\.json.*; remove this file$"):
            opened(folder, **fields)


def test_a_part_that_is_missing_or_has_another_tokenizer_is_one_line(folder, other, opened):
    with pytest.raises(UserError, match=r"data.mixed_with = 'nowhere': .*no such file") as error:
        opened(folder, mixed_with=("nowhere",), weights=(1.0, 1.0))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="has another tokenizer than the corpus itself") as error:
        opened(folder, mixed_with=(str(other),), weights=(1.0, 1.0), tokenizer="sentencepiece",
               vocab_size=300)  # fmt: skip
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixed_with": ("a",)}, r"data.weights = \(\): give 2"),
        ({"mixed_with": ("a",), "weights": (1.0,)}, "give 2, of the corpus and of each"),
        ({"weights": (1.0, 2.0)}, "is of corpora that data.mixed_with names"),
        ({"mixed_with": ("a",), "weights": (1.0, 0.0)}, "must be positive"),
    ],
)
def test_weights_are_of_all_parts_and_positive(fields, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**fields)


def test_order_and_weights_decide_the_run():
    mixtures = [
        DataConfig(mixed_with=parts, weights=weights)
        for parts, weights in (
            ((), ()),
            (("a", "b"), (1.0, 1.0, 2.0)),
            (("b", "a"), (1.0, 1.0, 2.0)),
            (("a", "b"), (1.0, 2.0, 1.0)),
        )
    ]
    assert len({fingerprint(config) for config in mixtures}) == 4
    assert "weights" not in to_json(mixtures[0])
    for config in mixtures:
        assert from_json(DataConfig, to_json(config), "data") == config
