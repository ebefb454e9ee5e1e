"""A fitted or published law that can be asked: the compute-optimal run as a function of FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fits import FORMS, Fits
from chinchilla_jax.scaling.fitting.intervals import Interval
from chinchilla_jax.scaling.fitting.optimum import Optima, Optimum
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.average import averaged
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.laws.published import PublishedLaw, called, law_named, published
from chinchilla_jax.scaling.table.cost import SIX_ND, FlopsModel
from chinchilla_jax.scaling.tuning.records import Tuning

if TYPE_CHECKING:
    from chinchilla_jax.scaling.tuning.predict import SettingsLaw


@dataclass(frozen=True)
class Frontier:
    """A law that can be asked.

    Attributes:
      title: what answers, in a sentence.
      best: the compute-optimal run; draws: the same under every bootstrap draw, or None.
      cost: FLOPs of a run.
      surface: the law as E + A/N^alpha + B/D^beta; None where it is none.
      loss: (params, tokens) -> loss of any run; None where the law has none.
      run: (params, tokens) -> the loss of one more run like those fitted, and its interval.
      largest: largest FLOPs of the runs behind it, and vocab_size: theirs, where they are known.
      settings: the law of rate and batch that goes with it.
    """

    title: str
    best: Optima
    draws: Optima | None
    cost: FlopsModel
    surface: Surface | None = None
    loss: Callable[[Floats, Floats], Floats] | None = None
    run: Callable[[float, float], tuple[float, Interval | None]] | None = None
    largest: float | None = None
    vocab_size: int | None = None
    settings: SettingsLaw | None = None


def from_source(source: Source, title: str = "") -> Frontier:
    """The law of a fit."""
    surface = source.surface
    loss = None if surface is None else surface.loss
    return Frontier(title, source.best, source.drawn, source.cost, surface, loss)


def source_of(fits: Fits, form: str = "") -> Source:
    """What the forecasts of a report's fits.json rest on, with the other form beside it.

    Raises:
      UserError: as `from_fits`.
    """
    if form and form not in FORMS:
        raise UserError(f"--form={form} is none of {', '.join(FORMS)}")
    table, cost = fits.table, fits.table.flops_model
    surface = minima = None
    largest = table.range.flops[1]
    if fits.sources.surface is not None:
        surface = Source(fits.sources.surface, fits.draws.surface, cost, largest)
    if fits.sources.minima is not None:
        minima = Source(fits.sources.minima, fits.draws.minima, cost, largest)
    form = form or fits.holdout.best.form
    source, other = (surface, minima) if form == "surface" else (minima, surface)
    beside = tuple(Source(fit, None, cost, largest) for fit in fits.sources.beside)
    if source is None:
        section = fits.parametric if form == "surface" else fits.isoflop
        limits = " ".join(refusal.sentence for refusal in fits.refusals)
        raise UserError(f"{table.source}: {section.reason or limits or 'nothing was fitted'}")
    return replace(source, others=(*filter(None, [other]), *beside))


def from_fits(fits: Fits, form: str = "") -> Frontier:
    """The law of a report's fits.json; `form` is surface, loss_law or "", what hold-out chose.

    Raises:
      UserError: there is no such form, or it was refused; the refusal is told.
    """
    source, table = source_of(fits, form), fits.table
    if source.minima is None:
        title = f"surface on runs: {source.forecaster.selection}"
    else:
        title = f"power laws and L(C) through the minima ({source.minima})"
    # Beside the laws through minima the surface answers what they do not.
    beside = source if source.surface or source.other is None else source.other
    of_surface = beside.surface
    return Frontier(
        title=f"{title}; {table.fitted} runs of {table.source}",
        best=source.best,
        draws=source.drawn,
        cost=source.cost,
        surface=of_surface,
        loss=None if of_surface is None else of_surface.loss,
        run=None if form or fits.sources.runs is None else partial(averaged, fits),
        largest=source.largest,
        vocab_size=table.vocab_size,
        settings=None if fits.tuning is None else _settings(fits.tuning, table.source),
    )


def _settings(tuning: Tuning, source: str) -> SettingsLaw | None:
    from chinchilla_jax.scaling.tuning.predict import of_fits  # few reports have them

    return of_fits(tuning, source)


def from_published(law: PublishedLaw, fixed: Mapping[str, float] | None = None) -> Frontier:
    """A published law; `fixed` holds further columns (unique_tokens, sparsity, width, depth)."""
    columns = dict(fixed or {})

    def best(flops: Floats) -> Optimum:
        return law.optimum(flops, **columns)

    def loss(params: Floats, tokens: Floats) -> Floats:
        return law.loss(params, tokens, **columns)

    return Frontier(
        title=f"{law.title} ({law.name}): {law.source}. {law.note}".strip(),
        best=best,
        draws=None,
        cost=SIX_ND,
        surface=law.surface,
        loss=loss if law.has_loss else None,
        largest=law.flops[1],
    )


def named(name: str, fixed: Mapping[str, float] | None = None) -> Frontier:
    """The published law of a name or title, of sizes and losses, of hyper-parameters, or of both.

    Raises:
      UserError: there is none; the nearest is named.
    """
    from chinchilla_jax.scaling.tuning.predict import of_published  # evaluate needs none
    from chinchilla_jax.scaling.tuning.published import published_settings

    others = {law.name: law.title for law in published_settings().values()}
    name = called(name, others)
    settings = of_published(name)
    if name in published() or settings is None:
        law = law_named(name, others)
        return replace(from_published(law, fixed), settings=settings)

    def best(flops: Floats) -> Optimum:
        raise UserError(
            f"law {name} gives hyper-parameters and no sizes: give "
            f"{'--flops' if settings.by_flops_alone else '--params and --tokens'}"
        )

    return Frontier(settings.title, best, None, SIX_ND, settings=settings)
