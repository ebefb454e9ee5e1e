"""A GGUF file read back: names, shapes, rows, metadata, vocabulary, as llama.cpp wants them."""

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import bytes_tokenizer
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.formats import gguf, huggingface
from tests.formats import qwen3
from tests.formats.models import EXPERTS, SHAPE, drawn

LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
NAMES = {f"blk.{i}.{a}": f"model.layers.{i}.{b}" for i in range(2) for a, b in LAYER.items()}


def fields(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_are_those_of_the_hugging_face_folder(tmp_path, dtype):
    """Under llama.cpp's names for qwen3; rows of queries and keys are not permuted."""
    package = pytest.importorskip("gguf")
    of, arrays = drawn(dtype)
    gguf.write(tmp_path, of, arrays, bytes_tokenizer())
    huggingface.write(tmp_path, of, arrays)
    expected = qwen3.arrays(tmp_path)
    reader = package.GGUFReader(tmp_path / "model.gguf")
    known = package.MODEL_TENSORS[package.MODEL_ARCH.QWEN3]
    stems = {package.TENSOR_NAMES[tensor] for tensor in known}
    assert len(reader.tensors) == len(expected)
    for tensor in reader.tensors:
        name = tensor.name.removesuffix(".weight")
        wanted = expected[f"{(NAMES | OUTSIDE)[name]}.weight"]
        found = package.dequantize(tensor.data, tensor.tensor_type)
        assert tensor.shape.tolist() == list(wanted.shape[::-1])
        if wanted.ndim > 1 or dtype == "float32":
            assert np.array_equal(found, wanted), name
        else:  # vectors are not rounded
            assert np.allclose(found, wanted, rtol=2**-8) and tensor.tensor_type.name == "F32"
        assert name.replace("blk.0.", "blk.{bid}.").replace("blk.1.", "blk.{bid}.") in stems


def test_metadata_is_what_llama_cpp_reads(tmp_path):
    package = pytest.importorskip("gguf")
    of, arrays = drawn(vocab_size=260)
    gguf.write(tmp_path, of, arrays, bytes_tokenizer())
    found = fields(package.GGUFReader(tmp_path / "model.gguf"))
    shape = {
        "context_length": 16, "embedding_length": 24, "block_count": 2, "feed_forward_length": 40,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 10,
        "attention.value_length": 10, "rope.freq_base": 10_000.0,
    }  # fmt: skip
    for name, value in shape.items():
        assert found[f"qwen3.{name}"] == value, name
    assert found["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert found["general.architecture"] == "qwen3" and found["general.name"] == "drawn"
    for name in ("bos", "eos", "padding"):
        assert found[f"tokenizer.ggml.{name}_token_id"] == 0
    assert found["tokenizer.ggml.add_bos_token"] is True
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert len(tokens) == len(set(tokens)) == len(types) == 260
    assert tokens[0] == "<|endoftext|>" and tokens[ord("a")] == "a" and tokens[32] == "Ġ"
    assert types == [3] + [1] * 255 + [5] * 4
    (merge,) = found["tokenizer.ggml.merges"]  # without the key llama.cpp refuses the file
    assert merge.replace(" ", "") not in tokens and len(merge.split()) == 2


def test_experts_are_refused():
    assert "rescales" in gguf.unfit(ModelConfig(**SHAPE | EXPERTS))
    assert gguf.unfit(ModelConfig(**SHAPE)) == ""
