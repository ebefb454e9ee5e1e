"""Time and peak memory of building the embedded corpus, of opening it, and of reading batches.

    python tests/benchmarks/corpus.py [--text=FILE_OR_FOLDER] [--documents=200000]

The corpus is built in an empty cache by a process of its own, so that its memory is its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig

BUILD = """
import resource, sys, time
from pathlib import Path
started = time.perf_counter()
from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment.config import DataConfig
fields = {"builder": "local_text", "path": sys.argv[2]} if sys.argv[2] else {}
open_corpus(DataConfig(**fields), Path(sys.argv[1]))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(f"build: {time.perf_counter() - started:.1f} s with imports, "
      f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU, "
      f"peak memory {usage.ru_maxrss / 1024:.0f} MiB")
"""
SEQUENCE = 64
SHAPES = ((64, 4), (64, 16), (64, 64), (1, 512))  # steps in one dispatch, sequences in a step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default="", help="files for local_text; default: python_source")
    parser.add_argument("--documents", type=int, default=0, help="so many short ones are made up")
    asked = parser.parse_args()
    text = asked.text
    with tempfile.TemporaryDirectory() as cache:
        if asked.documents:
            text = str(Path(cache) / "many.jsonl")
            with Path(text).open("w") as file:
                for i in range(asked.documents):
                    file.write(json.dumps({"text": f"word{i} " * 40}) + "\n")
        subprocess.run([sys.executable, "-c", BUILD, cache, text], check=True)
        fields = {"builder": "local_text", "path": text} if text else {}
        started = time.perf_counter()
        corpus = open_corpus(DataConfig(**fields), Path(cache))
        print(f"open: {1e3 * (time.perf_counter() - started):.0f} ms")
        for shape in SHAPES:
            count = int(np.prod(shape))
            times = []
            for repeat in range(30):
                numbers = np.arange(repeat * count, (repeat + 1) * count).reshape(shape)
                started = time.perf_counter()
                corpus.examples(0, numbers, SEQUENCE)
                times.append(time.perf_counter() - started)
            milliseconds = 1e3 * float(np.median(times))
            print(f"examples {[*shape, SEQUENCE + 1]}: {milliseconds:.2f} ms")
    print(f"({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main()
