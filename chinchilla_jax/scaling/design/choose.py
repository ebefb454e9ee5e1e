"""Designs that could be the next ones: V-optimal runs, and greedy ones by what runs tell.

V-optimal runs (`optimal`) are on average as good as any, on public tables and on made-up grids, and
come first. Beside them stand two that take one run after another, that which tells most of both
targets for its FLOPs: by all that is not known, FLOPs to the power .25, as the form's error is
told by dear runs alone; and by chance alone, FLOPs to the power .5. Greed per FLOP would buy the
cheapest runs without end, since every cheap run tells a little. Which of them is made is for
`expected` to say; what else was tried: tests/benchmarks/LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.ensemble import Knowledge
from chinchilla_jax.scaling.design.known import Known
from chinchilla_jax.scaling.design.optimal import V, optimal

_ALL, _CHANCE = 0.25, 0.5  # powers of a run's FLOPs, by which its gain is divided
MOST_RUNS = 100  # of one choice
_WORTH = 0.002  # of ln variance, both targets together: what a run must tell to be made


@dataclass(frozen=True)
class Design:
    """A design: how many runs of every candidate, and what is known after them."""

    count_C: Ints
    after: Knowledge

    def __len__(self) -> int:
        return int(self.count_C.sum())


def designs(known: Known, knowledge: Knowledge, pool: Pool, budget: float) -> list[Design]:
    """All that differ, of at most `budget` FLOPs each; the V-optimal one first.

    Args:
      knowledge: of `pool`.
    """
    flops_C, most_C = pool.flops_C, pool.most_C
    counts = [optimal(V, known, pool, budget)]
    counts.append(greedy(knowledge, flops_C, most_C, budget, _ALL).count_C)
    if (chance := known.of(pool, form=False)) is not None:
        counts.append(greedy(chance, flops_C, most_C, budget, _CHANCE).count_C)
    different = {count_C.tobytes(): count_C for count_C in counts}
    return [Design(count_C, after(knowledge, count_C)) for count_C in different.values()]


def greedy(known: Knowledge, flops_C: Floats, most_C: Ints, budget: float, power: float) -> Design:
    """Runs of at most `budget` FLOPs together, at most `most_C` of each candidate.

    Empty where no run that can be paid for tells anything.
    """
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


def after(knowledge: Knowledge, count_C: Ints) -> Knowledge:
    """What will be known once these runs are made."""
    for c in np.repeat(np.arange(len(count_C)), count_C):
        knowledge = knowledge.after(int(c))
    return knowledge


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
