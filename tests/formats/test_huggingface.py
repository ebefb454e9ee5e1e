"""The files of a Hugging Face folder: names, shapes, values, and the way back."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from chinchilla_jax.experiment import exported
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import parameters, stored
from chinchilla_jax.formats import huggingface, names
from tests.formats import qwen3
from tests.formats.models import EXPERTS, SHAPE, drawn, tree
from tests.models import reference

LAYER = {
    "input_layernorm": (24,), "post_attention_layernorm": (24,),
    "self_attn.q_proj": (40, 24), "self_attn.k_proj": (20, 24), "self_attn.v_proj": (20, 24),
    "self_attn.q_norm": (10,), "self_attn.k_norm": (10,), "self_attn.o_proj": (24, 40),
}  # fmt: skip
DENSE = {"mlp.gate_proj": (40, 24), "mlp.up_proj": (40, 24), "mlp.down_proj": (24, 40)}
ROUTED = {"mlp.gate": (5, 24)} | {
    f"mlp.experts.{expert}.{name}": shape
    for expert in range(5)
    for name, shape in (("gate_proj", (12, 24)), ("up_proj", (12, 24)), ("down_proj", (24, 12)))
}
OUTSIDE = {"model.embed_tokens": (256, 24), "model.norm": (24,), "lm_head": (256, 24)}


@pytest.mark.parametrize("model,own", [({}, DENSE), (EXPERTS, ROUTED)])
def test_names_and_shapes_are_those_of_the_class(tmp_path, model, own):
    """As `save_pretrained` of transformers 5.24 writes them."""
    of, arrays = drawn(**model)
    huggingface.write(tmp_path, of, arrays)
    expected = {f"model.layers.{i}.{n}": s for i in range(2) for n, s in (LAYER | own).items()}
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}
    assert found == {f"{name}.weight": shape for name, shape in (expected | OUTSIDE).items()}
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["tie_word_embeddings"] is told["attention_bias"] is False
    assert told.get("norm_topk_prob") is (False if model else None)
    of_model = sum(stored(p, of.model) for p in parameters(of.model))
    assert of_model == sum(np.prod(shape) for shape in found.values())


def test_a_parameter_without_a_name_is_told(monkeypatch):
    monkeypatch.delitem(names.OF_LAYERS, "attention/query_norm")
    with pytest.raises(KeyError, match="query_norm"):
        drawn()


@pytest.mark.parametrize("model", [{}, EXPERTS])
@pytest.mark.parametrize("dtype,rounding", [("float32", 1e-6), ("bfloat16", 0.2)])
def test_the_class_computes_what_ours_does(tmp_path, dtype, rounding, model):
    of, arrays = drawn(dtype, **model)
    huggingface.write(tmp_path, of, arrays)
    tokens = np.random.default_rng(1).integers(0, 256, 7)
    ours = reference.logits(tree(arrays), tokens, of.model, of.base_width)
    theirs = qwen3.logits(tmp_path, tokens)
    assert np.abs(ours - theirs).max() < rounding
    assert np.abs(ours).max() > 1
    if dtype == "bfloat16":
        assert np.abs(ours - theirs).max() > 1e-4


@pytest.mark.parametrize("base_width", [64, 24])
def test_what_is_read_back_is_what_was_written(tmp_path, base_width):
    """To the bit also where the embedding's factor is no power of two."""
    of, arrays = drawn(base_width=base_width, **EXPERTS)
    huggingface.write(tmp_path, of, arrays)
    assert (tmp_path / "exact.safetensors").exists() == (base_width == 24)
    assert exported.read(tmp_path) == of
    found = dict(huggingface.read(tmp_path, of))
    assert found.keys() == arrays.keys()
    for path, array in arrays.items():
        assert found[path].dtype == np.float32 and np.array_equal(found[path], array), path


def test_what_another_tool_has_trained_on_is_what_is_read(tmp_path):
    of, arrays = drawn()
    huggingface.write(tmp_path, of, arrays)
    weights = {n: a.astype(np.float32) for n, a in qwen3.arrays(tmp_path).items()}
    weights["model.embed_tokens.weight"][3] *= 2
    huggingface.save(tmp_path / "model.safetensors", weights)
    found = dict(huggingface.read(tmp_path, of))["embedding"]
    assert np.array_equal(np.delete(found, 3, 0), np.delete(arrays["embedding"], 3, 0))
    assert np.allclose(found[3], 2 * arrays["embedding"][3], rtol=1e-6)


def test_bfloat16_is_rounded_once(tmp_path):
    of, arrays = drawn("bfloat16", base_width=64)
    huggingface.write(tmp_path, of, arrays)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    found = dict(huggingface.read(tmp_path, of))
    for path, array in arrays.items():
        off = np.abs(found[path].astype(np.float32) - array)
        assert off.max() > 0 and np.all(off <= np.abs(array) * 2**-8), path


@pytest.mark.parametrize("change,told", [
    (lambda w: w.pop("model.norm.weight"), "has no model.norm.weight"),
    (lambda w: w.update(more=np.ones(2)), "has an array that is none of the model's: more"),
    (lambda w: w.update({"model.norm.weight": np.ones(3)}), r"is of \(3,\), not of \(24,\)"),
])  # fmt: skip
def test_other_arrays_are_one_line(tmp_path, change, told):
    of, arrays = drawn()
    huggingface.write(tmp_path, of, arrays)
    weights = qwen3.arrays(tmp_path)
    change(weights)
    huggingface.save(tmp_path / "model.safetensors", weights)
    with pytest.raises(UserError, match=told):
        dict(huggingface.read(tmp_path, of))


def test_a_file_cut_short_is_one_line(tmp_path):
    of, arrays = drawn()
    huggingface.write(tmp_path, of, arrays)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model.safetensors: is damaged"):
        dict(huggingface.read(tmp_path, of))


@pytest.mark.parametrize("model,why", [
    ({"definition": "chinchilla", "kv_heads": 4}, "relative positions"),
    (EXPERTS | {"ff_size": 12}, "beside a feed-forward network"),
    (EXPERTS | {"expert_capacity": 1.0}, "places for some tokens only"),
    (EXPERTS, ""),
    ({"heads": 1, "kv_heads": 1}, ""),
])  # fmt: skip
def test_what_no_class_holds_is_told(model, why):
    reason = huggingface.unfit(ModelConfig(**SHAPE | model))
    assert why in reason if why else reason == ""
