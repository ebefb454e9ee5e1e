"""A number that is not given, why, and which runs would give it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.numbers import count, flops
from chinchilla_jax.scaling.arrays import Bools
from chinchilla_jax.scaling.fitting import estimators
from chinchilla_jax.scaling.fitting.curves import Minima
from chinchilla_jax.scaling.fitting.isoflop import Profile

Tried = Sequence[tuple[float, float]]
"""FLOPs and params of every run of the table."""

_ABOUT = 0.2  # of ln FLOPs or ln params: a run this near was tried
LEAST_BUDGETS = 3
LEAST_SIZES = 3


@dataclass(frozen=True)
class Refusal:
    """What is not known, why, and which runs would change that."""

    what: str
    reason: str
    remedy: str

    @property
    def sentence(self) -> str:
        return f"{self.what}: {self.reason}. {self.remedy[:1].upper()}{self.remedy[1:]}."


def minimum_reason(method: str, profile: Profile, minimum: Minima | None) -> str | None:
    """Why a budget has no minimum; None where it has one."""
    least = estimators.LEAST_SIZES[method]
    if profile.sizes < least or minimum is None:
        return f"{profile.sizes} sizes, {least} are needed"
    fault = str(minimum.fault_B[0])
    low, high = np.exp(profile.log_params_S[[0, -1]])
    size, where = np.unique(profile.log_params_S, return_inverse=True)
    lowest = int((np.bincount(where, profile.loss_S) / np.bincount(where)).argmin())
    if fault == "" and lowest in (0, len(size) - 1):
        edge, at = ("smallest", low) if lowest == 0 else ("largest", high)
        return f"no run on the far side: the {edge} size, {count(at)} params, has the lowest loss"
    return {
        "": None,
        "not convex": "the profile bends downward: no minimum among these sizes",
        "below the smallest size": f"still falling at the smallest size, {count(low)} params",
        "below zero": f"the {method} through its losses has a minimum below zero",
        "above the largest size": f"still falling at the largest size, {count(high)} params",
    }[fault]


def minima_refusal(
    found: Sequence[Profile], good_G: Bools, method: str, tried: Tried = ()
) -> Refusal | None:
    """Why there are no exponents by approach 2; no run of those `tried` is asked for again."""
    good = int(good_G.sum()) if len(found) else 0
    if good >= LEAST_BUDGETS:
        return None
    what = f"Exponents from iso-FLOP minima ({method})"
    if not found:
        return Refusal(
            what,
            "no two budgets: the runs are not grouped by FLOPs",
            "train five sizes or more at each of three budgets or more",
        )
    return Refusal(
        what,
        f"{good} of {len(found)} budgets have a minimum inside their sizes, three are needed",
        remedy(found, good_G, tried),
    )


def remedy(found: Sequence[Profile], good_G: Bools, tried: Tried = ()) -> str:
    """Which sizes would give the budgets without a minimum one, or which budgets are missing."""
    wanted = []
    for profile, fine in zip(found, good_G, strict=True):
        if fine:
            continue
        lowest = int(profile.loss_S.argmin())
        at = float(np.exp(profile.log_params_S[lowest]))
        middle = profile.log_params_S[[0, -1]].mean()
        step = 0.5 if profile.log_params_S[lowest] < middle else 2.0
        sizes: list[str] = []
        size = at
        while len(sizes) < 2:
            size *= step
            if not _tried(profile.flops, size, tried):
                sizes.append(count(size))
        wanted.append(f"{flops(profile.flops)} FLOPs with {' and '.join(sizes)} params")
    if wanted:
        return "train at " + ", at ".join(wanted[:4])
    largest = found[-1].flops
    steps = (largest * half * 10.0**decade for decade in range(40) for half in (3, 10))
    budgets = [flops(budget) for budget in steps if not _tried(budget, None, tried)][:2]
    return f"add budgets, say {' and '.join(budgets)} FLOPs"


def _tried(budget: float, size: float | None, tried: Tried) -> bool:
    """Whether the table has a run of about these FLOPs, and of about this size."""
    return any(
        abs(np.log(spent / budget)) < _ABOUT
        and (size is None or abs(np.log(params / size)) < _ABOUT)
        for spent, params in tried
    )
