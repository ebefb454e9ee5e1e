"""Designs that could be the next ones: greedy by what runs tell, and those of the literature.

One run after another is taken, that which tells most per FLOP. Greed alone would buy the cheapest
runs without end, since every cheap run tells a little: so it also goes by gain over FLOPs to lower
powers, down to gain alone (as Leskovec et al. 2007, CELF, take the better of two). Beside these
stand the V- and the D-optimal design (`optimal`), and one that first gives every budget five
sizes, so that each has a minimum and hold-out has budgets to check the law by. Which of them is
made is for `expected` to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.ensemble import Knowledge
from chinchilla_jax.scaling.design.known import Known
from chinchilla_jax.scaling.design.optimal import D, V, optimal

_POWERS = (1.0, 0.5, 0.25)  # of a run's FLOPs, by which its gain is divided
MOST_RUNS = 100  # of one choice
_WORTH = 0.002  # of ln variance, both targets together: what a run must tell to be made
_SIZES = 5  # that a budget is given


@dataclass(frozen=True)
class Design:
    """A design: how many runs of every candidate, and what is known after them."""

    count_C: Ints
    after: Knowledge

    def __len__(self) -> int:
        return int(self.count_C.sum())


def designs(known: Known, knowledge: Knowledge, pool: Pool, budget: float) -> list[Design]:
    """All that differ, of at most `budget` FLOPs each; that which tells most by variances first.

    Args:
      knowledge: of `pool`.
    """
    flops_C, most_C = pool.flops_C, pool.most_C
    found = [greedy(knowledge, flops_C, most_C, budget, power) for power in _POWERS]
    if (chance := known.of(pool, form=False)) is not None:
        for power in (1.0, 0.5):
            count_C = greedy(chance, flops_C, most_C, budget, power).count_C
            found.append(Design(count_C, after(knowledge, count_C)))
    for by in (V, D):
        count_C = optimal(by, known, pool, budget)
        found.append(Design(count_C, after(knowledge, count_C)))
    found.append(_in_profiles(known, knowledge, pool, budget))
    different = {design.count_C.tobytes(): design for design in found}
    return sorted(different.values(), key=_variance)


def _variance(design: Design) -> float:
    return float(np.log(design.after.variance_T).sum())


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


def _in_profiles(known: Known, knowledge: Knowledge, pool: Pool, budget: float) -> Design:
    """Sizes near the best of each budget, the cheapest budget first, then what tells most."""
    loss_C = known.surface.loss(pool.params_C, pool.tokens_C)
    count_C, left = np.zeros(len(pool), np.int64), budget
    for one in np.unique(pool.budget_C):
        here = pool.budget_C == one
        there = int((pool.made_C[here] > 0).sum())
        new = [c for c in np.argsort(loss_C) if here[c] and not pool.made_C[c] and pool.most_C[c]]
        for c in new[: max(_SIZES - there, 0)]:
            if pool.flops_C[c] <= left * (1 + 1e-9):
                count_C[c] += 1
                left -= pool.flops_C[c]
    then = after(knowledge, count_C)
    rest = greedy(then, pool.flops_C, pool.most_C - count_C, left, 0.5)
    return Design(count_C + rest.count_C, rest.after)


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
