"""Does one learning rate serve every width? The loss over rates and widths, muP beside standard.

    python tests/benchmarks/learning_rate_transfer.py            # about ten minutes on two cores

Trains modern decoders of equal depth on the embedded corpus for a fixed number of steps at each
(parametrization, width, rate) and prints the final smoothed training loss, the best rate of each
width, and how far from optimal each width is at the rate that is best for the smallest
(Yang et al. 2022, figure 1).
"""

import argparse
import math

import numpy as np

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig, RecipeConfig, RunConfig
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.recipe import optimizer_for
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.schedules import learning_rates
from chinchilla_jax.training.worker import prepare_jax

SEQUENCE, BATCH, HEAD_SIZE, DEPTH = 64, 8, 16, 2


def run_of(width: int, rate: float, steps: int, parametrization: str) -> RunConfig:
    recipe = RecipeConfig(parametrization=parametrization, base_width=64)
    return RunConfig(
        run_id="transfer",
        experiment="learning_rate_transfer",
        budget=1.0,
        flops_convention="matmul",
        model=ModelConfig(
            width=width,
            depth=DEPTH,
            heads=width // HEAD_SIZE,
            kv_heads=width // HEAD_SIZE,
            head_size=HEAD_SIZE,
            ff_size=8 * width // 3,
        ),
        data=DataConfig(),
        optimizer=optimizer_for(steps, rate, recipe),
        execution=Execution(data_parallel=1),
        batch_size=BATCH,
        sequence_length=SEQUENCE,
        steps=steps,
        seed=0,
    )


def final_loss(run: RunConfig, corpus) -> float:
    """Smoothed training loss after the last step; infinite where it is not a number."""
    compiled = compiled_for(run)
    state = initial_state(compiled.method, compiled.shardings, run.seed)
    for first in range(0, run.steps, 64):
        count = min(64, run.steps - first)
        rates = np.zeros(64, np.float32)
        rates[:count] = learning_rates(run.optimizer, run.steps, first, count)
        numbers = np.arange(first * BATCH, (first + 64) * BATCH).reshape(64, BATCH)
        tokens = corpus.examples(run.seed, numbers, SEQUENCE)
        decay = np.float32(run.optimizer.weight_decay)
        state, _ = compiled.train(state, tokens, rates, decay, np.int32(count))
    loss = float(state.smoothed_loss)
    return loss if math.isfinite(loss) else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    rates = [6e-3 * 2.0**k for k in range(-4, 4)]
    corpus = open_corpus(DataConfig(), cache_folder())
    prepare_jax(cache_folder())
    for parametrization in ("mup", "standard"):
        print(f"\n{parametrization}: smoothed loss (nats per byte) after {arguments.steps} steps")
        print("width  " + "  ".join(f"{rate:7.2g}" for rate in rates) + "     best  excess")
        anchor = None
        for width in arguments.widths:
            losses = [
                final_loss(run_of(width, r, arguments.steps, parametrization), corpus)
                for r in rates
            ]
            best = int(np.argmin(losses))
            anchor = best if anchor is None else anchor
            print(
                f"{width:5d}  "
                + "  ".join(f"{loss:7.4f}" for loss in losses)
                + f"  {rates[best]:7.2g}  {losses[anchor] - losses[best]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
