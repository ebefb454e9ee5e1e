"""Compute-optimal training: plan, train, evaluate, forecast, and check the forecast.

What a notebook needs, without JAX (`chinchilla_jax.scaling.notebook` has the details):

    import chinchilla_jax as cj
    result = cj.fit("runs.csv")                  # or a list of dicts, a dict of columns, a frame
    result.optimum(1e21)                         # params, tokens, loss, each with its interval
    result.draw("isoflop").savefig("isoflop.png")
    cj.register("report/fits.json", 1e13, "forecasts/one.json", "configs/one.py")
    cj.verify("forecasts/one.json", "runs/one")  # when these runs are over
    cj.next_runs("runs.csv", 2e21)               # what to train next for so many FLOPs
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

# The fits are thousands of small products shared out over our own threads; BLAS threads would only
# spin beside them, a third of the time of `evaluate`, and change last digits. Heeded where NumPy is
# not loaded yet: hence here, before any other file of the package.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# By `python -m` only, whose name of the program is still that: until it is imported, Ctrl-C ends it
# as the system does, not with a traceback of imports. `program.run` takes over.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

if TYPE_CHECKING:
    from chinchilla_jax.experiment.errors import UserError as UserError
    from chinchilla_jax.scaling.design.next_runs import next_runs as next_runs
    from chinchilla_jax.scaling.notebook import compare as compare
    from chinchilla_jax.scaling.notebook import fit as fit
    from chinchilla_jax.scaling.notebook import league as league
    from chinchilla_jax.scaling.notebook import published as published
    from chinchilla_jax.scaling.notebook import read as read
    from chinchilla_jax.scaling.register.register import register as register
    from chinchilla_jax.scaling.register.verify import verify as verify

# Imported when they are first asked for: the programs of training need none of it.
_LAZY = {
    "UserError": "chinchilla_jax.experiment.errors",
    "compare": "chinchilla_jax.scaling.notebook",
    "fit": "chinchilla_jax.scaling.notebook",
    "league": "chinchilla_jax.scaling.notebook",
    "next_runs": "chinchilla_jax.scaling.design.next_runs",
    "published": "chinchilla_jax.scaling.notebook",
    "read": "chinchilla_jax.scaling.notebook",
    "register": "chinchilla_jax.scaling.register.register",
    "verify": "chinchilla_jax.scaling.register.verify",
}
__all__ = [
    "UserError", "__version__", "compare", "fit", "league", "next_runs", "published", "read",
    "register", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
