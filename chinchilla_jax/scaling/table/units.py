"""Units of counts: in a column's name, `params_M`, as a factor, `1e9*gflops`, in cells, `125M`."""

import math
import re
from collections.abc import Sequence

from chinchilla_jax.scaling.table.kinds import words

_COUNTS = {
    **dict.fromkeys(("k", "thousand", "thousands"), 1e3),
    **dict.fromkeys(("m", "mm", "mil", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "bil", "billion", "billions"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions"), 1e12),
}
_PREFIXES = {
    "k": 1e3, "kilo": 1e3, "m": 1e6, "mega": 1e6, "g": 1e9, "giga": 1e9, "t": 1e12, "tera": 1e12,
    "p": 1e15, "peta": 1e15, "e": 1e18, "exa": 1e18, "z": 1e21, "zetta": 1e21,
}  # fmt: skip
_DAY = 86400.0  # seconds: a petaFLOP/s-day is 8.64e19 FLOPs (Kaplan et al. 2001.08361)
_FLOPS = re.compile(
    rf"^({'|'.join(sorted(_PREFIXES, key=len, reverse=True))}) ?(flops?|f)( s)?( ?days?)?$"
)
_TEN = re.compile(r"^(1e|e|10)(\d{1,2})$")  # tokens_1e9


# 125M, 1.3 B params; 3 x 10^18; 16,400,000.
_WORDS = re.compile(r" *(params?|parameters?|tokens?|toks?|flops?)$", re.IGNORECASE)
_SUFFIX = re.compile(r"^(\d+(?:\.\d*)?|\.\d+) ?([KMBGT])n?$", re.IGNORECASE)
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_POWER = re.compile(r"^(?:(\d+(?:\.\d*)?) ?[x*\u00d7\u00b7] ?)?10(?:\^|\*\*)(\d{1,2})$")
_GROUPED = re.compile(r"^[1-9]\d{0,2}(,\d{3})+$|^\d+$")
_PLAIN = re.compile(r"^\d+(\.0*)?$")
_COMMA = re.compile(r"^\d+,\d+ ?[KMBGT]n?$", re.IGNORECASE)
_DECIMAL = re.compile(r"^(0,\d+|\d+,(\d{1,2}|\d{4,})) ?[KMBGT]n?$", re.IGNORECASE)  # no group


def count_of(text: str) -> float | None:
    """A count as people write it, that no number is by itself but for whole ones; else None.

    >>> count_of("125M params"), count_of("3 x 10^18"), count_of("16,400,000"), count_of("1.5")
    (125000000.0, 3e+18, 16400000.0, None)
    """
    bare = _WORDS.sub("", text)
    if found := _SUFFIX.match(bare):
        return float(found[1]) * _SUFFIXES[found[2].lower()]
    if found := _POWER.match(bare):
        return float(found[1] or 1) * 10.0 ** int(found[2])
    if _GROUPED.match(bare):
        return float(bare.replace(",", ""))
    try:
        return float(bare) if bare != text else None
    except ValueError:
        return None


def counts_of(texts: Sequence[str], unit: float) -> tuple[list[float], str, float] | None:
    """The counts of a column that is written as people write them; None of any other.

    Args:
      unit: what one is by the column's name; cells with suffixes have their own.
    Returns:
      The counts, one that was no plain number, and the unit that is left to be applied.

    >>> counts_of(["22.8M"], 1e6), counts_of(["1,155"], 1e6)
    (([22800000.0], '22.8M', 1.0), ([1155.0], '1,155', 1000000.0))
    """
    odd = next((text for text in texts if not _PLAIN.match(text)), None)
    if odd is None:
        return None
    read = list(texts)
    if any(map(_DECIMAL.match, texts)) and not any("." in text for text in texts):
        read = [text.replace(",", ".") if _COMMA.match(text) else text for text in texts]
    found = [float(text) if _PLAIN.match(text) else count_of(text) for text in read]
    suffixed = [bool(_SUFFIX.match(_WORDS.sub("", text))) for text in read]
    counts = [x for x in found if x is not None]
    if len(counts) < len(texts):
        return None
    bare = [x for x, own in zip(counts, suffixed, strict=True) if x and not own]
    if any(suffixed) and bare and (unit != 1.0 or min(bare) < 1000.0):
        return None  # 7 beside 13B, and in params_M 22 beside 1.3B
    return counts, odd, 1.0 if any(suffixed) else unit


def of_name(name: str) -> tuple[str, float]:
    """A column's name without its unit, and what one of it is; 1 where the name has none.

    >>> of_name("params (M)"), of_name("total_gflops"), of_name("tokens")
    (('params', 1000000.0), ('total flops', 1000000000.0), ('tokens', 1.0))
    """
    spoken = words(name).split()
    for begin in range(len(spoken)):
        unit = _FLOPS.match(" ".join(spoken[begin:]))
        # FLOP/s are no cost, FLOP/s-days are; PF alone is neither.
        if unit and bool(unit[3]) <= bool(unit[4]) and (unit[2] != "f" or unit[4]):
            days = _DAY if unit[4] else 1.0
            return " ".join([*spoken[:begin], "flops"]), _PREFIXES[unit[1]] * days
    if len(spoken) > 1:
        if spoken[-1] in _COUNTS:
            end = -2 if spoken[-2] == "in" and len(spoken) > 2 else -1  # params in millions
            return " ".join(spoken[:end]), _COUNTS[spoken[-1]]
        if spoken[0] in _COUNTS and len(spoken[0]) > 2:
            return " ".join(spoken[1:]), _COUNTS[spoken[0]]
        if power := _TEN.match(spoken[-1]):
            return " ".join(spoken[:-1]), 10.0 ** int(power[2])
    return name, 1.0


def scaled(text: str) -> tuple[str, float | None]:
    """`1e9*gflops` as the column's name and the factor; None where there is none."""
    factor, star, name = text.partition("*")
    try:
        value = float(factor)
    except ValueError:
        return text, None
    return (name.strip(), value) if star and 0 < value < math.inf else (text, None)
