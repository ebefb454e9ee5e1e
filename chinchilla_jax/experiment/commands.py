"""Commands that a person is told to give, as a shell takes them.

>>> command("evaluate", runs="my runs", out="report")
"python -m chinchilla_jax.evaluate --runs='my runs' --out=report"
"""

import shlex
from collections.abc import Iterable


def command(program: str, **flags: object) -> str:
    """A program of ours with its flags."""
    given = (f"--{name}={shlex.quote(str(value))}" for name, value in flags.items())
    return " ".join([f"python -m chinchilla_jax.{program}", *given])


def items(texts: Iterable[str]) -> str:
    """What stands behind `--name=` of a flag that takes a list: one with a comma quoted as in CSV.

    >>> items(["optimizer=adamw", "bits=4"]), items(["data=a, b"])
    ('optimizer=adamw,bits=4', '\\'"data=a, b"\\'')
    """
    quoted = (text.replace('"', '""') for text in texts)
    return shlex.quote(",".join(f'"{q}"' if "," in q or '"' in q else q for q in quoted))
