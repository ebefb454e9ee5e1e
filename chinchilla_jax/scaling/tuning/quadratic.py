"""ln loss around the best settings of each cell, as one quadratic for all cells of a table.

    ln L = c_cell + sum_a k_a (s_a - t_a . theta_a)^2

with s_a the logarithm of a setting (rate, batch, ...), t_a what the logarithm of its best value is
linear in (1, ln N, ln D, for the rate also ln B) and k_a the curvature: what missing the best value
costs, as k ln(miss)^2 of ln L. A level of each cell of equal N and D is its own parameter, so that
nothing is assumed of the loss as a function of N and D. Close to a minimum every loss is quadratic;
which rows are close is the caller's business.

Array suffixes: B sets of weights, R rows, A settings, T terms, P parameters (curvatures, then all
thetas), C cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints

_ITERATIONS = 60
_NUMBERS = 400_000  # of slopes that are computed at a time
_CURVED = 0.03  # of ln L: where a fit begins; a factor 2 beside the best costs 1.4 %


@dataclass(frozen=True)
class Axis:
    """A setting that varies within cells: its logarithm, and what its best value depends on."""

    name: str
    value_R: Floats
    terms_RxT: Floats


@dataclass(frozen=True)
class Quadratic:
    """The model on rows; `cell_R` counts from 0 without gaps."""

    axes: tuple[Axis, ...]
    cell_R: Ints
    log_loss_R: Floats

    @property
    def parameters(self) -> int:
        """Curvatures and coefficients of the terms, without the levels of cells."""
        return len(self.axes) + sum(int(axis.terms_RxT.shape[1]) for axis in self.axes)

    def split(self, phi_BxP: Floats) -> tuple[Floats, list[Floats]]:
        """Curvatures [B, A], and for each axis the coefficients of its terms [B, T]."""
        count = len(self.axes)
        ends = np.cumsum([count, *(axis.terms_RxT.shape[1] for axis in self.axes)])
        return phi_BxP[:, :count], [phi_BxP[:, a:b] for a, b in itertools.pairwise(ends)]

    def misses(self, phi_BxP: Floats) -> Floats:
        """[B, A, R]: ln of each row's setting over its best value."""
        _, theta = self.split(phi_BxP)
        pairs = zip(self.axes, theta, strict=True)
        return np.stack([axis.value_R - t @ axis.terms_RxT.T for axis, t in pairs], axis=1)

    def fit(self, weights_R: Floats) -> Floats:
        """phi [P] of least weighted squares; NaN where the rows of positive weight do not determine
        it. The lower minimum of two starts.
        """
        used: Bools = weights_R > 0
        rows = self._rows(used)
        weights_1xR = weights_R[None, used]
        found = [
            rows._descended(begin_P[None].copy(), weights_1xR)
            for begin_P in (rows._of_best_rows(), rows._of_line(weights_R[used]))
            if np.isfinite(begin_P).all()
        ]
        value = [float(rows._squares(phi, weights_1xR).value_B[0]) for phi in found]
        return np.asarray(found[int(np.argmin(np.nan_to_num(value, nan=np.inf)))][0])

    def refit(self, weights_BxR: Floats, begin_P: Floats) -> Floats:
        """phi [B, P] under B sets of weights, each from `begin_P`; NaN as in `fit`."""
        used: Bools = np.any(weights_BxR > 0, axis=0)
        rows = self._rows(used)
        step = max(1, _NUMBERS // max(1, len(begin_P) * len(rows.cell_R)))
        pieces = [
            rows._descended(np.tile(begin_P, (len(piece), 1)), piece)
            for begin in range(0, len(weights_BxR), step)
            for piece in [weights_BxR[begin : begin + step, used]]
        ]
        return np.concatenate(pieces)

    def _rows(self, keep_R: Bools) -> Quadratic:
        """The same model on some of the rows, their losses without the mean of each cell."""
        axes = [Axis(a.name, a.value_R[keep_R], a.terms_RxT[keep_R]) for a in self.axes]
        cell_R = np.unique(self.cell_R[keep_R], return_inverse=True)[1].ravel()
        log_loss_R = self.log_loss_R[keep_R]
        mean_C = np.bincount(cell_R, log_loss_R) / np.bincount(cell_R)
        return Quadratic(tuple(axes), np.asarray(cell_R, np.int64), log_loss_R - mean_C[cell_R])

    def _descended(self, phi_BxP: Floats, weights_BxR: Floats) -> Floats:
        damping_B = np.full(len(phi_BxP), 1e-3)
        by = self._squares(phi_BxP, weights_BxR)
        active = np.arange(len(phi_BxP))
        for _ in range(_ITERATIONS):
            normal, scale = by.normal_BxPxP[active], by.scale_BxP[active]
            unit = normal / (scale[:, :, None] * scale[:, None, :])
            unit += (damping_B[active, None, None] + 1e-12) * np.eye(unit.shape[1])
            right = (by.gradient_BxP[active] / scale)[..., None]
            move = np.clip(np.linalg.solve(unit, right)[..., 0] / scale, -3.0, 3.0)
            trial = phi_BxP[active] + move
            tried = self._squares(trial, weights_BxR[active])
            better = tried.value_B <= by.value_B[active]
            gain = by.value_B[active] - tried.value_B
            phi_BxP[active[better]] = trial[better]
            by.take(active, tried, better)
            damping_B[active] = np.clip(damping_B[active] * np.where(better, 0.1, 8.0), 1e-9, 1e9)
            done = better & (gain <= 1e-10 * tried.value_B) | (damping_B[active] > 1e8)
            active = active[~done]
            if len(active) == 0:
                break
        phi_BxP[~by.determined] = np.nan
        return phi_BxP

    def residual_R(self, phi_P: Floats, used_R: Bools) -> Floats:
        """Observed minus fitted ln loss of the rows `used_R`, around the level of each cell."""
        rows = self._rows(used_R)
        residual = rows._slopes(phi_P[None])[0][0]
        mean_C = np.bincount(rows.cell_R, residual) / np.bincount(rows.cell_R)
        return np.asarray(residual - mean_C[rows.cell_R])

    def _of_best_rows(self) -> Floats:
        """phi by the best row of every cell."""
        order = np.lexsort((self.log_loss_R, self.cell_R))
        best = order[np.r_[True, np.diff(self.cell_R[order]) != 0]]
        found = [
            np.linalg.lstsq(axis.terms_RxT[best], axis.value_R[best], rcond=1e-3)[0]
            for axis in self.axes
        ]
        return np.concatenate([np.full(len(self.axes), _CURVED), *found])

    def _of_line(self, weights_R: Floats) -> Floats:
        """phi by linear least squares in s_a^2 and s_a t_a, as if no best value depended on another
        setting but through them."""
        columns = [
            column
            for axis in self.axes
            for column in (axis.value_R**2, *(axis.value_R * axis.terms_RxT.T))
        ]
        design = np.column_stack([*columns, self._member()])
        root = np.sqrt(weights_R)
        line = np.linalg.lstsq(design * root[:, None], self.log_loss_R * root, rcond=1e-10)[0]
        curvature, theta, at = [], [], 0
        for axis in self.axes:
            terms = axis.terms_RxT.shape[1]
            curved = max(float(line[at]), 0.1 * _CURVED)
            curvature.append(curved)
            theta.append(-line[at + 1 : at + 1 + terms] / (2 * curved))
            at += 1 + terms
        return np.concatenate([curvature, *theta])

    def centres(self, phi_P: Floats, weights_R: Floats) -> tuple[Floats, Floats]:
        """Of each cell alone, with the curvatures of all: [A, C] ln(own best / the law's best), and
        the scale of its error, to be multiplied with the noise of ln L; NaN where it has too few
        rows."""
        curvature_A = self.split(phi_P[None])[0][0]
        miss_AxR = self.misses(phi_P[None])[0]
        rest_R = self.log_loss_R - np.einsum("a,ar->r", curvature_A, miss_AxR**2)
        cells = int(self.cell_R.max()) + 1
        own, error = np.full((2, len(self.axes), cells), np.nan)
        for cell in range(cells):
            here = (self.cell_R == cell) & (weights_R > 0)
            # k (m - d)^2 = k m^2 - 2 k d m + const: a plane in the misses m.
            design = np.column_stack([np.ones(here.sum()), miss_AxR[:, here].T])
            if len(design) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
                continue
            slope_A = np.linalg.lstsq(design, rest_R[here], rcond=None)[0][1:]
            spread_A = np.sqrt(np.diag(np.linalg.inv(design.T @ design))[1:])
            own[:, cell] = -slope_A / (2 * curvature_A)
            error[:, cell] = spread_A / np.abs(2 * curvature_A)
        return own, error

    def _slopes(self, phi_BxP: Floats) -> tuple[Floats, Floats]:
        """Residuals [B, R] and the slopes of the model [B, P, R], with the levels of cells."""
        curvature, _ = self.split(phi_BxP)
        miss = self.misses(phi_BxP)
        residual = self.log_loss_R - np.einsum("ba,bar->br", curvature, miss**2)
        slopes = [miss**2]
        for a, axis in enumerate(self.axes):
            pull = -2 * curvature[:, a, None] * miss[:, a]
            slopes.append(pull[:, None] * axis.terms_RxT.T)
        return residual, np.concatenate(slopes, axis=1)

    def _squares(self, phi_BxP: Floats, weights_BxR: Floats) -> _Squares:
        """Least squares around `phi_BxP`, the best level of every cell taken out of them."""
        residual, slopes = self._slopes(phi_BxP)
        both = np.concatenate([slopes, residual[:, None]], axis=1)
        weighted = both * weights_BxR[:, None]
        member_RxC = self._member()
        of_cell = weighted @ member_RxC
        total = np.maximum(weights_BxR @ member_RxC, 1e-300)
        product = weighted @ both.transpose(0, 2, 1)
        product -= (of_cell / total[:, None]) @ of_cell.transpose(0, 2, 1)
        return _Squares(product[:, -1, -1], product[:, :-1, -1], product[:, :-1, :-1])

    def _member(self) -> Floats:
        return np.asarray(self.cell_R[:, None] == np.arange(int(self.cell_R.max()) + 1), float)


@dataclass(frozen=True)
class _Squares:
    """Weighted squares of the residuals, and what a step takes of them."""

    value_B: Floats
    gradient_BxP: Floats
    normal_BxPxP: Floats

    @property
    def scale_BxP(self) -> Floats:
        diagonal = np.einsum("bpp->bp", self.normal_BxPxP)
        return np.asarray(np.sqrt(np.maximum(diagonal, 0.0)) + 1e-300)

    def take(self, index: Ints, other: _Squares, better: Bools) -> None:
        """Those of `other` that are better in the place of those of `index`."""
        for mine, theirs in (
            (self.value_B, other.value_B),
            (self.gradient_BxP, other.gradient_BxP),
            (self.normal_BxPxP, other.normal_BxPxP),
        ):
            mine[index[better]] = theirs[better]

    @property
    def determined(self) -> Bools:
        """[B]: whether the rows leave no direction of the parameters free."""
        scale = self.scale_BxP
        fine = np.isfinite(self.normal_BxPxP).all(axis=(1, 2)) & (scale > 1e-100).all(axis=1)
        unit = self.normal_BxPxP / (scale[:, :, None] * scale[:, None, :])
        unit[~fine] = 0.0
        return np.asarray(fine & (np.linalg.eigvalsh(unit)[:, 0] > 1e-8))


def near(log_loss_R: Floats, cell_R: Ints, within: float) -> Bools:
    """The rows whose loss lies within a share of the lowest of their cell."""
    lowest = np.full(int(cell_R.max()) + 1, np.inf)
    np.minimum.at(lowest, cell_R, log_loss_R)
    return np.asarray(log_loss_R - lowest[cell_R] <= np.log1p(within))
