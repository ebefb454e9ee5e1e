"""A Hugging Face folder of a model: what transformers 5, vLLM and lm-eval open.

The modern definition is a Qwen3 (class Qwen3ForCausalLM), number for number: RMSNorm with epsilon
1e-6 before attention and feed-forward, rotary positions of base 10000 that pair the halves of a
head, queries and keys RMS-normalised per head before they are turned, grouped keys and values, a
head size of its own, SwiGLU, no bias, untied readout. Where every feed-forward network is one of
experts it is a Qwen3Moe, whose gates are not rescaled (`norm_topk_prob` false). What is not there
is the factor sqrt(base) behind the embedding, which is multiplied into the table. Nothing else of
muP is left in a trained model: the attention's scale is 1/sqrt(head size) in both.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.data.tokenizers import SEPARATOR
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.exported import CONFIG, EXACT, SECTION, WEIGHTS, Exported
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.formats.names import places

EMBEDDING = "embedding"
ROPE_BASE, EPS = 10_000.0, 1e-6


def unfit(model: ModelConfig) -> str:
    """Why no class of transformers holds the model exactly; empty where one does."""
    if model.definition != "modern":
        return (
            f"the {model.definition} definition has Transformer-XL's relative positions, which no "
            "class of transformers 5 has beside the rest; a model of definition modern exports"
        )
    if model.experts and model.ff_size:
        return (
            "its layers have experts beside a feed-forward network that every token meets; "
            "Qwen3Moe, the class with such attention and routers, has experts alone (ff_size 0)"
        )
    if model.expert_capacity:
        return "its experts have places for some tokens only; Qwen3Moe's take all that choose them"
    return ""


def config(of: Exported) -> dict[str, Any]:
    """The content of `config.json`."""
    model = of.model
    found: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM" if model.experts else "Qwen3ForCausalLM"],
        "model_type": "qwen3_moe" if model.experts else "qwen3",
        "dtype": of.dtype,
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.ff_size or model.expert_size,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": of.sequence_length,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_BASE,  # of transformers 4; 5 reads the next
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "bos_token_id": SEPARATOR,
        "eos_token_id": SEPARATOR,
        "pad_token_id": SEPARATOR,
        "use_cache": True,
    }
    if model.experts:
        found |= {
            "num_experts": model.experts,
            "num_experts_per_tok": model.expert_picks,
            "moe_intermediate_size": model.expert_size,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return found | {SECTION: to_json(of)}


def generation_config() -> dict[str, Any]:
    """The content of `generation_config.json`: a document begins after a separator and ends so."""
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), SEPARATOR)
    return {"do_sample": True, **ids}


def write(folder: Path, of: Exported, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the configurations and the weights.

    Args:
      arrays: float32, by our paths with unrolled layers, as products take part with them.
    Raises:
      UserError: safetensors is not installed, or the folder cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, place in places(of.model).items():
        for name, stored in place.stored(folded(path, arrays[path], of)).items():
            tensors[name] = stored.astype(_dtype(of.dtype))
    save(folder / WEIGHTS, tensors)
    table = arrays[EMBEDDING]
    if of.dtype == "float32" and not np.array_equal(table * factor(of) / factor(of), table):
        save(folder / EXACT, {EMBEDDING: table})
    for name, content in ((CONFIG, config(of)), ("generation_config.json", generation_config())):
        storage.write_text_atomic(folder / name, json.dumps(content, indent=2) + "\n")


def read(folder: Path, of: Exported) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an exported folder, by our paths, in the precision of its files.

    Of a float32 folder they are those that were exported, to the bit: dividing by a factor that is
    no power of two would not always give back what was multiplied.

    Raises:
      UserError: safetensors is not installed; the file is damaged, lacks an array or has others.
    """
    with opened(folder / WEIGHTS) as file:
        model, there = of.model, set(file.keys())
        wanted = {name: p.shape(model) for p in places(model).values() for name in p.names}
        if strange := sorted(there ^ wanted.keys()):
            what = "has no" if strange[0] in wanted else "has an array that is none of the model's:"
            raise UserError(f"{folder / WEIGHTS}: {what} {strange[0]}")
        for name, expected in wanted.items():
            if (found := tuple(file.get_slice(name).get_shape())) != expected:
                raise UserError(f"{folder / WEIGHTS}: {name} is of {found}, not of {expected}")
        for path, place in places(model).items():
            array = place.ours({name: file.get_tensor(name) for name in place.names}, model)
            yield path, _unscaled(folder, array, of) if path == EMBEDDING else array


def _unscaled(folder: Path, stored: np.ndarray, of: Exported) -> np.ndarray:
    """The embedding of which the file has its product with the factor."""
    table = stored.astype(np.float32) / factor(of)
    if not storage.exists(folder / EXACT):
        return table
    with opened(folder / EXACT) as file:
        known = file.get_tensor(EMBEDDING)
    # Where other tools have trained on, what they have is right.
    return np.where(known * factor(of) == stored, known, table)


def folded(path: str, array: np.ndarray, of: Exported) -> np.ndarray:
    """An array of ours as a model without a factor behind its embedding has it."""
    return array * factor(of) if path == EMBEDDING else array


def factor(of: Exported) -> np.float32:
    """What the decoder multiplies rows of its embedding by."""
    return np.float32(Scaling(of.base_width, of.parametrization).base(of.model) ** 0.5)


def _dtype(name: str) -> np.dtype[Any]:
    import ml_dtypes  # of which NumPy has bfloat16

    kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name, name))
    return kind


def check_installed() -> None:
    """Raises UserError where safetensors is not installed."""
    _safetensors()


def save(place: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file; `format` tells transformers that matrices lie as torch has them."""
    numpy = _safetensors("numpy")
    # It takes an array's memory as it lies, whatever the strides say.
    content = numpy.save(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()},
        metadata={"format": "pt"},
    )
    storage.write_bytes_atomic(place, content)


def opened(place: Path) -> Any:
    """The safetensors file at `place`, for reading."""
    package = _safetensors()
    if storage.is_remote(place):
        raise UserError(f"{place}: weights are read from local files; copy the folder here first")
    try:
        return package.safe_open(str(place), framework="np")
    except FileNotFoundError:
        raise UserError(f"{place}: cannot be read: no such file") from None
    except (package.SafetensorError, OSError) as error:
        raise UserError(f"{place}: is damaged: {error}") from None


def _safetensors(part: str = "") -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise UserError(
            "safetensors is not installed; run `pip install 'chinchilla_jax[export]'`"
        ) from None
    return getattr(safetensors, part) if part else safetensors
