"""The sampler of a mixture beside the plain one, in turns, over dispatches of several sizes.

    python tests/benchmarks/mixture.py [--tokens=200000000]

Examples a second of the processor of each, and the ratio of the times, over all dispatches: of each
pair one sampler makes the same dispatch right after the other. The texts are files mapped into
memory.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from chinchilla_jax.data.mixture import Mixture
from chinchilla_jax.data.sampler import Sampler

# (examples of a dispatch, tokens of each): of a small model, of a large one.
DISPATCHES = ((64, 64), (1024, 64), (64, 1024), (1024, 1024), (512, 2048))
WEIGHTS = {"one of one": (1.0,), "two": (0.7, 0.3), "four": (0.4, 0.3, 0.2, 0.1)}
PAIRS = 96


def seconds(examples, numbers):
    """Of the processor, for one dispatch: what else runs here does not count."""
    begun = time.thread_time()
    examples(3, numbers)
    return time.thread_time() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200_000_000, help="of each text")
    size = parser.parse_args().tokens
    with tempfile.TemporaryDirectory() as folder:
        texts = []
        for number in range(4):
            file = Path(folder) / f"{number}.bin"
            np.random.default_rng(number).integers(0, 2**16, size, np.uint16).tofile(file)
            texts.append(np.memmap(file, np.uint16, "r"))
        for count, sequence in DISPATCHES:
            samplers = tuple(Sampler(text, sequence) for text in texts)
            for name, weights in WEIGHTS.items():
                mixture = Mixture(samplers[: len(weights)], weights)
                pairs = []
                for turn in range(PAIRS + 5):
                    numbers = np.arange(turn * count, (turn + 1) * count)
                    calls = [samplers[0].examples, mixture.examples]
                    order = (0, 1) if turn % 2 else (1, 0)
                    found = {which: seconds(calls[which], numbers) for which in order}
                    pairs.append((found[0], found[1]))
                plain, mixed = np.mean(pairs[5:], axis=0)
                print(
                    f"{count:5} x {sequence:4}  {name:10}  plain {count / plain:9.0f}/s"
                    f"  mixture {count / mixed:9.0f}/s  time {mixed / plain:.2f} x"
                )


if __name__ == "__main__":
    main()
