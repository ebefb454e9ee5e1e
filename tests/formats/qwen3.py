"""Qwen3 and Qwen3Moe from a Hugging Face folder alone, in NumPy and float64, as its authors say.

Yang et al. 2025, arXiv 2505.09388, section 2, and the published classes: nothing here is ours.
"""

import json

import ml_dtypes  # noqa: F401 (NumPy learns bfloat16)
import numpy as np
from safetensors import safe_open


def arrays(folder):
    with safe_open(folder / "model.safetensors", framework="np") as file:
        return {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def turned(x_SxHxK, base):
    half = x_SxHxK.shape[-1] // 2
    angles = np.outer(np.arange(len(x_SxHxK)), base ** (-np.arange(half) / half))[:, None]
    first, second = x_SxHxK[..., :half], x_SxHxK[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def swiglu(x, w, name):
    gate, up = (x @ w[f"{name}.{part}_proj.weight"].T for part in ("gate", "up"))
    return (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.down_proj.weight"].T


def attention(x, w, name, c):
    heads, groups, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    base = c["rope_parameters"]["rope_theta"]
    q, k, v = ((x @ w[f"{name}.{part}_proj.weight"].T).reshape(len(x), -1, size) for part in "qkv")
    q, k = (
        turned(norm(a, w[f"{name}.{part}_norm.weight"], c["rms_norm_eps"]), base)
        for a, part in ((q, "q"), (k, "k"))
    )
    y = np.zeros((len(x), heads, size))
    for head in range(heads):
        group = head // (heads // groups)
        scores = q[:, head] @ k[:, group].T / np.sqrt(size)
        scores[np.triu_indices(len(x), 1)] = -np.inf
        y[:, head] = softmax(scores) @ v[:, group]
    return y.reshape(len(x), -1) @ w[f"{name}.o_proj.weight"].T


def experts(x, w, name, c):
    gates = softmax(x @ w[f"{name}.gate.weight"].T)
    y = np.zeros_like(x)
    for token, chosen in enumerate(np.argsort(-gates)[:, : c["num_experts_per_tok"]]):
        for expert in chosen:
            out = swiglu(x[token], w, f"{name}.experts.{expert}")
            y[token] += gates[token, expert] * out
    return y


def logits(folder, tokens_S):
    """[S, V] of one sequence."""
    c, w = json.loads((folder / "config.json").read_text()), arrays(folder)
    feed_forward = {"qwen3": swiglu_of_layer, "qwen3_moe": experts}[c["model_type"]]
    x = w["model.embed_tokens.weight"][tokens_S]
    for layer in range(c["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        y = norm(x, w[f"{name}.input_layernorm.weight"], c["rms_norm_eps"])
        x = x + attention(y, w, f"{name}.self_attn", c)
        y = norm(x, w[f"{name}.post_attention_layernorm.weight"], c["rms_norm_eps"])
        x = x + feed_forward(y, w, f"{name}.mlp", c)
    x = norm(x, w["model.norm.weight"], c["rms_norm_eps"])
    return x @ w["lm_head.weight"].T


def swiglu_of_layer(x, w, name, c):
    return swiglu(x, w, name)
