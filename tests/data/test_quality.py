"""Filters of documents: the published rules, a classifier, and what is kept of a text."""

import random
from collections import Counter

import numpy as np
import pytest

from chinchilla_jax.data import python_source, quality
from chinchilla_jax.data.selection import best, selected, spans_of
from chinchilla_jax.data.store import CHECKED_BYTES
from chinchilla_jax.experiment.errors import UserError

SENTENCE = "The people of this town have told us that winters are long and with snow. "
GOOD = "\n".join([SENTENCE * 2] * 5)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (GOOD, True),
        (SENTENCE * 3, False),  # 45 words
        ("the of " * 60_000, False),  # 120,000 words
        ("a be " * 60, False),  # words of 1.5 letters on average
        ("thethethethethethethe ofofofofofofof have that " * 30, False),  # of 10.75
        (GOOD.replace(" of", " # #"), False),  # symbols in over a tenth of the words
        (GOOD.replace(". ", "... "), False),
        ("\n".join(["- " + SENTENCE] * 10), False),  # all lines are bullets
        ("\n".join(["- " + SENTENCE] * 8 + [SENTENCE] * 2), True),
        ("\n".join([SENTENCE + "..."] * 4 + [SENTENCE] * 6), False),  # 4 of 10 end in ellipses
        ("\n".join([SENTENCE + "..."] * 3 + [SENTENCE] * 7), True),
        (GOOD.replace("winters are long and", "1234 5678 9012 34"), False),  # 11 of 15 have letters
        ("people sing songs every single night " * 20, False),  # no stop words
        ("people sing the songs every single night " * 20, False),  # one of them
        ("people sing the songs every night with " * 20, True),
    ],
)
def test_the_rules_of_gopher(text, passes):
    assert quality.gopher(text) == passes


def made_up(kind, number):
    """Prose, or lines of numbers."""
    rng = random.Random(f"{kind}{number}")
    words = ("rivers", "mountains", "letters", "the", "of", "wrote", "slowly")
    pieces = words if kind == "prose" else [str(x) for x in range(100, 160)]
    return " ".join(rng.choices(pieces, k=150)).encode()


def test_the_classifier_tells_documents_it_has_not_seen():
    curated = [made_up("prose", n) for n in range(20)]
    others = [made_up("prose" if n % 2 else "numbers", n + 100) for n in range(60)]
    score = quality.classifier(curated, others)
    prose = [score(made_up("prose", n)) for n in range(500, 530)]
    numbers = [score(made_up("numbers", n)) for n in range(500, 530)]
    assert min(prose) > max(numbers) and min(prose) > 0 > max(numbers)


def test_features_count_ngrams_whatever_their_place():
    one, two = quality.features(b"abcd" * 10 + b"efgh"), quality.features(b"efgh" + b"abcd" * 10)
    assert one.dtype == np.float32 and np.linalg.norm(one) == pytest.approx(1)
    assert one @ two > 0.85 > one @ quality.features(b"quite another text")
    assert not quality.features(b"abc").any()


def test_the_best_documents_are_kept_until_they_have_the_share_of_the_tokens():
    score, tokens = np.array([0.1, 0.9, 0.5, 0.7]), np.array([10, 20, 40, 30])
    assert best(score, tokens, 0.2).tolist() == [False, True, False, False]
    assert best(score, tokens, 0.21).tolist() == [False, True, False, True]
    assert best(score, tokens, 1.0).all()


@pytest.fixture
def mixed(tmp_path, opened):
    """A corpus of prose and numbers, and files of curated prose."""
    place, curated = tmp_path / "all", tmp_path / "curated"
    for folder in (place, curated):
        folder.mkdir()
    for number in range(120):
        kind = "prose" if number % 3 == 0 else "numbers"
        (place / f"{number}.txt").write_bytes(made_up(kind, number))
    for number in range(20):
        (curated / f"{number}.txt").write_bytes(made_up("prose", number + 900))
    return opened(place, validation_fraction=0.1), curated


