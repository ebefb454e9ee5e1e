"""Whether any choice among the runs of a table, or of a grid, could do what is asked of designs.

    python -m tests.benchmarks.next_runs_bound ../shared/data/chinchilla_fig4.csv quickstart

The runs up to a tenth of a table's largest budget, or a made-up grid (of `next_runs`), are the
grid. By its fitted surface, linearised, with a run's noise at its FLOPs, weights w of 0 to 1 leave
g (sum w J J' / s^2)^-1 g' of the variance of ln N* and of ln L* at the target. That is convex in w:
so the least over all weights of a given sum of FLOPs, which every subset of the runs is among, is
bounded from below by a tangent. Shown is that bound of the width, over that of the whole grid, of
N* alone, of L* alone, and of the wider one of both. `at will` lets weights be any size: replicates,
and parts of runs. `subset` is the best of an exchange of runs, begun at those weights, for the
wider of both, what an oracle that knows the surface would choose; `drawn` are its widths by the
bootstrap, over the grid's, which knows which losses lie off the surface.
"""

import sys

import numpy as np
from absl import flags
from scipy import optimize

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.design.known import known_of
from chinchilla_jax.scaling.design.linear import linear
from tests.benchmarks.next_runs import QUICK, SURFACES, replayed, result, simulated


class Problem:
    """Variances of targets, over those of the whole grid, by the weights of its runs."""

    def __init__(self, told_RxP: Floats, wanted_TxP: Floats, flops_R: Floats) -> None:
        self.told, self.flops = told_RxP, flops_R
        whole = np.linalg.inv(told_RxP.T @ told_RxP)
        scale_T = np.sqrt(np.einsum("tp,pq,tq->t", wanted_TxP, whole, wanted_TxP))
        self.wanted = wanted_TxP / scale_T[:, None]

    def ratios(self, w_R: Floats) -> tuple[Floats, Floats]:
        """[T] of variances, and [T, R] their slopes."""
        inverse = np.linalg.inv((self.told * w_R[:, None]).T @ self.told)
        half = self.wanted @ inverse
        return np.einsum("tp,tp->t", half, self.wanted), -((half @ self.told.T) ** 2)

    def cheapest(self, slope_R: Floats, budget: float, most: float) -> Floats:
        """The weights that a linear criterion wants."""
        w_R, left = np.zeros(len(slope_R)), budget
        for r in np.argsort(slope_R / self.flops):
            w_R[r] = min(most, left / self.flops[r])
            left -= w_R[r] * self.flops[r]
            if left <= 0:
                break
        return w_R

    def least(self, mix_T: Floats, budget: float, most: float) -> tuple[float, Floats]:
        """A lower bound of the mix of ratios, and the weights that come near it.

        What is convex lies above its tangent at any weights: so the bound holds however near to the
        least the solver came.
        """
        price_R = self.flops / budget
        top_R = np.minimum(1 / price_R, most)
        found = optimize.minimize(
            lambda x: float(mix_T @ self.ratios(x)[0]),
            top_R / (price_R @ top_R),
            jac=lambda x: mix_T @ self.ratios(x)[1],
            bounds=list(zip(1e-6 * top_R, top_R, strict=True)),
            constraints={
                "type": "ineq", "fun": lambda x: 1 - price_R @ x, "jac": lambda x: -price_R,
            },
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-9},
        )  # fmt: skip
        w_R = np.clip(found.x, 0.0, top_R)
        w_R /= max(1.0, price_R @ w_R)
        ratio_T, slope_TxR = self.ratios(w_R)
        slope_R = mix_T @ slope_TxR
        gap = float(slope_R @ (w_R - self.cheapest(slope_R, budget, most)))
        return float(mix_T @ ratio_T) - gap, w_R

    def bounds(self, budget: float, most: float) -> tuple[Floats, Floats]:
        """Lower bounds of the ratio of N* alone, of L* alone, and of the wider one of both, the
        highest over mixes; and the weights that come near the last."""
        found = [self.least(np.array([1 - x, x]), budget, most) for x in np.linspace(0, 1, 11)]
        both, w_R = max(found, key=lambda item: item[0])
        return np.array([found[0][0], found[-1][0], both]), w_R

    def exchanged(self, w_R: Floats, budget: float) -> Floats:
        """A subset: the heaviest of the weights, then runs in and out while the wider narrows."""
        chosen, left = np.zeros(len(w_R)), budget
        for r in np.argsort(-w_R):
            if self.flops[r] <= left:
                chosen[r], left = 1.0, left - self.flops[r]

        def value(x: Floats) -> float:
            if x @ self.flops > budget * (1 + 1e-9) or x.sum() < 8:
                return np.inf
            return float(self.ratios(x)[0].max())

        best = value(chosen)
        while True:
            tried = []
            for i in range(len(chosen)):
                one = chosen.copy()
                one[i] = 1 - one[i]
                tried.append(one)
                if chosen[i]:
                    for j in np.flatnonzero(chosen == 0):
                        two = one.copy()
                        two[j] = 1.0
                        tried.append(two)
            values = [value(x) for x in tried]
            if min(values) >= best * (1 - 1e-9):
                return chosen
            best, chosen = min(values), tried[int(np.argmin(values))]


def main() -> None:
    flags.FLAGS(sys.argv[:1])
    print("                              bound: N*      L*    both  at will: N*      L*    both"
          "  subset: N*      L*  drawn: N*      L*  runs")  # fmt: skip
    for name in sys.argv[1:]:
        case = simulated(name, 0) if name in SURFACES else replayed(name)
        known = known_of(case.grid, QUICK, case.target)
        runs, surface = known.each.runs, case.surface or known.surface
        slopes = linear(surface, runs.params, runs.tokens)
        told = slopes.losses(runs.params, runs.tokens) / known.noise(runs.flops)[:, None]
        wanted = slopes.targets(known.each.flops_model, case.target)
        problem = Problem(told, wanted, runs.flops)
        whole_T = result(case, runs)[2:4]
        for share in (0.5, 0.7, 0.9):
            budget = share * float(runs.flops.sum())
            bound_T, w_R = problem.bounds(budget, 1.0)
            subset_R = problem.exchanged(w_R, budget)
            # Of a table every run was made once: nothing is there at will.
            free_T = problem.bounds(budget, np.inf)[0] if case.surface else np.full(3, np.nan)
            columns = [*np.sqrt([*bound_T, *free_T, *problem.ratios(subset_R)[0]])]
            columns += [*result(case, runs.select(subset_R > 0))[2:4] / whole_T]
            print(f"{case.name:20s} {share:5.2f}  " + "".join(f"{x:9.3f}" for x in columns)
                  + f"  {int(subset_R.sum())} of {len(subset_R)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
