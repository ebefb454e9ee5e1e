"""What `forecast` prints: a law's answers as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from chinchilla_jax.experiment import numbers, tables
from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import count, loss, percent, ratio
from chinchilla_jax.experiment.recipe import nearest_shape
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.fitting.intervals import open_ends
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.forecast.frontier import Frontier
from chinchilla_jax.scaling.forecast.questions import (
    Answer,
    Miss,
    Served,
    at_flops,
    for_inference,
    misses,
    reaching,
)
from chinchilla_jax.scaling.laws.published import published
from chinchilla_jax.scaling.report.table import Rows, Table, estimate
from chinchilla_jax.scaling.tuning import BATCH, DECAY, RATE
from chinchilla_jax.scaling.tuning.predict import SettingsLaw
from chinchilla_jax.scaling.tuning.published import published_settings

_SAME = 0.01  # relative


def text(
    frontier: Frontier,
    asked: Mapping[str, Sequence[float]],
    inference_tokens: float | None,
    recipe: RecipeConfig,
    vocab_size: int,
) -> str:
    """Everything asked for, under the name of what answers.

    `asked` has the keys flops, loss, params, tokens; sizes with tokens are runs to predict.

    Raises:
      UserError: nothing is asked, or the law cannot answer it.
    """
    if not any(asked.values()):
        raise UserError("nothing is asked: give --flops, --loss, --params or --tokens")
    parts = [frontier.title]
    if frontier.settings is not None and frontier.settings.title == frontier.title:
        return settings(frontier.settings, asked, [])
    found = [at_flops(frontier, c) for c in asked["flops"]]
    none = [
        f"at {numbers.flops(c)} FLOPs this law gives no optimum"
        for c, answer in zip(asked["flops"], found, strict=True)
        if not answer.is_run
    ]
    found = [answer for answer in found if answer.is_run]
    found += [reaching(frontier, "loss", value) for value in asked["loss"]]
    if asked["params"] and asked["tokens"]:
        if frontier.loss or frontier.run or not frontier.settings:
            parts.append(given(frontier, asked["params"], asked["tokens"]))
    else:
        for name in ("params", "tokens"):
            found += [reaching(frontier, name, value) for value in asked[name]]
    if found:
        parts.append(optima(frontier, found, recipe, vocab_size))
        parts.append(missed(frontier, [answer.flops for answer in found]))
    if frontier.settings is not None:
        parts.append(settings(frontier.settings, asked, found))
    parts.append("\n".join(none))
    if inference_tokens is not None:
        losses = [answer.loss for answer in found]
        if not found or None in losses:
            raise UserError("--inference_tokens: give --flops or --loss of a law that has a loss")
        parts.append(
            served([for_inference(frontier, x, inference_tokens) for x in losses if x is not None],
                   inference_tokens)
        )  # fmt: skip
    return "\n\n".join(part for part in parts if part)


@silent()
def given(frontier: Frontier, params: Sequence[float], tokens: Sequence[float]) -> str:
    """The loss of runs that are given, beside the optimum of the same FLOPs.

    Raises:
      UserError: the law has no loss, or there are not as many tokens as sizes.
    """
    if frontier.loss is None and frontier.run is None:
        raise UserError("--params with --tokens asks for a loss; this law gives sizes only")
    _as_many(params, tokens)
    head = ("parameters", "tokens", "D/N", "FLOPs", "loss")
    rows: Rows = [
        (
            count(n), count(d), ratio(d / n), numbers.flops(float(frontier.cost.flops(n, d))),
            _loss_of(frontier, n, d),
        )
        for n, d in zip(params, tokens, strict=True)
    ]  # fmt: skip
    said = ""
    if frontier.run is not None:
        said = (
            "\nBy several forms of surface, averaged by their error on runs they had not seen; "
            "an optimum is forecast by one law, and may differ."
        )
    return tables.table(head, rows) + said


def settings(
    law: SettingsLaw, asked: Mapping[str, Sequence[float]], answers: Sequence[Answer]
) -> str:
    """Rate, batch and weight decay of the runs that are given, or of the optima.

    Raises:
      UserError: there is no run, or not as many tokens as sizes.
    """
    sizes, lengths = asked["params"], asked["tokens"]
    if sizes and lengths:
        _as_many(sizes, lengths)
        runs = [{"params": n, "tokens": d} for n, d in zip(sizes, lengths, strict=True)]
    elif answers:
        runs = [{"params": a.params, "tokens": a.tokens, "flops": a.flops} for a in answers]
    elif law.by_flops_alone and asked["flops"]:
        runs = [{"flops": c} for c in asked["flops"]]
    else:
        wanted = "--flops" if law.by_flops_alone else "--params and --tokens"
        raise UserError(f"nothing is asked that gives hyper-parameters: give {wanted}")
    head = ("parameters", "tokens", "FLOPs", "learning rate", f"batch ({law.batch_unit})",
            "B/(lr wd D)", "beyond its runs")  # fmt: skip
    rows: Rows = []
    for run in runs:
        found = law.predict(run)
        rows.append(
            (
                count(run.get("params")), count(run.get("tokens")), numbers.flops(run.get("flops")),
                numbers.coefficient(found.get(RATE), 4), count(found.get(BATCH), 4),
                numbers.coefficient(found.get(DECAY), 3), _beyond(law.decades(run)),
            )
        )  # fmt: skip
    table = Table("", head, rows).without_empty_columns()
    return f"hyper-parameters, {law.title}\n{tables.table(table.head, table.rows)}"


def _beyond(decades: float | None) -> str:
    return f"{decades:.1f} decades" if decades and decades >= 0.05 else ""


def _as_many(params: Sequence[float], tokens: Sequence[float]) -> None:
    if len(params) != len(tokens):
        raise UserError(f"--params has {len(params)} values and --tokens {len(tokens)}")


def _loss_of(frontier: Frontier, params: float, tokens: float) -> str:
    """Of fitted runs the forecast of one more, in which no form is believed alone."""
    if frontier.run is not None:
        found, ends = frontier.run(params, tokens)
        return estimate(found, {"run": ends}, "run", loss)
    assert frontier.loss is not None
    return loss(float(frontier.loss(np.array(params), np.array(tokens))))


def optima(
    frontier: Frontier, answers: Sequence[Answer], recipe: RecipeConfig, vocab_size: int
) -> str:
    """Compute-optimal runs with intervals, nearest shapes, and how far they extrapolate."""
    head = (
        "FLOPs", "parameters N*", "tokens D*", "D*/N*", "loss", "nearest shape (width x depth)",
        "beyond the runs",
    )  # fmt: skip
    rows: Rows = []
    for answer in answers:
        beyond = _decades(answer.flops, frontier.largest)
        rows.append(
            (
                estimate(answer.flops, answer.interval, "flops", numbers.flops),
                estimate(answer.params, answer.interval, "params", count),
                estimate(answer.tokens, answer.interval, "tokens", count),
                estimate(answer.tokens_per_param, answer.interval, "tokens_per_param", ratio),
                estimate(answer.loss, answer.interval, "loss", loss),
                shape(answer.params, recipe, vocab_size),
                f"{beyond:.1f} decades" if beyond > 0 else "",
            )
        )
    said = dict.fromkeys(filter(None, (open_ends(answer.interval) for answer in answers)))
    return "\n".join([tables.table(head, rows), *said])


def _decades(value: float, largest: float | None) -> float:
    """How many decades `value` lies beyond `largest`; 0 inside."""
    return 0.0 if largest is None else max(0.0, math.log10(value / largest))


def shape(params: float, recipe: RecipeConfig, vocab_size: int) -> str:
    """The recipe's model nearest to that size: 8192x80, 64 heads, 69.8B."""
    model = nearest_shape(params, recipe, vocab_size)
    total = count_params(model).total
    return f"{model.width}x{model.depth}, {model.heads} heads, {count(total)}"


