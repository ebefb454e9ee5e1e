"""Numbers that parse and yet cannot be meant: wrong units, other conventions, other quantities."""

import re

import numpy as np

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import percentage
from chinchilla_jax.scaling.arrays import Floats, silent
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.kinds import words
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.table.unlike import unlike

# flops / (params * tokens): 2 for a forward pass, 6 for training, more where attention, embeddings
# or a recomputed forward pass weigh. Beyond these bounds a unit is wrong.
_RATIO = (0.5, 600.0)
HELD_OUT_IN_TRAINING = "held_out_in_training"  # column: a share, 0 to 1
_LEAK = 0.1  # of it that is said
_USED = re.compile(r"\b(active|activated|non ?zero|total)\b")
_UNITS = {3: "thousands", 6: "millions", 9: "billions", 12: "trillions"}
_FORWARD = 2.0
_PETAFLOP_DAY = 8.64e19
_FEWEST = 1e3  # parameters of a language model, and tokens


@silent()
def doubts(runs: Runs) -> tuple[str, ...]:
    """Warnings about the runs that will be fitted."""
    table, runs = runs, runs.best()
    said = []
    if _counts_itself(runs):
        said += _spread(runs)
    else:
        absent = next(name for name in ("params", "tokens", "flops") if name not in runs.given)
        said.append(f"the table has no {absent}: counted by flops = 6 params tokens")
        said += _magnitudes(runs)
    if len(runs) > 1 and float(np.ptp(runs.loss)) <= 1e-6 * float(runs.loss.max()):
        said.append(f"all {len(runs)} runs have a loss of {runs.loss[0]:.4g}: is it their loss?")
    highest = float(runs.loss.max())
    if highest > 20.0:
        row = int(runs.row_R[runs.loss.argmax()])
        said.append(
            f"loss reaches {highest:.4g} in row {row}: nats per token stay below ln of the "
            "vocabulary, 11 or so; is it a perplexity (--columns='loss=ln(NAME)' takes its "
            "logarithm), or a run that diverged?"
        )
    if runs.budgets_from == "grouped":
        outside = int((runs.group_R < 0).sum())
        said.append(
            f"no column of budgets: runs within 10 % of FLOPs count as one, {len(runs.budget_G)} "
            f"budgets in all; {outside} runs belong to none"
        )
    elif runs.budgets_from == "column":
        ratio = runs.flops / runs.budget_G[runs.group_R]
        worst = int(np.abs(np.log(ratio)).argmax())
        if not 0.8 < ratio[worst] < 1.25:
            said.append(
                f"row {runs.row_R[worst]} spent {ratio[worst]:.3g} times its budget; "
                "are flops counted in another convention than budgets?"
            )
    said += _leaks(runs) + _sparsities(runs)
    if len(table) > len(runs):
        settings = ", ".join(table.names("setting"))
        said.append(
            f"{len(table) - len(runs)} runs at worse settings of their cell ({settings}) are "
            "shown, not fitted"
        )
    replicates = len(runs) - len(np.unique(runs.cell_R()))
    said += unlike(runs) if replicates else []
    if replicates and not runs.names("seed"):
        said.append(
            f"{replicates} runs share size, tokens and settings with another one and no column of "
            "seeds tells them apart: they count as replicates, their scatter as noise"
        )
    return tuple(said)


@silent()
def check_units(runs: Runs) -> None:
    """Raises UserError where FLOPs, params and tokens cannot all be in the same unit.

    Conditions may differ by far: experts cost little for all their parameters. A wrong unit is
    wrong in each of them, and a wrong row is far from those of its own.
    """
    if not _counts_itself(runs):
        return
    ratio = _ratio(runs)
    condition_R = runs.condition_R()
    middle_C = np.array([np.median(ratio[condition_R == c]) for c in np.unique(condition_R)])
    middle = float(middle_C[np.abs(np.log(middle_C / SIX_ND.kappa)).argmin()])
    if not _RATIO[0] < middle < _RATIO[1]:
        power = round(np.log10(middle / SIX_ND.kappa) / 3) * 3
        unit = _UNITS.get(abs(power))
        guess = f"; are params or tokens in {unit}?" if unit and power > 0 else ""
        guess = f"; are flops in {unit}?" if unit and power < 0 else guess
        days = middle * _PETAFLOP_DAY
        if _RATIO[0] < days < _RATIO[1] and abs(np.log10(days / SIX_ND.kappa)) < 1:
            name = runs.title.get("flops", "flops")
            asked = items([f"flops={_PETAFLOP_DAY:g}*{name}"])
            guess = f"; are flops in petaFLOP/s-days? --columns={asked}"
        raise UserError(
            f"{runs.source}, columns params, tokens, flops: flops / (params x tokens) is "
            f"{middle:.3g} in the median row where training costs about 6{guess}"
        )
    usual_R = middle_C[condition_R]
    far = np.abs(np.log(ratio / usual_R)) > np.log(30.0)
    if far.any():
        i = int(np.flatnonzero(far)[0])
        raise UserError(
            f"{runs.source}, row {runs.row_R[i]}, columns params, tokens, flops: "
            f"flops / (params x tokens) is {ratio[i]:.3g} where the median row has "
            f"{usual_R[i]:.3g}; is a unit wrong?"
        )


