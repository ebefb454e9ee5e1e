"""A GGUF file of a model, as llama.cpp opens it: the modern definition is its `qwen3`.

Rows of queries and keys lie as in a Hugging Face folder: there too Qwen3 pairs the halves of a
head, so nothing is permuted as for Llama. A text begins after the token that ends one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.data.tokenizers import SEPARATOR, Tokenizer, pieces_of
from chinchilla_jax.experiment import faults
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.exported import Exported
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.formats.huggingface import EPS, ROPE_BASE, folded
from chinchilla_jax.formats.names import GGUF, places
from chinchilla_jax.formats.vocabulary import byte_signs

FILE = "model.gguf"


def unfit(model: ModelConfig) -> str:
    """Why llama.cpp does not hold what a class of transformers does; empty where it does."""
    rescales = "llama.cpp's qwen3moe rescales the gates of a token's experts, which ours are not"
    return rescales if model.experts else ""


def write(
    folder: Path, of: Exported, arrays: Mapping[str, np.ndarray], tokenizer: Tokenizer
) -> None:
    """Writes `model.gguf`; matrices are of the exported dtype, vectors float32 as llama.cpp asks.

    Raises:
      UserError: gguf is not installed, or the folder cannot be written.
    """
    gguf = package()
    types, kind = gguf.GGMLQuantizationType, {"float32": "F32", "bfloat16": "BF16"}[of.dtype]
    with faults.translated(folder / FILE, "written"):
        file = gguf.GGUFWriter(str(folder / FILE), "qwen3")
        file.add_name(of.run)
        file.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else "MOSTLY_BF16"])
        _add_shape(file, of)
        _add_vocabulary(file, gguf.TokenType, tokenizer, of.model.vocab_size)
        for path, place in places(of.model, GGUF).items():
            for name, stored in place.stored(folded(path, arrays[path], of)).items():
                as_kind = types[kind] if stored.ndim > 1 else types.F32
                packed = gguf.quants.quantize(np.ascontiguousarray(stored), as_kind)
                file.add_tensor(name, packed, raw_dtype=as_kind)
        for act in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file"):
            getattr(file, act)()
        file.close()


def _add_shape(file: Any, of: Exported) -> None:
    file.add_context_length(of.sequence_length)
    file.add_embedding_length(of.model.width)
    file.add_block_count(of.model.depth)
    file.add_feed_forward_length(of.model.ff_size)
    file.add_head_count(of.model.heads)
    file.add_head_count_kv(of.model.kv_heads)
    file.add_key_length(of.model.head_size)
    file.add_value_length(of.model.head_size)
    file.add_rope_freq_base(ROPE_BASE)
    file.add_layer_norm_rms_eps(EPS)


def _add_vocabulary(file: Any, types: Any, tokenizer: Tokenizer, vocab_size: int) -> None:
    if tokenizer.name == "bytes":
        tokens, kinds = byte_signs(), [types.NORMAL] * 256
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre("gpt-2")
        # llama.cpp wants the key, the writer drops an empty list: a merge into no token is none.
        file.add_token_merges([f"{tokens[0]} {tokens[0]}"])
    else:
        pieces = pieces_of(tokenizer.model)
        tokens = [piece.text for piece in pieces]
        kinds = [types.BYTE if piece.is_byte else types.NORMAL for piece in pieces]
        file.add_tokenizer_model("llama")
        scores = [piece.score for piece in pieces]
        file.add_token_scores(scores + [0.0] * (vocab_size - len(pieces)))
        file.add_add_space_prefix(False)
    spare = [f"<unused{number}>" for number in range(len(tokens), vocab_size)]
    file.add_token_list(["<|endoftext|>", *tokens[1:], *spare])  # shown so; no text becomes it
    file.add_token_types([types.CONTROL, *kinds[1:], *[types.UNUSED] * len(spare)])
    for add in (file.add_bos_token_id, file.add_eos_token_id, file.add_pad_token_id):
        add(SEPARATOR)
    file.add_add_bos_token(True)


def package() -> Any:
    """The package gguf; raises UserError where it is not installed."""
    try:
        import gguf.quants
    except ImportError:
        raise UserError("gguf is not installed; pip install 'chinchilla_jax[export]'") from None
    return gguf