def missed(frontier: Frontier, flops: Sequence[float]) -> str:
    """The cost of half and twice the optimal size at every budget; "" where no loss is known."""
    head = ("FLOPs", "size", "parameters", "tokens", "loss", "excess loss", "FLOPs wasted")
    rows: Rows = [
        (
            numbers.flops(c), _factor(miss), count(miss.params), count(miss.tokens),
            loss(miss.loss), f"+{miss.excess:.4f}", percent(miss.wasted, 1).lstrip("+"),
        )
        for c in flops
        for miss in misses(frontier, c)
    ]  # fmt: skip
    if not rows:
        return ""
    # Beside laws through minima the surface's own optimum is the measure: see `misses`.
    return tables.table(head, rows) + _apart(frontier, np.array(flops))


@silent()
def _apart(frontier: Frontier, flops: Floats) -> str:
    """Which N* that table means, where laws through minima have another than the surface."""
    if frontier.surface is None:
        return ""
    surface, best = along(frontier.surface, frontier.cost)(flops), frontier.best(flops)
    if not np.any(np.abs(np.log(surface.params / best.params)) > _SAME):
        return ""
    sizes = ", ".join(count(float(n)) for n in surface.params)
    return f"\nBy the surface, whose own N* is {sizes}: sizes, losses and excess are from there."


def _factor(miss: Miss) -> str:
    return f"{miss.factor:g} N*" if miss.factor >= 1 else f"N*/{1 / miss.factor:g}"


def served(found: Sequence[Served], inference_tokens: float) -> str:
    """Models for a loss when they are to serve so many tokens."""
    head = (
        "loss", "parameters", "tokens", "D/N", "training FLOPs", "inference FLOPs", "saved in all"
    )  # fmt: skip
    rows: Rows = [
        (
            loss(s.loss), count(s.params), count(s.tokens), ratio(s.tokens / s.params),
            numbers.flops(s.training_flops), numbers.flops(s.inference_flops),
            percent(s.saved, 1).lstrip("+"),
        )
        for s in found
    ]  # fmt: skip
    title = (
        f"least training and inference FLOPs for that loss, {count(inference_tokens)} tokens served"
    )
    return f"{title}\n{tables.table(head, rows)}"


def listed() -> str:
    """Every published law with its source: those of losses and sizes, then of hyper-parameters."""
    laws = [(law.name, law.title, law.source) for law in published().values()]
    laws += [
        (law.name, f"{law.title}, hyper-parameters", law.source)
        for law in published_settings().values()
    ]
    return "\n".join(f"{name:20}{title}. {source}" for name, title, source in laws)
