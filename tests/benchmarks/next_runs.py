"""What chosen runs save against a fixed grid, and how they compare with V- and D-optimal designs.

    python -m tests.benchmarks.next_runs [--repeats=10] [--shares=.5,1] [--surface=quickstart]
    python -m tests.benchmarks.next_runs --tables=a.csv,b.csv --shares=.5,.25,.1 --thinned=4

Simulated: a grid of six sizes at four budgets on a known surface with noise. Replayed: the runs of
a published table up to a tenth of its largest budget are the grid, and the candidates too; each is
revealed when it is chosen. `--thinned` replays a table so often, each time without 13 % of its runs
by lot, since one replay is one draw of luck. Every design begins with the two cheapest budgets of
the grid, knows no more than its own runs say and spends a share of the grid's FLOPs in rounds, each
half of what is left, the cheaper runs first: `chosen` is what `plan --next` takes, `V-optimal` and
`D-optimal` are those of `scaling/design/optimal.py`. All have the same candidates, noise and fits.

Shown, at ten times the largest budget of the grid, as medians over repeats: the width in ln of the
95 % intervals of N* and L* that a report states, and that of chance alone (the bootstrap of the
surface); and the error of the surface's N* and L*, its rms and the median of its size. Of a table
the truth is its minimum at the largest budget.

Then in pairs, on the same grid with the same noise: the mean of ln of a design's stated width over
that of V-optimal runs, of N*, of L* and of both together, with its standard error over repeats,
and over tables (or surfaces) in the last lines; negative is narrower. Pairs of which an interval is
open are left out, and how many each design has is said.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app, flags

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Bools, Floats, Ints, silent
from chinchilla_jax.scaling.design import candidates
from chinchilla_jax.scaling.design.candidates import Pool
from chinchilla_jax.scaling.design.choose import Design, after, cheapest_of, designs
from chinchilla_jax.scaling.design.ensemble import targets_of
from chinchilla_jax.scaling.design.expected import narrowest
from chinchilla_jax.scaling.design.known import Known, known_of
from chinchilla_jax.scaling.design.optimal import D, V, optimal
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

_REPEATS = flags.DEFINE_integer("repeats", 10, "Grids made up.")
_SHARES = flags.DEFINE_list("shares", ["0.5"], "Of the grid's FLOPs, which designs spend.")
_NOISE = flags.DEFINE_float("noise", 0.01, "Standard deviation of ln loss.")
_SURFACE = flags.DEFINE_list("surface", ["quickstart"], "Whose losses are made up.")
_DESIGNS = flags.DEFINE_list("designs", ["chosen", "V-optimal", "D-optimal"], "Which.")
_ROUNDS = flags.DEFINE_integer("rounds", 4, "After the beginning.")
_SPREAD = flags.DEFINE_float("spread", 4.0, "Factor from the best size to the ends of a budget.")
_TABLES = flags.DEFINE_list("tables", [], "Tables to replay instead.")
_THINNED = flags.DEFINE_integer("thinned", 0, "Times that a table is replayed, thinned by lot.")

SURFACES = {
    # 41 dense runs of byte models.
    "quickstart": Surface(0.975, 0.359 * 1e5**0.437, 0.455 * 1e6**0.439, 0.437, 0.439),
    # Close to it up to 3e12 FLOPs, with both terms under a power.
    "coupled": Surface(0.6, 45.0, 66.0, 0.50, 0.50, 0.66),
    "hoffmann": Surface(1.69, 406.4, 410.7, 0.34, 0.28),
}
BUDGETS = {"hoffmann": (1e18, 3e18, 1e19, 3e19)}
QUICK = Settings(bootstrap=300)
_KEPT = 0.87  # of a grid that is thinned


@dataclass(frozen=True)
class Case:
    """A grid, the runs that a design begins with and what they tell, the truth at the target."""

    grid: Runs
    begun: Runs
    known: Known
    target: float
    truth: Floats  # ln N*, ln L*
    surface: Surface | None
    seed: int

    def left(self, share: float, runs: Runs) -> float:
        """Of a share of the grid's FLOPs, those that runs did not spend."""
        return float(share * self.grid.flops.sum() - runs.flops.sum())

    def pays(self, share: float) -> bool:
        """Whether a share is enough for a run beside those that a design begins with."""
        return self.left(share, self.begun) >= self.pool(self.known).flops_C.min()

    def pool(self, known: Known) -> Pool:
        if self.surface is not None:
            budgets = tuple(self.grid.budget_G)
            return candidates.of_table(known.each.runs, SIX_ND, max(budgets), budgets)
        rest = ~np.isin(self.grid.row_R, known.each.runs.row_R)
        runs = self.grid.select(rest)
        none, one = np.zeros(len(runs), np.int64), np.ones(len(runs), np.int64)
        budget = self.grid.budget_G[runs.group_R]
        return Pool(runs.params, runs.tokens, runs.flops, budget, none, one)

    def with_runs(self, runs: Runs, pool: Pool, count_C: Ints) -> Runs:
        if self.surface is not None:
            which = np.repeat(np.arange(len(pool)), count_C)
            params, tokens = pool.params_C[which], pool.tokens_C[which]
            z = [self.noise(pool, c, k) for c in range(len(pool)) for k in range(count_C[c])]
            loss = self.surface.loss(params, tokens) * np.exp(_NOISE.value * np.array(z))
            columns = ((runs.params, params), (runs.tokens, tokens), (runs.loss, loss))
            return made_up(*(np.append(old, new) for old, new in columns))
        rest = self.grid.row_R[~np.isin(self.grid.row_R, runs.row_R)]
        return self.grid.select(np.isin(self.grid.row_R, [*runs.row_R, *rest[count_C > 0]]))

    def noise(self, pool: Pool, c: int, number: int) -> float:
        """Of a candidate's next run but `number`: the same whichever design makes it, and when."""
        cell = [round(1e3 * np.log(x[c])) for x in (pool.params_C, pool.tokens_C)]
        stream = np.random.default_rng([self.seed, *cell, int(pool.made_C[c]) + number])
        return float(stream.standard_normal())


