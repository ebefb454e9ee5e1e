"""The decoder once more, in NumPy and float64, with loops over heads, queries and keys."""

import math

import numpy as np

from chinchilla_jax.experiment.model import ModelConfig


def tree_to_numpy(tree):
    if isinstance(tree, dict):
        return {name: tree_to_numpy(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)


def rms_norm(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def rotate(x_K, position):
    """Each pair (i, i + K/2) as a complex number, turned by position x 10000^(-2 i / K)."""
    half = len(x_K) // 2
    z = (x_K[:half] + 1j * x_K[half:]) * np.exp(
        1j * position * 10_000.0 ** (-2 * np.arange(half) / len(x_K))
    )
    return np.concatenate([z.real, z.imag])


def distance_wave(distance, width):
    rates = 10_000.0 ** (-2 * np.arange(width // 2) / width)
    return np.concatenate([np.sin(distance * rates), np.cos(distance * rates)])


def attention(p, x_SxD, config: ModelConfig):
    """One sequence through one attention layer."""
    sequence, k = x_SxD.shape[0], config.head_size
    y = np.zeros_like(x_SxD)
    for h in range(config.heads):
        g = h * config.kv_heads // config.heads
        query, key, value = (
            x_SxD @ p[name][:, i] for name, i in (("query", h), ("key", g), ("value", g))
        )
        for i in range(sequence):
            scores = np.zeros(i + 1)
            for j in range(i + 1):
                if config.definition == "modern":
                    q_i = rotate(rms_norm(query[i], p["query_norm"]), i)
                    k_j = rotate(rms_norm(key[j], p["key_norm"]), j)
                    scores[j] = q_i @ k_j
                else:
                    r = distance_wave(i - j, config.width) @ p["positions"][:, h]
                    scores[j] = (query[i] + p["content_bias"][h]) @ key[j]
                    scores[j] += (query[i] + p["position_bias"][h]) @ r
            weights = np.exp(scores / math.sqrt(k))
            y[i] += (weights / weights.sum()) @ value[: i + 1] @ p["out"][h]
    return y


def feed_forward(p, x, config: ModelConfig):
    if config.definition == "modern":
        gate = x @ p["gate"]
        return (gate / (1 + np.exp(-gate)) * (x @ p["up"])) @ p["down"]
    u = x @ p["up"]
    gelu = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    return gelu @ p["down"]


def experts(p, x_SxD, config: ModelConfig):
    """Each token through those that its router picks, times their probabilities."""
    y = np.zeros_like(x_SxD)
    for token, x in enumerate(x_SxD):
        share = np.exp(x @ p["router"])
        share /= share.sum()
        for e in sorted(range(config.experts), key=lambda e: -share[e])[: config.expert_picks]:
            of_one = {name: p[f"expert_{name}"][e] for name in ("gate", "up", "down")}
            y[token] += share[e] * feed_forward(of_one, x, config)
    return y


def logits(params, tokens_S, config: ModelConfig, base_width: int):
    """[S, V] for one sequence, under muP; parameters of the unrolled model."""
    p = tree_to_numpy(params)
    tied = config.definition == "chinchilla"
    x = p["embedding"][tokens_S] * math.sqrt(base_width)
    for i in range(config.depth):
        layer = p[f"layers_{i}"]
        x = x + attention(layer["attention"], rms_norm(x, layer["attention_norm"]["scale"]), config)
        y = rms_norm(x, layer["feed_forward_norm"]["scale"])
        x = x + (feed_forward(layer["feed_forward"], y, config) if config.ff_size else 0)
        x = x + (experts(layer["experts"], y, config) if config.experts else 0)
    x = rms_norm(x, p["final_norm"]["scale"])
    if tied:
        return x @ p["embedding"].T * base_width / config.width
    return x @ p["readout"]
