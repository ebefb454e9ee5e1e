"""Laws of the best rate, batch and weight decay, fitted to the runs near the best of every cell.

    batch:          B* = d D^z                                      (Li et al. 2503.04715)
    learning_rate:  lr* = c N^x D^y B^w                             (the same, at a given batch B)
    weight_decay:   tau* = B / (lr wd D) = t (D/N)^v                (Bergsma et al. 2505.13738)

At the best batch lr* ~ N^x D^(y + w z): with a batch that grows the best rate may rise with D
where it falls at a fixed one, so both are told. Intervals are percentiles of bootstraps over runs
and over cells, the outer ends of the two: runs say what noise does, cells what the form misses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Bools, Floats, silent
from chinchilla_jax.scaling.fitting.intervals import Interval, interval
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE, SETTINGS
from chinchilla_jax.scaling.tuning.model import (
    LEAST,
    SPREAD,
    freedom,
    model_of,
    nearest,
    refusal,
)
from chinchilla_jax.scaling.tuning.published import compared
from chinchilla_jax.scaling.tuning.quadratic import Quadratic
from chinchilla_jax.scaling.tuning.records import (
    HeldOutSettings,
    Lost,
    SettingLaw,
    TunedCell,
    Tuning,
)
from chinchilla_jax.scaling.tuning.rows import TunedRows, tuned_rows

FACTORS = (1.25, 1.5, 2.0, 4.0)  # off the best value, of which the cost is told
_DRAWS = 400
_UNITS = {RATE: "", DECAY: "share of the run"}
_SYMBOL = {"params": "N", "tokens": "D", "batch": "B", "tokens_per_param": "(D/N)"}
_LEFT = {RATE: "lr* = c", BATCH: "B* = d", DECAY: "B/(lr wd D) = t"}


@silent()
def fit_tuning(asked: Sequence[str], runs: Runs, draws: int, seed: int) -> Tuning:
    """The laws of the settings asked for, with all that vary fitted at once.

    Args:
      runs: all that was tried under one condition; draws: of the bootstrap, at most 400 are made.

    Raises:
      UserError: the table lacks their columns, or varies none of them inside cells.
    """
    rows = tuned_rows(runs)
    refused = {name: reason for name in SETTINGS if (reason := refusal(rows, name))}
    varied = [name for name in SETTINGS if name not in refused]
    if not set(asked) & set(varied):
        raise UserError(f"{rows.source}: --laws={','.join(asked)}: {refused[asked[0]]}")
    model, terms = model_of(rows, varied)
    fit = _Fit(rows, tuple(varied), terms, model, *nearest(model, rows))
    if not np.isfinite(fit.phi_P).all() or fit.freedom < LEAST:
        raise UserError(
            f"{rows.source}: --laws={','.join(asked)}: the {int((fit.weights_R > 0).sum())} runs "
            f"near the best of {fit.cells} cells do not determine "
            f"{', '.join(varied)} together; vary them independently, at three values each"
        )
    drawn: tuple[Floats, ...] = ()
    if draws:
        drawn = fit.draws(min(draws, _DRAWS), np.random.default_rng([seed, 11]))
    laws = tuple(
        fit.law(name, drawn) if name in varied else _refused(name, refused[name])
        for name in SETTINGS
        if name in asked or name in varied
    )
    policy, followed = _policy(rows, varied)
    at_best, at_best_interval = fit.at_tuned_batch(drawn)
    cells = fit.tuned_cells()
    found = Tuning(
        asked=tuple(asked),
        laws=laws,
        policy=policy,
        followed=followed,
        at_tuned_batch=at_best,
        at_tuned_batch_interval=at_best_interval,
        runs=int((fit.weights_R > 0).sum()),
        near=fit.within,
        noise=fit.noise,
        cells=cells,
        held_out=tuple(fit.held_out(name) for name in ("tokens", "params") if fit.can_hold(name)),
        published=compared(rows, fit.lost_at),
        warnings=(),
    )
    return replace(found, warnings=tuple(_warnings(found)))


@dataclass(frozen=True)
class _Fit:
    """The quadratic fitted to the rows near the best of their cells."""

    rows: TunedRows
    names: tuple[str, ...]
    terms: dict[str, tuple[str, ...]]
    model: Quadratic
    weights_R: Floats
    within: float
    phi_P: Floats
    noise: float

    @property
    def cells(self) -> int:
        return int(self.rows.cell_R.max()) + 1

    @property
    def freedom(self) -> int:
        """Rows beyond those that the parameters and the levels of cells take."""
        return freedom(self.model, self.weights_R)

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Floats, ...]:
        """phi of resamples of runs and of cells, [B, P] each."""
        used = np.flatnonzero(self.weights_R)
        by_run = np.zeros((count, len(self.rows)))
        by_run[:, used] = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), size=count)
        chosen = rng.multinomial(self.cells, np.full(self.cells, 1 / self.cells), size=count)
        by_cell = chosen[:, self.rows.cell_R] * self.weights_R
        return tuple(self.model.refit(weights, self.phi_P) for weights in (by_run, by_cell))

    def law(self, name: str, drawn: Sequence[Floats]) -> SettingLaw:
        """The law of a setting, refused where its loss has no minimum in it."""
        values = self._values(name, self.phi_P[None])
        at = {key: float(value[0]) for key, value in values.items()}
        spread = _hull(drawn, lambda phi: self._values(name, phi))
        unit = self.rows.batch_unit if name == BATCH else _UNITS[name]
        terms = self.terms[name]
        formula = " ".join([_LEFT[name], *(f"{_SYMBOL[t]}^{at[t]:.3f}" for t in terms)])
        own, _ = self._own_best(name)
        curved = at["curvature"] > 0
        lost = tuple(
            Lost(factor, float(np.expm1(at["curvature"] * np.log(factor) ** 2)),
                 _lost_between(spread.get("curvature"), factor))
            for factor in FACTORS
        )  # fmt: skip
        return SettingLaw(
            setting=name,
            unit=unit,
            formula=formula,
            status="ok" if curved else "refused",
            reason=None if curved else f"the loss has no minimum in {name} near the best runs",
            coefficient=at["coefficient"] if curved else None,
            exponents={term: at[term] for term in terms} if curved else {},
            curvature=at["curvature"],
            interval=spread if curved else {},
            lost=lost if curved else (),
            cells=int(self.rows.varies(name).sum()),
            outside=int(np.nansum(own)),
        )

    def at_tuned_batch(
        self, drawn: Sequence[Floats]
    ) -> tuple[dict[str, float], dict[str, Interval | None]]:
        """Exponents of the best rate where the batch follows its own law; empty without both."""
        if not {RATE, BATCH} <= set(self.names):
            return {}, {}

        def exponents(phi_BxP: Floats) -> dict[str, Floats]:
            rate, batch = (self._values(name, phi_BxP) for name in (RATE, BATCH))
            zero = np.zeros(len(phi_BxP))
            through = rate["batch"] * batch.get("tokens", zero)
            found = {"tokens": rate.get("tokens", zero) + through}
            return {"params": rate["params"], **found} if "params" in rate else found

        at = {key: float(value[0]) for key, value in exponents(self.phi_P[None]).items()}
        return at, _hull(drawn, exponents)

    def best_at(
        self, params: Floats, tokens: Floats, batch: Floats | None = None
    ) -> dict[str, Floats]:
        """ln of the best settings of runs, the rate at `batch` (ln) where it is given."""
        column = {
            "params": np.log(params), "tokens": np.log(tokens),
            "tokens_per_param": np.log(tokens / params),
        }  # fmt: skip
        found: dict[str, Floats] = {}
        _, theta = self.model.split(self.phi_P[None])
        for name, coefficients in zip(self.names, theta, strict=True):
            if name == RATE and "batch" in self.terms[RATE]:
                column["batch"] = found[BATCH] if batch is None else batch
            design = np.column_stack(
                [np.ones(len(tokens)), *(column[term] for term in self.terms[name])]
            )
            found[name] = design @ coefficients[0]
        return found

    def lost_at(self, params: Floats, tokens: Floats, setting: dict[str, Floats]) -> Floats:
        """Share of the loss that settings (ln, by name) cost at runs; missing ones are the best."""
        batch = setting.get(BATCH) if BATCH in self.names else None
        best = self.best_at(params, tokens, batch)
        curvature = dict(zip(self.names, self.model.split(self.phi_P[None])[0][0], strict=True))
        total = np.zeros(len(tokens))
        for name, value in setting.items():
            if name in curvature:
                total += curvature[name] * (value - best[name]) ** 2
        return np.asarray(np.expm1(total))

    def tuned_cells(self) -> tuple[TunedCell, ...]:
        """Every cell with the best settings by its own runs."""
        own, error = self.model.centres(self.phi_P, self.weights_R)
        rows, found = self.rows, []
        for cell in range(self.cells):
            here = (rows.cell_R == cell) & (self.weights_R > 0)
            at = [np.median(x[here], keepdims=True) for x in (rows.params_R, rows.tokens_R)]
            law = {name: float(value[0]) for name, value in self.best_at(*at).items()}
            fine = [a for a in range(len(self.names)) if np.isfinite(own[a, cell])]
            best = self._combined(law, {self.names[a]: float(own[a, cell]) for a in fine})
            found.append(
                TunedCell(
                    params=float(at[0][0]),
                    tokens=float(at[1][0]),
                    runs=int(here.sum()),
                    loss=float(np.exp(rows.log_loss_R[here].min())),
                    best={name: float(np.exp(value)) for name, value in best.items()},
                    error={self.names[a]: float(self.noise * error[a, cell]) for a in fine},
                    law={name: float(np.exp(value)) for name, value in law.items()},
                    tried={name: _ends(rows.setting[name][here]) for name in self.names},
                )
            )
        return tuple(found)

    def _combined(self, law: dict[str, float], own: dict[str, float]) -> dict[str, float]:
        """ln of a cell's best settings: the rate's miss is at a given batch, so it moves along."""
        best = {name: law[name] + miss for name, miss in own.items()}
        if RATE in best and BATCH in own and "batch" in self.terms[RATE]:
            theta = self.model.split(self.phi_P[None])[1][self.names.index(RATE)][0]
            best[RATE] += float(theta[1 + self.terms[RATE].index("batch")]) * own[BATCH]
        return best

    def _own_best(self, name: str) -> tuple[Floats, Floats]:
        """[C]: whether a cell's best value lies outside the values of its runs; NaN where it has
        none of its own. And ln(own / law's)."""
        own, _ = self.model.centres(self.phi_P, self.weights_R)
        axis = self.names.index(name)
        miss_R = self.model.misses(self.phi_P[None])[0, axis]
        used = self.weights_R > 0
        outside = np.full(self.cells, np.nan)
        for cell in np.flatnonzero(np.isfinite(own[axis])):
            here = miss_R[used & (self.rows.cell_R == cell)]
            outside[cell] = not here.min() <= own[axis, cell] <= here.max()
        return outside, own[axis]

    def can_hold(self, largest: str) -> bool:
        """Whether the cells of the largest size or length can be left out."""
        rest = ~self._largest(largest)
        kept = np.unique(self.rows.cell_R[rest & (self.weights_R > 0)])
        return 2 * LEAST <= len(kept) < self.cells

    def _largest(self, by: str) -> Bools:
        """[R]: the rows of the largest quarter of cells by params or tokens."""
        value_R = self.rows.params_R if by == "params" else self.rows.tokens_R
        cell_C = np.array([value_R[self.rows.cell_R == c].mean() for c in range(self.cells)])
        cut = np.sort(cell_C)[-max(1, self.cells // 4)]
        return np.asarray(value_R >= cut / 1.02)

    def held_out(self, largest: str) -> HeldOutSettings:
        """The laws without the largest cells, at these cells."""
        out_R = self._largest(largest)
        weights_R = np.where(out_R, 0.0, self.weights_R)
        phi = self.model.refit(weights_R[None], self.phi_P)[0]
        cells = np.unique(self.rows.cell_R[out_R])
        curvature, _ = self.model.split(phi[None])
        own, error = self.model.centres(phi, self.weights_R)
        own, error = own[:, cells], self.noise * error[:, cells]
        fine = np.isfinite(own).all(axis=0)
        own, error = own[:, fine], error[:, fine]
        lost = np.expm1(np.einsum("a,ac->c", curvature[0], own**2))
        return HeldOutSettings(
            largest=largest,
            cells=int(fine.sum()),
            error={n: _rms(own[a]) for a, n in enumerate(self.names) if fine.any()},
            expected={n: _rms(error[a]) for a, n in enumerate(self.names) if fine.any()},
            lost=float(lost.mean()) if fine.any() else 0.0,
        )

    def _values(self, name: str, phi_BxP: Floats) -> dict[str, Floats]:
        """Coefficient, curvature and exponents of a setting, [B] each."""
        curvature, theta = self.model.split(phi_BxP)
        axis = self.names.index(name)
        exponents = dict(zip(self.terms[name], theta[axis].T[1:], strict=True))
        return {
            "coefficient": np.exp(theta[axis][:, 0]), "curvature": curvature[:, axis], **exponents
        }  # fmt: skip


def _hull(
    drawn: Sequence[Floats], values: Callable[[Floats], dict[str, Floats]]
) -> dict[str, Interval | None]:
    """The outer ends of the intervals of several sets of draws."""
    found: dict[str, Interval | None] = {}
    for number, phi in enumerate(drawn):
        for name, value in values(phi).items():
            ends = interval(value)
            if number and (before := found[name]) is not None and ends is not None:
                ends = min(before[0], ends[0]), max(before[1], ends[1])
            found[name] = ends if number == 0 or found[name] is not None else None
    return found


def _lost_between(curvature: Interval | None, factor: float) -> Interval | None:
    if curvature is None:
        return None
    low, high = (float(np.expm1(max(k, 0.0) * np.log(factor) ** 2)) for k in curvature)
    return low, high


def _ends(value_R: Floats) -> Interval:
    return float(np.exp(value_R.min())), float(np.exp(value_R.max()))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _refused(name: str, reason: str) -> SettingLaw:
    return SettingLaw(
        setting=name, unit=_UNITS.get(name, ""), formula=_LEFT[name], status="refused",
        reason=reason, coefficient=None, exponents={}, curvature=None, interval={}, lost=(),
        cells=0, outside=0,
    )  # fmt: skip


def _policy(rows: TunedRows, varied: Sequence[str]) -> tuple[str, float | None]:
    """What the batch did while the rate was varied."""
    if BATCH in varied or BATCH not in rows.setting:
        return "tuned" if BATCH in varied else "unknown", None
    log_batch, log_tokens = rows.setting[BATCH], np.log(rows.tokens_R)
    if np.ptp(log_batch) < np.log(SPREAD):
        return "fixed", None
    if np.ptp(log_tokens) < np.log(SPREAD):
        return "followed", None
    return "followed", float(np.polyfit(log_tokens, log_batch, 1)[0])


def _warnings(found: Tuning) -> list[str]:
    said = []
    for law in found.laws:
        if law.status == "ok" and 3 * law.outside > law.cells:
            said.append(
                f"{law.setting}: the best value of {law.outside} of {law.cells} cells lies beyond "
                "the values that were tried near it: add some on that side"
            )
        missing = {RATE: {"params", "tokens"}, BATCH: {"tokens"}}.get(law.setting, set())
        lacking = sorted(missing - set(law.exponents))
        if law.status == "ok" and lacking:
            said.append(
                f"{law.setting}: the cells do not tell what {' and '.join(lacking)} do by "
                "themselves: vary sizes and lengths independently"
            )
    if found.policy in ("fixed", "followed"):
        how = "one batch for all runs" if found.policy == "fixed" else "one batch a cell"
        grown = f", which grew as D^{found.followed:.2f}" if found.followed is not None else ""
        said.append(
            f"learning_rate: at {how}{grown}; with a batch tuned beside it the exponent of D is "
            "another, up to its sign"
        )
    return said
