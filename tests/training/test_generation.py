"""Texts of a model: the same tokens whatever computes them, and equal to the training forward."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import bytes_tokenizer
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.parameters import parameter
from chinchilla_jax.experiment.sampling import Sampling
from chinchilla_jax.models.module import path_name
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.training import generation, sharding, weights
from chinchilla_jax.training.generation import Generator, Texts, forgotten
from chinchilla_jax.training.initial import abstract_params
from chinchilla_jax.training.sampling import draw, noise, values
from chinchilla_jax.training.transfers import guards
from tests.training.helpers import small_run

WINDOW = 16
GREEDY = Sampling(temperature=0.0)
PROMPTS = [np.frombuffer(text, np.uint8) for text in (b"one", b"a model of", b"x", b"loss")]


def made(techniques=None, **model):
    """A run whose weights are far enough from each other that none is a tie."""
    run = small_run(sequence=WINDOW, model={"depth": 1, **model})
    return dataclasses.replace(run, techniques=techniques or Techniques())


def trained(run, mesh):
    random = np.random.default_rng(0)
    plain = weights.method(run, weights.decoder_of(run))
    abstract = abstract_params(plain.model)

    def drawn(path, leaf):
        centre = parameter(path_name(path)).initial or 0.0
        return (centre + 0.3 * random.standard_normal(leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, abstract)
    carried = jax.tree.map(
        lambda leaf: random.uniform(0, 0.3, leaf.shape).astype(np.float32),
        jax.eval_shape(plain.begin, abstract),
    )
    where = sharding.state_shardings({"params": abstract, "techniques": carried}, mesh)
    params, carried = jax.device_put((params, carried), (where["params"], where["techniques"]))
    return weights.Trained(run, params, carried, bytes_tokenizer())


def texts(run, sampling, most, cached=True, prompts=PROMPTS, **execution):
    mesh = sharding.make_mesh(Execution(**{"data_parallel": 1} | execution))
    loaded = trained(run, mesh)
    found = [[] for _ in prompts]
    with guards():
        for new in Generator(loaded, mesh, sampling, cached).stream(prompts, most):
            for text, tokens in zip(found, new, strict=True):
                text += tokens.tolist()
    return found


BALANCED = Techniques(experts=Experts(routed=4, per_token=2))
MODELS = {
    "grouped": made(kv_heads=2, vocab_size=300),  # more than tokens are of
    "relative": made(definition="chinchilla"),
    "experts": made(BALANCED, ff_size=0, experts=4, expert_picks=2, expert_size=32),
}


@pytest.mark.parametrize("run", MODELS.values(), ids=MODELS)
def test_tokens_are_those_of_the_training_forward_with_the_cache_and_without(run):
    """Far beyond the window, where contexts are shortened at moments of their own; the one on
    four devices, the other on one."""
    found = texts(run, GREEDY, 30, data_parallel=2, tensor=2)
    assert found == texts(run, GREEDY, 30, cached=False)
    loaded = trained(run, sharding.make_mesh(Execution(data_parallel=1)))
    method = weights.method(run, weights.decoder_of(run))
    whole = np.zeros((len(PROMPTS), WINDOW + 1), np.int32)
    for row, (prompt, new) in enumerate(zip(PROMPTS, found, strict=True)):
        text = [*prompt, *new][: WINDOW + 1]
        whole[row, : len(text)] = text
    inputs, _ = jax.jit(method.forward)(loaded.params, loaded.carried, whole)
    likeliest = np.asarray(inputs.x_TxD @ inputs.readout_DxV)[:, :256].argmax(axis=1)
    for prompt, new, row in zip(PROMPTS, found, likeliest.reshape(-1, WINDOW), strict=True):
        first = new[: WINDOW + 1 - len(prompt)]
        assert first == row[len(prompt) - 1 :][: len(first)].tolist()


def test_a_text_is_drawn_by_its_seed_and_depends_on_no_other():
    run, sampling = MODELS["grouped"], Sampling(temperature=0.9, top_k=100, top_p=0.95, seed=3)
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    found = texts(run, sampling, None, prompts=prompts)
    for prompt, new in zip(prompts, found, strict=True):
        assert new[-1] == 0 or len(prompt) + len(new) == WINDOW + 1
    assert found[0] != found[2]
    assert texts(run, sampling, None, cached=False, prompts=PROMPTS[:1]) == found[:1]
    assert texts(run, Sampling(seed=4), 8, cached=False, prompts=PROMPTS[:1]) != [found[0][:8]]


def test_a_run_whose_experts_have_places_computes_whole_contexts():
    capped = dataclasses.replace(MODELS["experts"].model, expert_capacity=1.0)
    run = dataclasses.replace(MODELS["experts"], model=capped)
    mesh = sharding.make_mesh(Execution(data_parallel=1))
    assert "expert_capacity" in generation.uncached(run)
    assert not Generator(trained(run, mesh), mesh, GREEDY).cached


@pytest.mark.parametrize("window", [1, 2, 7, 16])
def test_a_context_is_never_longer_than_the_window_nor_shorter_than_half(window):
    for length in range(1, 6 * window):
        left = length - forgotten(length, window)
        assert min(length, window // 2 + 1) <= left <= window
        assert forgotten(length, window) <= forgotten(length + 1, window)


def test_texts_end_with_their_document_with_the_window_and_with_their_tokens():
    prompts = [np.array([5, 6]), np.array([7])]
    growing = Texts(prompts, window=4, most=None)
    assert (growing.left(), growing.room()) == (4, 3)
    assert [x.tolist() for x in growing.add(np.array([[1, 0, 3], [1, 2, 3]]))] == [
        [1, 0],
        [1, 2, 3],
    ]
    assert (growing.left(), growing.room(), growing.contexts()) == (1, 1, [[0], [7, 1, 2, 3]])
    assert [x.tolist() for x in growing.add(np.array([[9], [8]]))] == [[], [8]]
    assert growing.left() == 0
    longer = Texts(prompts, window=4, most=9)
    assert (longer.left(), longer.room()) == (9, 3)
    longer.add(np.array([[1, 2, 3], [1, 2, 3]]))
    assert (longer.room(), longer.contexts()) == (1, [[1, 2, 3], [7, 1, 2, 3]])


def test_tokens_are_drawn_from_the_likeliest_as_often_as_they_are_likely():
    share = np.array([0.4, 0.3, 0.2, 0.1])
    logits = np.log(np.tile(share, (2000, 1))).astype(np.float32)

    def drawn(sampling):
        scalars = values(sampling, 4)
        return draw(logits, noise(0, 1, logits.shape, sampling, scalars)[0], sampling, scalars)

    def frequencies(**kind):
        found = drawn(Sampling(temperature=1.0, **kind))
        return np.bincount(found, minlength=4) / len(logits)

    np.testing.assert_allclose(frequencies(), share, atol=0.04)
    np.testing.assert_allclose(frequencies(top_k=2), [4 / 7, 3 / 7, 0, 0], atol=0.04)
    np.testing.assert_allclose(frequencies(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0], atol=0.04)
    np.testing.assert_allclose(frequencies(top_k=3, top_p=0.5), [4 / 7, 3 / 7, 0, 0], atol=0.04)
    np.testing.assert_allclose(frequencies(top_p=1e-9), [1, 0, 0, 0])
    squared = np.bincount(drawn(Sampling(temperature=0.5))) / len(logits)
    np.testing.assert_allclose(squared, share**2 / np.sum(share**2), atol=0.04)
    assert set(np.asarray(drawn(GREEDY))) == {0}


@pytest.mark.parametrize("kind", [
    {"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0},
    {"top_p": 1.01}, {"top_p": float("nan")}, {"seed": -1},
])  # fmt: skip
def test_what_cannot_be_drawn_from_is_refused_by_its_flag(kind):
    with pytest.raises(UserError, match=f"^--{next(iter(kind))} = "):
        Sampling(**kind)
