"""Laws of hyper-parameters as tables: exponents, what missing costs, and published laws beside."""

from __future__ import annotations

from collections.abc import Mapping

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import MISSING, coefficient, count, exponent, percent
from chinchilla_jax.scaling.fitting.intervals import Intervals
from chinchilla_jax.scaling.report.table import Rows, Table, estimate
from chinchilla_jax.scaling.tuning import BATCH, RATE
from chinchilla_jax.scaling.tuning.records import PublishedBeside, SettingLaw, Tuning

POWERS = {"params": "N", "tokens": "D", "batch": "B", "tokens_per_param": "D/N", "flops": "C"}
_POLICY = {
    "tuned": "batch varied in each cell",
    "fixed": "one batch for all runs",
    "followed": "one batch a cell",
    "unknown": "batch not known",
}


def laws(found: Tuning | None) -> Table | None:
    """A row a law, and one for the best rate at the best batch."""
    if found is None:
        return None
    rows: Rows = [_law(law, found) for law in found.laws]
    if found.at_tuned_batch:
        powers = _powers(found.at_tuned_batch, found.at_tuned_batch_interval)
        rows.insert(_after(found, RATE), ("  at the best batch", powers, *[""] * 5))
    head = ("best value", "grows as", "coefficient", "lost at 1.25x", "at 2x", "at 4x", "remark")
    return Table("Laws of hyper-parameters", head, rows, _note(found))


def _after(found: Tuning, setting: str) -> int:
    return 1 + [law.setting for law in found.laws].index(setting)


def _law(law: SettingLaw, found: Tuning) -> tuple[str, ...]:
    title = f"{law.setting} ({law.unit})" if law.unit else law.setting
    if law.status != "ok":
        return (title, *[""] * 5, law.reason or "")
    costs = {lost.factor: lost for lost in law.lost}
    lost = [_percent(costs[f].share, costs[f].interval) for f in (1.25, 2.0, 4.0)]
    remark = f"in {law.cells} cells"
    if law.outside:
        remark += f", best beyond the values tried in {law.outside}"
    at = estimate(law.coefficient, law.interval, "coefficient", lambda v: coefficient(v, 3))
    return title, _powers(law.exponents, law.interval), at, *lost, remark


def _powers(exponents: Mapping[str, float], spread: Intervals) -> str:
    """N^-0.56 (-0.70 to -0.51), D^0.16 (0.11 to 0.25)."""
    return ", ".join(
        f"{POWERS[of]}^{estimate(value, spread, of, exponent)}" for of, value in exponents.items()
    ) or "the same everywhere"  # fmt: skip


def _percent(share: float, ends: tuple[float, float] | None) -> str:
    def write(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.2g}"

    return f"{numbers.with_interval(share, ends, write)} %"


def _note(found: Tuning) -> str:
    held = [
        f"without the {h.cells} cells of most {h.largest}, the laws of the others miss the best "
        f"there by {_factors(h.error)} (the scatter of runs alone: {_factors(h.expected)})"
        for h in found.held_out
        if h.cells
    ]
    parts = [
        f"{found.runs} runs within {percent(found.near, 1).lstrip('+')} of the lowest loss of "
        f"their cell (equal N and D), {_POLICY[found.policy]}; ln loss scatters by "
        f"{percent(found.noise).lstrip('+')} around one quadratic in the logs of the settings",
        "lost: of the loss, at a value so many times above or under the best",
        *held,
        "brackets are 95 %, by bootstrap over runs and over cells, the wider of the two",
    ]
    return ". ".join(part[:1].upper() + part[1:] for part in parts) + "."


def _factors(errors: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {numbers.fixed(2.718281828459045**e, 2)}x" for name, e in errors.items()
    )


def beside(found: Tuning | None) -> Table | None:
    """Published laws at the cells of the table."""
    if found is None or not found.published:
        return None
    rows: Rows = [_published(one) for one in found.published]
    rows.insert(0, _ours(found))
    head = (
        "law", "rate grows as", "batch grows as", "rate", "batch (tokens)", "lost on average",
        "at most", "beyond its runs", "policy",
    )  # fmt: skip
    note = (
        "Rate and batch at the run of most FLOPs; lost: of the loss by our curvatures, over all "
        "cells. Published rates are of standard parametrization: in muP ours is compared as "
        "hidden matrices get it."
    )
    return Table("Published laws of hyper-parameters beside", head, rows, note)


def _ours(found: Tuning) -> tuple[str, ...]:
    last = max(found.cells, key=lambda cell: cell.params * cell.tokens)
    exponents = {law.setting: law.exponents for law in found.laws if law.status == "ok"}
    rate = found.at_tuned_batch or exponents.get(RATE, {})
    batch = next((law for law in found.laws if law.setting == BATCH), None)
    in_tokens = batch is not None and batch.unit == "tokens"
    return (
        "these runs", _plain(rate), _plain(exponents.get(BATCH, {})),
        coefficient(last.law.get(RATE), 3), count(last.law.get(BATCH) if in_tokens else None),
        "", "", "", found.policy,
    )  # fmt: skip


def _published(one: PublishedBeside) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.2g} %"

    far = f"{one.decades:.1f} decades" if one.decades else ""
    return (
        one.title, _plain(one.exponents.get(RATE, {})), _plain(one.exponents.get(BATCH, {})),
        coefficient(one.learning_rate, 3), count(one.batch_tokens), share(one.lost),
        share(one.worst), far, one.policy,
    )  # fmt: skip


def _plain(exponents: Mapping[str, float]) -> str:
    return " ".join(f"{POWERS[of]}^{value:.3f}" for of, value in exponents.items())


PARTS = (laws, beside)