def documents(tokens):
    return [bytes(tokens[a:b]) for a, b in spans_of(tokens)]


def test_likeness_to_the_curated_set_chooses_and_what_is_held_out_stays(mixed):
    corpus, curated = mixed
    kept = selected(corpus, "classifier", 0.3, str(curated))
    every, chosen = documents(corpus.train), documents(kept.train)
    assert chosen == [text for text in every if text in set(chosen)]  # in their order, whole
    prose = sum(b"r" in text for text in chosen)
    assert len(chosen) > 20 and prose / len(chosen) > 0.95 and len(every) > 2 * len(chosen)
    assert 0.3 <= len(kept.train) / len(corpus.train) < 0.35
    assert kept.validation is corpus.validation
    assert kept.data_fingerprint == corpus.data_fingerprint
    assert kept.text_fingerprint != corpus.text_fingerprint
    assert kept.train_tokens == len(kept.train) < CHECKED_BYTES


def test_it_is_selected_once_and_anew_when_the_curated_set_changes(mixed, capsys):
    corpus, curated = mixed
    first = selected(corpus, "classifier", 0.3, str(curated))
    assert "classifier keeps" in capsys.readouterr().err
    again = selected(corpus, "classifier", 0.3, str(curated))
    assert capsys.readouterr().err == "" and again.selection == first.selection
    for file in curated.iterdir():
        file.write_bytes(made_up("numbers", file.name))
    other = selected(corpus, "classifier", 0.3, str(curated))
    assert other.selection != first.selection
    assert sum(b"r" in text for text in documents(other.train)) < 5


def test_random_documents_are_a_subset_of_more_and_of_the_same_size(mixed):
    corpus, _ = mixed
    half, most = (selected(corpus, "random", keep, "") for keep in (0.5, 0.8))
    assert set(documents(half.train)) < set(documents(most.train)) < set(documents(corpus.train))
    assert 0.5 <= len(half.train) / len(corpus.train) < 0.55


def test_contamination_of_the_curated_set_is_told_and_not_learnt_from(mixed, tmp_path, capsys):
    corpus, _ = mixed
    copies = tmp_path / "copies"
    copies.mkdir()
    held = documents(corpus.validation)
    for number, text in enumerate(held):
        (copies / f"{number}.txt").write_bytes(text)
    with pytest.raises(UserError, match="all of its documents are held out"):
        selected(corpus, "classifier", 0.5, str(copies))
    (copies / "own.txt").write_bytes(made_up("prose", 999))
    selected(corpus, "classifier", 0.5, str(copies))
    assert f"{len(held)} documents of the curated set are held out" in capsys.readouterr().err


def test_rules_that_keep_nothing_and_a_curated_set_that_is_missing_are_one_line(tmp_path, opened):
    for number in range(20):
        (tmp_path / f"{number}.txt").write_bytes(made_up("numbers", number))
    corpus = opened(f"{tmp_path}/*.txt")
    with pytest.raises(UserError, match=r"quality = 'gopher': keeps no document of"):
        selected(corpus, "gopher", 0.5, "")
    with pytest.raises(UserError, match="'nowhere': no such file"):
        selected(corpus, "classifier", 0.5, "nowhere")


def test_the_standard_library_may_be_the_curated_set(mixed, monkeypatch):
    corpus, _ = mixed
    named = [(f"python/{n}.py", made_up("prose", n)) for n in range(900, 920)]

    def library(packages, skipped):
        assert packages == "standard_library"
        return iter(named)

    monkeypatch.setattr(python_source, "documents", library)
    kept = selected(corpus, "classifier", 0.3, "standard_library")
    assert sum(b"r" in text for text in documents(kept.train)) > 20


def test_the_standard_library_comes_without_packages():
    names = {
        name.split("/")[0] for name, _ in python_source.documents("standard_library", Counter())
    }
    assert names == {"python"}
