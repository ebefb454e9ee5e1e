"""What one side is worth in FLOPs of the other, as sentences and tables."""

from __future__ import annotations

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import percent
from chinchilla_jax.scaling.report.table import Rows, Table
from chinchilla_jax.scaling.ruler.records import Multiplier, SpeedUp, Versus

_WORTH = {
    True: "it is faster",
    False: "it is slower",
    None: "which these runs do not tell from 1",
}


def times(value: float | None) -> str:
    """A multiplier to three digits: 1.58, 0.696, 12.4."""
    if value is None:
        return numbers.MISSING
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def written(found: Multiplier | SpeedUp) -> str:
    """1.58 (1.52 to 1.64), 3.2 (from 1.5), over 1.9; `-` where these runs do not tell."""
    low, high = found.low, found.high
    if found.value is None:
        if low is not None:
            return f"over {times(low)}"
        return f"under {times(high)}" if high is not None else numbers.MISSING
    if low is not None and high is not None:
        return f"{times(found.value)} ({times(low)} to {times(high)})"
    if low is not None:
        return f"{times(found.value)} (from {times(low)})"
    return f"{times(found.value)} (to {times(high)})" if high is not None else times(found.value)


def speed_ups(found: Versus) -> Table:
    """The speed-up over the FLOPs that both sides have, and the one for all runs."""
    rows: Rows = [
        (numbers.flops(one.flops), numbers.loss(one.loss), written(one)) for one in found.at
    ]
    if found.overall is not None:
        rows.append(("all runs", "", written(found.overall)))
    head = (f"FLOPs of {found.second}", "its loss", f"FLOPs of {found.first} over them")
    note = (
        "In training FLOPs as they are counted here, which are not seconds. Each row by the "
        "frontiers of both laws; all runs by the pairs of runs and the law of "
        f"{found.first}. Brackets are 95 % intervals, by bootstrap over cells of both at once."
    )
    return Table("Speed-up", head, rows, note)


def fitness(found: Versus) -> Table | None:
    """How well each side's law fits."""
    rows = [
        (
            one.title, str(one.runs), percent(one.noise).lstrip("+"),
            percent(one.seeds).lstrip("+"),
            numbers.MISSING if one.lack_of_fit is None else f"{one.lack_of_fit:.2g}",
        )
        for one in found.fitness
    ]  # fmt: skip
    head = ("side", "runs", "about its law", "between runs of a cell", "p, lack of fit")
    return Table("Fits", head, rows) if rows else None


def answer(found: Versus) -> list[str]:
    """The speed-up in a sentence or two."""
    if found.refusal:
        return [f"No speed-up can be stated: {found.refusal}"]
    said = []
    if found.overall is not None and found.overall.value is not None:
        said.append(
            f"A training FLOP under {found.second} is worth {written(found.overall)} under "
            f"{found.first}"
            + (f": {_WORTH[found.overall.pays]}." if found.overall.resampled else ".")
        )
    elif found.overall is not None:
        said.append(f"{found.second}: {found.overall.reason}.")
    if len(found.at) > 1:
        first, last = found.at[0], found.at[-1]
        said.append(
            f"By the laws of both it is {written(first)} at {numbers.flops(first.flops)} FLOPs and "
            f"{written(last)} at {numbers.flops(last.flops)}."
        )
    if found.seconds is None:
        said.append("What it is in seconds these tables do not tell: no time on one device.")
    elif found.overall is not None and found.overall.value is not None:
        said.append(
            f"On the device of both it does {times(found.seconds)} times as many FLOPs a second: "
            f"{times(found.seconds * found.overall.value)} times in seconds."
        )
    return said
