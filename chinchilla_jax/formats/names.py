"""What other tools call our parameters, and how a matrix lies in their files.

Both formats keep a product's matrix as [outputs, inputs], as torch.nn.Linear does; ours is inputs
first, so what is stored is the transpose. Heads, and the halves that rotary positions pair, are in
the same order in all three: nothing is permuted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import (
    DIMENSIONS,
    Parameter,
    parameter,
    parameters,
    shape,
)

HUGGING_FACE, GGUF = "hugging_face", "gguf"


@dataclass(frozen=True)
class Names:
    """Of one parameter; those of layers go without the layer, those of experts with {expert}."""

    hugging_face: str
    gguf: str = ""  # of experts none: no model of llama.cpp has ours


LAYER = {HUGGING_FACE: "model.layers.{layer}.", GGUF: "blk.{layer}."}
# By our path, of unrolled layers without `layers_N/`.
OF_LAYERS = {
    "attention_norm/scale": Names("input_layernorm", "attn_norm"),
    "attention/query": Names("self_attn.q_proj", "attn_q"),
    "attention/key": Names("self_attn.k_proj", "attn_k"),
    "attention/value": Names("self_attn.v_proj", "attn_v"),
    "attention/query_norm": Names("self_attn.q_norm", "attn_q_norm"),
    "attention/key_norm": Names("self_attn.k_norm", "attn_k_norm"),
    "attention/out": Names("self_attn.o_proj", "attn_output"),
    "feed_forward_norm/scale": Names("post_attention_layernorm", "ffn_norm"),
    "feed_forward/gate": Names("mlp.gate_proj", "ffn_gate"),
    "feed_forward/up": Names("mlp.up_proj", "ffn_up"),
    "feed_forward/down": Names("mlp.down_proj", "ffn_down"),
    "experts/router": Names("mlp.gate"),
    "experts/expert_gate": Names("mlp.experts.{expert}.gate_proj"),
    "experts/expert_up": Names("mlp.experts.{expert}.up_proj"),
    "experts/expert_down": Names("mlp.experts.{expert}.down_proj"),
}
OUTSIDE = {
    "embedding": Names("model.embed_tokens", "token_embd"),
    "final_norm/scale": Names("model.norm", "output_norm"),
    "readout": Names("lm_head", "output"),
}


@dataclass(frozen=True)
class Place:
    """Where a file has one of our arrays: whole, or of each expert by itself."""

    parameter: Parameter
    names: tuple[str, ...]

    @property
    def by_expert(self) -> bool:
        return bool(self.parameter.chosen and self.parameter.fan_in)

    def stored(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Our array as the file has it, by its names there."""
        each = array if self.by_expert else [array]
        return {
            name: _matrix(self.parameter, part) for name, part in zip(self.names, each, strict=True)
        }

    def ours(self, stored: Mapping[str, np.ndarray], model: ModelConfig) -> np.ndarray:
        """`stored` the other way."""
        p, each = self.parameter, [stored[name] for name in self.names]
        flat = (
            np.stack([m.T for m in each]) if self.by_expert else each[0].T if p.fan_in else each[0]
        )
        return flat.reshape(shape(p.dims, model))

    def shape(self, model: ModelConfig) -> tuple[int, ...]:
        """Of what the file has under each name."""
        p = self.parameter
        if not p.fan_in:
            return shape(p.dims, model)
        return math.prod(shape(p.fan_out, model)), math.prod(shape(p.fan_in, model))


def places(model: ModelConfig, scheme: str = HUGGING_FACE) -> dict[str, Place]:
    """Where a file has each of our arrays, by its path with unrolled layers.

    Args:
      scheme: of names, HUGGING_FACE or GGUF.
    Raises:
      KeyError: a parameter that the tables above do not know.
    """
    of_model = {p.name for p in parameters(model)}
    if unknown := of_model - {parameter(path).name for path in (*OUTSIDE, *OF_LAYERS)}:
        raise KeyError(*unknown)
    found = {}
    stems = [("", "", OUTSIDE)] + [
        (f"layers_{layer}/", LAYER[scheme].format(layer=layer), OF_LAYERS)
        for layer in range(model.depth)
    ]
    for ours, theirs, table in stems:
        for path, names in table.items():
            if parameter(path).name in of_model:
                name = f"{theirs}{getattr(names, scheme)}.weight"
                found[ours + path] = _place(parameter(path), name, model)
    return found


def _place(p: Parameter, name: str, model: ModelConfig) -> Place:
    experts = getattr(model, DIMENSIONS[p.chosen].field) if p.chosen and p.fan_in else 1
    return Place(p, tuple(name.format(expert=expert) for expert in range(experts)))


def _matrix(p: Parameter, w: np.ndarray) -> np.ndarray:
    """[outputs, inputs] of a product's parameter; vectors and tables of rows as they are."""
    if not p.fan_in:
        return w
    dims = p.dims.removeprefix(p.chosen)
    inputs = math.prod(w.shape[: len(p.fan_in)])
    assert dims.startswith(p.fan_in)
    return np.ascontiguousarray(w.reshape(inputs, -1).T)
