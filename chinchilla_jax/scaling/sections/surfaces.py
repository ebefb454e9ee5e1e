"""The family of surfaces on all runs, and the average of them that forecasts of runs rest on."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.approaches import Approaches
from chinchilla_jax.scaling.arrays import known
from chinchilla_jax.scaling.doubt.rolling import Mixture, mixture_draws, rolling
from chinchilla_jax.scaling.fits import DrawTable, FormFit, HeldOutRuns, RunMember, RunSource
from chinchilla_jax.scaling.fitting.forms import FORMS
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface, SurfaceFit
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel

_DRAWS = 150  # of all members together: their spread is one part of an interval of four


@dataclass(frozen=True)
class Surfaces:
    """Sections of the record."""

    forms: tuple[FormFit, ...] = ()
    runs: RunSource | None = None
    draws: DrawTable | None = None


def surfaces(each: Approaches, settings: Settings, rng: np.random.Generator) -> Surfaces:
    """Every form on all runs, compared by hold-out; nothing where there are none."""
    fits = each.forms
    mixture = rolling(each.runs, fits)
    forms = tuple(_form(fit, each.flops_model) for fit in fits.values())
    if mixture is None or not np.isfinite(mixture.noise):
        return Surfaces(forms)
    drawn = None
    if settings.draws:
        draws = min(settings.draws, _DRAWS)
        rows = mixture_draws(mixture, fits, draws, rng, each.runs.trunk_R())
        drawn = DrawTable(PARAMETERS, rows)
    return Surfaces(forms, _source(mixture), drawn)


def _values(surface: Surface) -> dict[str, float]:
    return dict(zip(PARAMETERS, map(float, surface.columns()), strict=True))


def _form(fit: SurfaceFit, cost: FlopsModel) -> FormFit:
    a, b = fit.surface.exponents(cost) if fit.identified else (np.nan, np.nan)
    return FormFit(
        form=fit.form,
        formula=FORMS[fit.form].title,
        **_values(fit.surface),
        a=known(float(a)),
        b=known(float(b)),
        objective=fit.value,
        noise=known(fit.noise),
        gradient_norm=known(fit.gradient_norm),
        starts=fit.starts,
        starts_agreeing=fit.starts_agreeing,
        at_bound=fit.at_bound,
    )


def _source(mixture: Mixture) -> RunSource:
    members = [
        RunMember(
            m.form, m.selection, int(np.count_nonzero(m.weight_R)), m.weight, m.rms, m.bias,
            **_values(m.surface),
        )
        for m in sorted(mixture.members, key=lambda m: -m.weight)
    ]  # fmt: skip
    beyond, held = mixture.beyond, None
    reason = "no run could be held out: the mean of forms of five parameters"
    if beyond is not None:
        held = HeldOutRuns(
            beyond.rms, max(beyond.distance, 1e-6), beyond.folds, len(beyond.error_H)
        )
        reason = (
            f"the mean of forms, each by its error on the dearer runs of {beyond.folds} "
            f"cut{'s' * (beyond.folds > 1)}, rms {100 * beyond.rms:.2f} %"
        )
    return RunSource(tuple(members), reason, mixture.noise, held)