def made_up(params: Floats, tokens: Floats, loss: Floats) -> Runs:
    flops = SIX_ND.flops(params, tokens)
    budget = [float(f"{c:.6g}") for c in flops]
    columns = {"params": params, "tokens": tokens, "flops": flops, "budget": budget, "loss": loss}
    return read_runs(columns)


def simulated(name: str, repeat: int) -> Case:
    surface, budgets = SURFACES[name], BUDGETS.get(name, (1e11, 3e11, 1e12, 3e12))
    random = np.random.default_rng(repeat)
    budget = np.repeat(budgets, 6)
    offset = np.tile(np.linspace(-1, 1, 6) * np.log(_SPREAD.value), len(budgets))
    params = surface.optimum(budget, SIX_ND)[0] * np.exp(offset)
    tokens = SIX_ND.tokens(budget, params)
    loss = surface.loss(params, tokens) * np.exp(_NOISE.value * random.standard_normal(len(params)))
    target = 10 * max(budgets)
    grid, begun = made_up(params, tokens, loss), made_up(params[:12], tokens[:12], loss[:12])
    known = known_of(begun, QUICK, target)
    return Case(grid, begun, known, target, at(surface, target), surface, repeat)


def replayed(path: str, lot: int | None = None) -> Case:
    table = read_runs(path).best()
    target = float(table.budget_G.max())
    found = profiles(table.group_R, table.budget_G, table.params, table.tokens, table.loss)
    last = found[-1]
    z = last.log_params_S - last.log_params_S.mean()
    curve = np.polyfit(z, np.log(last.loss_S), 2)
    best = -curve[1] / (2 * curve[0])
    truth = np.array([best + last.log_params_S.mean(), np.polyval(curve, best)])
    small = table.budget_G[table.group_R] <= target / 10 * 1.05
    grid = table.select(small & (table.group_R >= 0))
    if lot is not None:
        grid = grid.select(np.random.default_rng(lot).permutation(len(grid)) < _KEPT * len(grid))
    cheap = np.sort(np.unique(grid.budget_G[grid.group_R]))[:2]
    begun = grid.select(np.isin(grid.budget_G[grid.group_R], cheap))
    return Case(grid, begun, known_of(begun, QUICK, target), target, truth, None, 0)


def at(surface: Surface, target: float) -> Floats:
    return targets_of(Surface(*(np.array([float(x)]) for x in surface.columns())), SIX_ND, target)[
        0
    ]


def chosen(known: Known, pool: Pool, left: float) -> Ints:
    found = known.of(pool)
    assert found is not None
    each = designs(known, found, pool, left)
    return narrowest(known, pool, each, np.zeros(len(pool), np.int64), QUICK).count_C


def designed(case: Case, by: str, share: float) -> Runs:
    runs = case.begun
    choose_by = functools.partial(optimal, by) if by in (V, D) else chosen
    for last in [*[False] * (_ROUNDS.value - 1), True]:
        try:
            known = case.known if runs is case.begun else known_of(runs, QUICK, case.target)
        except UserError:  # no surface: nothing more is chosen
            break
        pool = case.pool(known)
        if case.surface is not None:
            pool = candidates.near(pool, known.surface)
        count_C = choose_by(known, pool, case.left(share, runs))
        if not count_C.any():
            break
        knowledge = known.of(pool)
        assert knowledge is not None
        if not last:
            design = Design(count_C, after(knowledge, count_C))
            count_C = cheapest_of(design, knowledge, pool.flops_C, 0.5).count_C
        runs = case.with_runs(runs, pool, count_C)
    return runs