@silent()
def could_cost(params_R: Floats, tokens_R: Floats, flops_R: Floats) -> bool:
    """Whether runs of these sizes may have spent these FLOPs."""
    middle = np.nanmedian(flops_R / (params_R * tokens_R))
    return bool(_RATIO[0] < middle < _RATIO[1])


def _leaks(runs: Runs) -> list[str]:
    """Held-out text that training has, too."""
    share_R = runs.columns.get(HELD_OUT_IN_TRAINING, np.zeros(0))
    if not (leaking := int(np.sum(share_R > _LEAK))):
        return []
    return [
        f"up to {percentage(np.nanmax(share_R))} of the held-out passages occur word for word in "
        f"the training text of {leaking} runs: their losses measure memory, too; hold out other "
        "text"
    ]


def _sparsities(runs: Runs) -> list[str]:
    """Parameters in use beside all of them: shares that jump to and fro are of several kinds."""
    fitted = runs.title.get("params", "params")
    said = []
    for name, column in runs.kinds.items():
        spoken = words(name)
        if column.kind != "count" or not (_USED.search(spoken) and "param" in spoken):
            continue
        used_R = runs.columns.get(name, np.zeros(0))
        if name == fitted or not (used_R > 0).all() or not len(used_R):
            continue
        jump = np.diff(np.log(used_R / runs.params)[np.argsort(runs.params, kind="stable")])
        if min(jump.max(initial=0.0), -jump.min(initial=0.0)) > np.log(1.5):
            share = used_R / runs.params
            said.append(
                f"'{name}' are {share.min():.2g} to {share.max():.2g} times '{fitted}', whatever "
                "the size: runs of several sparsities stand in one fit; a column that names them "
                "(experts, sparsity) compares them"
            )
    return said


def _counts_itself(runs: Runs) -> bool:
    """Whether the table has all three of what C = 6ND ties together."""
    return all(name in runs.given for name in ("params", "tokens", "flops"))


def _ratio(runs: Runs) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(np.log(runs.flops) - np.log(runs.params) - np.log(runs.tokens)))


def _spread(runs: Runs) -> list[str]:
    ratio = _ratio(runs)
    low, high = float(ratio.min()), float(ratio.max())
    if abs(np.log(np.median(ratio) / _FORWARD)) < np.log(1.15):
        return [
            f"flops / (params x tokens) is {np.median(ratio):.3g} in the median row: a forward "
            "pass costs that, and training 6; are budgets meant so, or are params not all used?"
        ]
    if high / low > 1.1:
        return [
            f"flops / (params x tokens) runs from {low:.3g} to {high:.3g}: flops are not 6ND; "
            "the frontier follows the table's own cost as a power of params"
        ]
    return []


def _magnitudes(runs: Runs) -> list[str]:
    """Without a third column a wrong unit shows only as an odd number of tokens per parameter."""
    middle = float(np.median(runs.tokens_per_param))
    if not 1e-2 < middle < 1e5:
        return [f"the median run has {middle:.3g} tokens per parameter: are the units right?"]
    for name in ("params", "tokens"):
        if (count := float(np.median(getattr(runs, name)))) < _FEWEST:
            asked = items([f"{name}=1e6*{runs.title.get(name, name)}"])
            return [
                f"the median run has {count:.3g} {name}: are they in millions? --columns={asked}"
            ]
    return []
