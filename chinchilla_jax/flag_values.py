"""What a flag's text says: numbers, names with values, and flags that do not go together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from chinchilla_jax.experiment.errors import UserError


def positive_numbers(flag: str, texts: Sequence[str]) -> tuple[float, ...]:
    """`1e21,5.76e23` as split by absl.

    Raises:
      UserError: one of them is not a positive finite number.
    """
    return tuple(positive_number(flag, text) for text in texts)


def positive_number(flag: str, text: str) -> float:
    """One of them; a count also as the programs show it, 1.5M."""
    try:
        value = float(text)
    except ValueError:
        from chinchilla_jax.scaling.table.units import count_of  # few need it

        value = count_of(text.strip()) or math.nan
    if not 0 < value < math.inf:
        raise UserError(
            f"--{flag}: {text!r} is not a positive number; write it like 5.76e23 or 1.5M"
        )
    return value


def once(flag: str, values: Sequence[Any]) -> None:
    """Raises UserError for the first value that stands twice."""
    for i, value in enumerate(values):
        if value in values[:i]:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"--{flag}: {shown} is given twice")


def floats(flag: str, texts: Sequence[str]) -> dict[str, float]:
    """`unique_tokens=25e9,sparsity=0.5` as split by absl.

    Raises:
      UserError: one of them is not name=number.
    """
    found = {}
    for name, text in pairs(flag, texts).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise UserError(f"--{flag}: {name}={text} is not a number") from None
    return found


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """`params=N,loss=final_loss` as split by absl.

    Raises:
      UserError: one of them has no `=`, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            hint = f"; one with a comma in it is quoted: --{flag}='\"name=a,b\"'" * (len(texts) > 1)
            raise UserError(f"--{flag}: {text!r} is not name=value{hint}")
        if name in found:
            raise UserError(f"--{flag}: {name} is given twice")
        found[name] = value
    return found


def refuse_flags_of_others(mode: str, takes: Mapping[str, set[str]]) -> None:
    """Raises UserError for a flag that was given and that the mode does not take.

    Args:
      mode: the flag that asks for it, as "next"; empty for what a program does without.
      takes: of each mode the flags that differ between modes.
    """
    if mode not in takes:
        asked = " and ".join(f"--{name}" for name in takes if name and name in mode)
        raise UserError(f"{asked}: ask for one of them")
    for name in sorted(set().union(*takes.values()) - takes[mode]):
        if flags.FLAGS[name].present:
            others = " or ".join(f"--{other}" for other in takes if name in takes[other] and other)
            of = f"is of {others}" if others else f"is not of --{mode}"
            raise UserError(f"--{name}: {of}")