@silent()
def result(case: Case, runs: Runs) -> Floats:
    """Widths as stated, of chance, of N* and L*; errors; share spent; runs."""
    spent = float(runs.flops.sum() / case.grid.flops.sum())
    try:
        known = known_of(runs, QUICK, case.target)
    except UserError:  # no surface: a report states nothing
        return np.array([*[np.inf] * 4, *[np.nan] * 2, spent, float(len(runs))])
    stated = [np.log(e[1] / e[0]) if e else np.inf for _, e in known.forecast().values()]
    drawn = targets_of(known.draws, known.each.flops_model, case.target)
    chance = np.diff(np.nanquantile(drawn, [0.025, 0.975], axis=0), axis=0)[0]
    error = at(known.surface, case.target) - case.truth
    return np.array([*stated, *chance, *error, spent, len(runs)])


def cases() -> Iterator[tuple[str, list[Case]]]:
    for path in _TABLES.value:
        name, every = Path(path).stem, []
        for lot in range(_THINNED.value) if _THINNED.value else [None]:
            try:
                every.append(replayed(path, lot))
            except UserError:
                print(f"{name}, lot {lot}: its two cheapest budgets determine no surface, left out")
        if every:
            yield name, every
    for name in [] if _TABLES.value else _SURFACE.value:
        yield name, [simulated(name, repeat) for repeat in range(_REPEATS.value)]


Job = tuple[str, float]
"""A design and its share of the grid's FLOPs."""


def row(job: Job, results: Floats) -> str:
    (by, share), w, e = job, np.median(results, axis=0), results[:, 4:6]
    rms, middle = np.sqrt(np.nanmean(e**2, axis=0)), np.nanmedian(np.abs(e), axis=0)
    return (
        f"{by:12s} {share:4.2f} {w[0]:9.3f} {w[1]:6.4f} {w[2]:10.3f} {w[3]:6.4f} {rms[0]:7.3f} "
        f"{rms[1]:7.4f} {middle[0]:10.3f} {middle[1]:7.4f} {w[6]:6.2f} {w[7]:5.0f}"
    )


def ratios(found: Floats, against: Floats) -> Floats:
    """[pair, 3]: ln of stated widths over those of another design, of N*, of L* and of both."""
    closed = np.isfinite(found[:, :2] + against[:, :2]).all(axis=1)
    each = np.log(found[closed, :2] / against[closed, :2])
    return np.column_stack([each, each.sum(axis=1)])


def means(values: Floats) -> str:
    """Of every column, with its standard error where there are two."""
    if len(values) < 2:
        return "   ".join(f"{x:+.3f}" for x in values.ravel()) or "no pair"
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    each = zip(values.mean(axis=0), error, strict=True)
    return "   ".join(f"{x:+.3f} +- {s:.3f}" for x, s in each)


def pairs(
    results: dict[Job, Floats], paid: dict[float, Bools]
) -> Iterator[tuple[str, Floats, str]]:
    """What is compared with what, the ratios, and how many intervals are open.

    Args:
      paid: by share, of every case whether it is enough for a run.
    """
    for (by, share), other in itertools.product(results, (V, "grid")):
        against = results.get((other, 1.0 if other == "grid" else share))
        if by in (other, "grid") or against is None:
            continue
        each = [x[paid[share]] for x in (results[by, share], against)]
        left = [int(np.isinf(x[:, :2]).any(axis=1).sum()) for x in each]
        said = f"open {left[0]} and {left[1]} of {len(each[0])}"
        yield f"{by} less {other} {share:4.2f}", ratios(*each), said


def main(_: list[str]) -> None:
    over: dict[str, list[Floats]] = {}  # means of ratios, a table each
    shares = [float(share) for share in _SHARES.value]
    for name, every in cases():
        print(f"{name}: target {every[0].target:.3g}, {len(every)} repeats")
        print("design         stated N*     L*  chance N*     L*  rms N*      L*  "
              "median N*      L*  spent  runs")  # fmt: skip
        results: dict[Job, Floats] = {}
        for job in [("grid", 1.0), *itertools.product(_DESIGNS.value, shares)]:
            made = [c.grid if job[0] == "grid" else designed(c, *job) for c in every]
            results[job] = np.array([result(c, r) for c, r in zip(every, made, strict=True)])
            print(row(job, results[job]), flush=True)
        paid = {share: np.array([c.pays(share) for c in every]) for share in shares}
        for compared, found, said in pairs(results, paid):
            print(f"{compared}: {means(found)}; {said}", flush=True)
            if len(found):
                over.setdefault(compared, []).append(found.mean(axis=0))
    for compared, each in over.items():
        if len(each) > 1:
            print(f"{compared}, {len(each)} of them: {means(np.array(each))}")


if __name__ == "__main__":
    app.run(main)
