"""The program `train`, or `sweep`, as one process of several; it notes which examples it read.

    python tests/training/child.py train NOTES PAUSE --workdir=... --coordinator=... ...

NOTES gets a line of JSON for each call that reads training examples: their numbers. It then
pauses, in seconds, so that a test can do something to a run that has begun.
"""

import importlib
import json
import sys
import time
from pathlib import Path

from chinchilla_jax import program
from chinchilla_jax.data.store import Corpus

if __name__ == "__main__":
    name, notes, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    read = Corpus.examples

    def noted(self, seed, numbers, sequence):
        with notes.open("a") as file:
            print(json.dumps(numbers.ravel().tolist()), file=file)
        time.sleep(pause)
        return read(self, seed, numbers, sequence)

    Corpus.examples = noted
    del sys.argv[1:4]
    program.run(importlib.import_module(f"chinchilla_jax.{name}").main)
