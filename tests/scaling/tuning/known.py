"""Made-up tuning runs whose best rates and batches are known."""

import numpy as np

TRUE = {
    "rate": 6e-3,  # at N 2e4, D 1e6, B 512
    "params": -0.2,
    "tokens": -0.15,
    "batch": 0.5,
    "batch_tokens": 250.0,  # at D 1e6
    "batch_by_tokens": 0.6,
    "rate_curvature": 0.045,
    "batch_curvature": 0.012,
}


def best_batch(tokens):
    return TRUE["batch_tokens"] * (tokens / 1e6) ** TRUE["batch_by_tokens"]


def best_rate(params, tokens, batch):
    return (
        TRUE["rate"] * (params / 2e4) ** TRUE["params"] * (tokens / 1e6) ** TRUE["tokens"]
        * (batch / 512) ** TRUE["batch"]
    )  # fmt: skip


def tuning_table(noise=0.0, seed=0, rates=(0.35, 0.7, 1.4, 2.8), batches=(0.3, 1.0, 4.0), odd=1.0):
    """Four sizes, three budgets, rates and batches around what a recipe of the same form says.

    The largest size has `odd` times the best batch of the others.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for n in (6e3, 1.4e4, 3.3e4, 5.5e4):
        for c in (2e10, 6e10, 2e11):
            d = c / (6 * n)
            for times in batches:
                batch = 64 * max(1, round(384 * (d / 2e6) ** 0.6 * times / 64))
                tokens = batch * max(1, round(d / batch))  # whole steps
                for multiplier in rates:
                    rate = multiplier * 6e-3 * (batch / 512) ** 0.5
                    loss = 1.0 + (n / 1e5) ** -0.4 + (d / 1e6) ** -0.4
                    best = best_batch(d) * (odd if n == 5.5e4 else 1)
                    off = np.log(rate / best_rate(n, d, batch)), np.log(batch / best)
                    loss *= np.exp(
                        TRUE["rate_curvature"] * off[0] ** 2 + TRUE["batch_curvature"] * off[1] ** 2
                        + noise * generator.standard_normal()
                    )  # fmt: skip
                    rows.append({"params": n, "tokens": tokens, "lr": rate, "batch": batch // 64,
                                 "sequence": 64, "loss": float(loss)})  # fmt: skip
    return rows
