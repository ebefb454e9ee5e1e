"""The sections of fits.json as plain dicts; `analysis` composes them and documents their keys."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws
from chinchilla_jax.scaling.fitting.envelope import Envelope
from chinchilla_jax.scaling.fitting.intervals import interval, standard_error
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws, Profile
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import FlopsModel, SurfaceFit
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.curves import Curve
from chinchilla_jax.scaling.table.runs import Runs

Section = dict[str, Any]

_SURFACE = ("E", "A", "B", "alpha", "beta")
_ASIDE_SHOWN = 200


def table(runs: Runs, given: Runs, cost: FlopsModel) -> Section:
    columns = ("params", "tokens", "flops", "loss", "tokens_per_param")
    return {
        "source": runs.source,
        "rows": len(runs) + len(runs.aside),
        "fitted": len(runs),
        "aside": dict(Counter(aside.status for aside in runs.aside)),
        "aside_rows": [asdict(aside) for aside in runs.aside[:_ASIDE_SHOWN]],
        "params_convention": runs.params_convention,
        "flops_convention": runs.flops_convention,
        "budgets_from": runs.budgets_from,
        "axes": [
            name
            for name, column in given.columns.items()
            if name not in columns and len(np.unique(column[~np.isnan(column)])) > 1
        ],
        "range": {c: [getattr(runs, c).min(), getattr(runs, c).max()] for c in columns},
        "vocab_size": _vocab_size(given),
        "flops_model": asdict(cost),
    }


def _vocab_size(runs: Runs) -> int | None:
    """The vocabulary that all runs share: their embedding tables over their widths."""
    tables, widths = (runs.columns.get(name) for name in ("params_embedding", "width"))
    if tables is None or widths is None:
        return None
    sizes = np.unique(tables / widths)
    return int(sizes[0]) if len(sizes) == 1 and np.isfinite(sizes[0]) else None


def parametric(
    fit: SurfaceFit | None,
    draws: SurfaceDraws | None,
    cost: FlopsModel,
    refusal: Refusal | None,
    settings: Settings,
    runs: Runs,
) -> Section:
    numbers = ("objective", *_SURFACE, "a", "b", "G", "gradient_norm", "starts", "starts_agreeing")
    section: Section = {
        "status": "refused",
        "reason": None if refusal is None else refusal.sentence,
        "loss": settings.objective,
        "delta": settings.delta if settings.objective.endswith("huber") else None,
        "tied": settings.tied,
        **dict.fromkeys(numbers),
        "runner_up": [],
        "at_bound": [],
        "runs": len(runs),
        "noise": None,
        "correlation_ln_params_ln_tokens": diagnosis.correlation(runs),
        "interval": {},
        "standard_error": {},
        "bootstrap": None,
        "weights": "equal",
        "selection": "all",
    }
    if fit is None:
        return section
    surface = fit.surface
    known = fit.identified  # else no exponent of the frontier is given
    a, b = surface.exponents(cost) if known else (None, None)
    columns: dict[str, Floats] = {}
    if draws is not None:
        values = (np.asarray(x) for x in draws.surface.columns())
        columns = dict(zip(_SURFACE, values, strict=True))
        if known:
            columns["a"], columns["b"] = draws.surface.exponents(cost)
    given = "column" if "weight" in runs.columns else "noise"
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.float64(surface.alpha * surface.A) / np.float64(surface.beta * surface.B)
        scale = ratio ** (1 / (surface.alpha + surface.beta))
    return section | {
        "status": "ok",
        "objective": fit.value,
        **asdict(surface),
        "a": a,
        "b": b,
        "G": scale if known else None,
        "gradient_norm": fit.gradient_norm,
        "starts": fit.starts,
        "starts_agreeing": fit.starts_agreeing,
        "runner_up": [
            {"objective": value, **asdict(other), "starts": share}
            for value, share, other in fit.runner_up
        ],
        "at_bound": list(fit.at_bound),
        "noise": fit.noise,
        "interval": {name: interval(x) for name, x in columns.items()},
        "standard_error": {name: standard_error(x) for name, x in columns.items()},
        "bootstrap": None
        if draws is None
        else {
            "draws": len(draws),
            "failed": draws.failed,
            "audited": draws.audited,
            "improved": draws.improved,
        },
        "weights": "equal" if np.ptp(fit.weights_R) == 0 else given,
    }


def drifts(found: Sequence[Profile], fit: MinimaFit) -> Floats:
    """ln(minimum / geometric middle of the grid) of the budgets that have a minimum."""
    middle = np.array([profile.log_params_S[[0, -1]].mean() for profile in found])
    return np.asarray((np.log(fit.params_G) - middle)[fit.good_G])


def noise_of_minimum(fit: MinimaFit) -> float:
    """Typical standard error of ln loss at a minimum; 0 where it is not known."""
    known = fit.errors.log_loss_G[fit.good_G]
    return float(np.median(known)) if len(known) else 0.0


def _laws(fit: MinimaFit) -> Section:
    section: Section = {
        "status": "refused",
        "reason": fit.refusal.sentence if fit.refusal else None,
        **dict.fromkeys(("a", "b", "params_at_1", "tokens_at_1", "loss_law")),
        "budgets": int(fit.good_G.sum()),
        "weights": fit.weighted_by,
        "interval": {},
        "standard_error": {},
    }
    if fit.laws is None:
        return section
    drawn = {} if fit.draws is None else {"a": fit.draws.laws.a, "b": fit.draws.laws.b}
    law = fit.loss_law
    return section | {
        "status": "ok",
        "a": fit.laws.a[0],
        "b": fit.laws.b[0],
        "params_at_1": np.exp(fit.laws.log_params_1[0]),
        "tokens_at_1": np.exp(fit.laws.log_tokens_1[0]),
        "interval": {name: interval(x) for name, x in drawn.items()},
        "standard_error": {name: standard_error(x) for name, x in drawn.items()},
        "loss_law": law and {"E": law.E[0], "A": law.A[0], "exponent": law.exponent[0]},
    }


def isoflop(
    found: Sequence[Profile],
    minima: dict[str, MinimaFit],
    method: str,
    noise: Noise,
    bias: dict[str, Section | None],
) -> Section:
    laws = {name: _laws(fit) for name, fit in minima.items()}
    head = laws[method]
    return {
        "status": head["status"],
        "reason": head["reason"],
        "minima": method,
        "a": head["a"],
        "b": head["b"],
        **laws,
        "budgets": [_budget(profile, g, minima, method) for g, profile in enumerate(found)],
        "expected_bias": None if all(b is None for b in bias.values()) else bias,
        "noise": {"log_loss": noise.log_loss, "from": noise.source, "freedom": noise.freedom},
        "interval": head["interval"],
    }


def _budget(profile: Profile, g: int, minima: dict[str, MinimaFit], method: str) -> Section:
    lowest = int(profile.loss_S.argmin())
    each = {
        name: {
            "status": "ok" if fit.reason_G[g] is None else "refused",
            "reason": fit.reason_G[g],
            "params": fit.params_G[g],
            "tokens": fit.tokens_G[g],
            "loss": fit.loss_G[g],
            "curvature": fit.curvature_G[g],
            "log_params_se": fit.errors.log_params_G[g],
        }
        for name, fit in minima.items()
    }
    middle = profile.log_params_S[[0, -1]].mean()
    return {
        "flops": profile.flops,
        "runs": len(profile.loss_S),
        "sizes": profile.sizes,
        **{k: each[method][k] for k in ("status", "reason", "params", "tokens", "loss")},
        "lowest": {
            "params": np.exp(profile.log_params_S[lowest]),
            "tokens": np.exp(profile.log_tokens_S[lowest]),
            "loss": profile.loss_S[lowest],
        },
        "grid_width": profile.width,
        "centre_drift": np.log(minima[method].params_G[g]) - middle,
        **each,
    }


def envelope(found: Envelope | None, drawn: PowerLaws | None, curves: Sequence[Curve]) -> Section:
    section: Section = {
        "status": "refused",
        "reason": "no training curves"
        if not curves
        else f"{len(curves)} curves: three sizes that overlap in FLOPs are needed on the envelope",
        **dict.fromkeys(("a", "b", "params_at_1", "tokens_at_1", "last_15_percent")),
        "curves": len(curves),
        "points": 0,
        "interval": {},
    }
    if found is None:
        return section
    laws = found.laws
    return section | {
        "status": "ok",
        "reason": None,
        "a": laws.a[0],
        "b": laws.b[0],
        "params_at_1": np.exp(laws.log_params_1[0]),
        "tokens_at_1": np.exp(laws.log_tokens_1[0]),
        "last_15_percent": found.last_share,
        "points": int(found.used_F.sum()),
        "interval": {} if drawn is None else {"a": interval(drawn.a), "b": interval(drawn.b)},
    }
