"""The runs that tell most of a forecast for the FLOPs there are.

One run after another is taken, that which tells most per FLOP. Greed alone would buy the cheapest
runs without end, since every cheap run tells a little: so it also goes by gain over FLOPs to lower
powers, down to gain alone, and the best of these designs counts (as Leskovec et al. 2007, CELF,
take the better of two; together they are never worse than half as good as the best design).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.design.ensemble import Knowledge

_POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)  # of a run's FLOPs, by which its gain is divided
MOST_RUNS = 100  # of one choice
_WORTH = 0.002  # of ln variance, both targets together: what a run must tell to be made


@dataclass(frozen=True)
class Design:
    """A design: how many runs of every candidate, and what is known after them."""

    count_C: Ints
    after: Knowledge

    def __len__(self) -> int:
        return int(self.count_C.sum())


def choose(known: Knowledge, flops_C: Floats, most_C: Ints, budget: float) -> Design:
    """Runs of at most `budget` FLOPs together, at most `most_C` of each candidate.

    Empty where no run that can be paid for tells anything.
    """
    designs = [_greedy(known, flops_C, most_C, budget, power) for power in _POWERS]
    return min(designs, key=lambda design: float(np.log(design.after.variance_T).sum()))


def _greedy(known: Knowledge, flops_C: Floats, most_C: Ints, budget: float, power: float) -> Design:
    count_C, left = np.zeros(len(flops_C), np.int64), budget
    price_C = (flops_C / flops_C.min()) ** power
    while count_C.sum() < MOST_RUNS:
        gain_C = known.gain_C()
        open_C = (flops_C <= left * (1 + 1e-9)) & (count_C < most_C) & (gain_C > _WORTH)
        if not open_C.any():
            break
        best = int(np.argmax(np.where(open_C, gain_C / price_C, -1.0)))
        known = known.after(best)
        count_C[best] += 1
        left -= flops_C[best]
    return Design(count_C, known)


def cheapest_of(design: Design, known: Knowledge, flops_C: Floats, share: float) -> Design:
    """The cheapest runs of a design, one at least, up to a share of its FLOPs."""
    left = share * float(design.count_C @ flops_C)
    count_C = np.zeros_like(design.count_C)
    for c in np.argsort(flops_C, kind="stable"):
        for _ in range(design.count_C[c]):
            if count_C.any() and flops_C[c] > left:
                return Design(count_C, known)
            count_C[c] += 1
            left -= flops_C[c]
            known = known.after(int(c))
    return Design(count_C, known)
