"""The program `train`, or `sweep`, as one process of several; it notes which examples it read.

    python tests/training/child.py train NOTES PAUSE --workdir=... --coordinator=... ...

NOTES gets a line of JSON for each call that reads training examples: their numbers. It then
pauses, in seconds, so that a test can do something to a run that has begun. Of energy it counts as
much as `Once` says.
"""

import importlib
import json
import sys
import time
from pathlib import Path

from chinchilla_jax import program
from chinchilla_jax.data.store import Corpus
from chinchilla_jax.training import energy


class Once:
    """A counter that has counted 1.5 J of a processor when it is read first."""

    joules = 1.5

    def spent(self):
        spent, self.joules = self.joules, 0.0
        return {"cpu": spent}


if __name__ == "__main__":
    name, notes, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    read = Corpus.examples

    def noted(self, seed, numbers, sequence):
        with notes.open("a") as file:
            print(json.dumps(numbers.ravel().tolist()), file=file)
        time.sleep(pause)
        return read(self, seed, numbers, sequence)

    Corpus.examples = noted
    energy.counters = lambda mesh: [Once()]
    del sys.argv[1:4]
    program.run(importlib.import_module(f"chinchilla_jax.{name}").main, program.CONTINUES)
