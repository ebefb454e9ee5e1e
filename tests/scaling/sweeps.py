"""A synthetic sweep on disk, shaped like configs/quickstart.py: what the evaluator meets first."""

import csv
import json
from pathlib import Path

import numpy as np

from chinchilla_jax.experiment.rows import columns

BUDGETS = (1e11, 3e11, 1e12, 3e12)
# width, depth, total parameters of a byte-level ladder (untied embedding and readout of 256).
LADDER = (
    (8, 2, 6.0e3), (12, 2, 1.05e4), (16, 2, 1.55e4), (24, 3, 3.5e4), (32, 3, 5.5e4),
    (48, 3, 1.1e5), (64, 4, 2.35e5), (96, 4, 4.9e5), (128, 5, 1.05e6), (160, 6, 1.95e6),
)  # fmt: skip
SURFACE = {"E": 0.6, "A": 24.0, "B": 93.0, "alpha": 0.34, "beta": 0.36}


def true_loss(params, tokens):
    p = SURFACE
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["beta"]


def write_sweep(folder: Path, noise: float = 0.004, seed: int = 0) -> Path:
    """24 cells, of which one diverged and one has not been run; results.csv and metrics.jsonl."""
    generator = np.random.default_rng(seed)
    rows = []
    for b, budget in enumerate(BUDGETS):
        for width, depth, params in LADDER[b : b + 6]:
            embedding = 256 * width
            matmul = params - embedding
            flops_per_token = 6 * matmul + 12 * depth * 64 * width
            steps = max(1, round(budget / (flops_per_token * 8 * 64)))
            tokens = steps * 8 * 64
            loss = true_loss(params, tokens) * np.exp(noise * generator.standard_normal())
            run_id = f"{budget:.0e}-{width}x{depth}".replace("+", "")
            status = {5: "missing", 12: "diverged"}.get(len(rows), "done")
            row = {}
            row.update(
                run_id=run_id, status=status, reason="", experiment="quickstart", budget=budget,
                flops=flops_per_token * tokens, flops_convention="matmul",
                flops_matmul=flops_per_token * tokens,
                flops_chinchilla=flops_per_token * tokens * 1.04, flops_six_nd=6 * params * tokens,
                params_total=params, params_embedding=embedding, params_readout=embedding,
                params_non_embedding=params - 2 * embedding, params_matmul=matmul,
                params_active=params, tokens=tokens, unique_tokens=tokens, steps=steps, batch=8,
                sequence=64, learning_rate=6e-3, seed=0, lr_multiplier=1.0, definition="modern",
                width=width, depth=depth, heads=max(1, width // 16), device_kind="cpu",
            )  # fmt: skip
            if status == "done":
                row.update(loss=loss, loss_se=0.002, bits_per_byte=loss / np.log(2))
                _curve(folder / "runs" / run_id, params, tokens, row["flops"], loss, generator)
            elif status == "diverged":
                row["reason"] = "loss <b>nan</b> at step 212"
            rows.append(row)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns(rows))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _curve(folder, params, tokens, flops, final, generator):
    folder.mkdir(parents=True)
    share = np.geomspace(0.01, 1.0, 60)
    # The surface with tokens so far, lifted before the learning rate has decayed.
    loss = true_loss(params, share * tokens) * (1 + 0.06 * (1 - share))
    loss *= final / loss[-1] * np.exp(0.003 * generator.standard_normal(len(share)))
    lines = [
        json.dumps(
            {"step": int(60 * s) + 1, "tokens": s * tokens, "flops": s * flops, "loss": value,
             "learning_rate": 6e-3 * (1.001 - s), "grad_norm": 1.0, "tokens_per_second": 1e5}
        )
        for s, value in zip(share, loss, strict=True)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
