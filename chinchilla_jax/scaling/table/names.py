"""Which column of a file is which of ours: by usual names, by units in names, or by what was said.

A name counts with or without its path (`summary.eval/loss`, `throughput/total_tokens`) and its unit
(`params_M`, `total_gflops`, `loss_bits`); a perplexity is a loss by its logarithm. A loss of
held-out text is taken before one whose text is not named, and told; that of training only where it
is asked for.
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.table import computed, metrics, units
from chinchilla_jax.scaling.table.kinds import words
from chinchilla_jax.scaling.table.shapes import shape_of

# Usual names of each column, best first; compared without case, spaces and punctuation.
ALIASES: dict[str, tuple[str, ...]] = {
    "params": (
        "params", "params_total", "n_params", "num_params", "parameters", "n_parameters",
        "num_parameters", "total_params", "parameter_count", "params_count", "model_size",
        "model_params", "N", "nonzero_params", "total_parameters", "model_parameters",
        "param_count", "numel",
    ),
    "tokens": (
        "tokens", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "total_tokens",
        "tokens_total", "tokens_seen", "tokens_trained", "trained_tokens", "num_tokens_seen", "D",
        "total_train_tokens", "total_training_tokens", "tokens_processed", "n_toks", "toks",
    ),
    "flops": (
        "flops", "flop", "training_flop", "training_flops", "train_flops", "total_flops",
        "flops_total", "compute", "compute_flops", "C", "training_compute", "train_compute",
        "total_compute",
    ),
    "loss": (
        "val_loss", "validation_loss", "eval_loss", "test_loss", "final_val_loss",
        "val_bpb", "eval_bpb", "loss", "final_loss", "L", "lm_loss",
    ),
    "loss_se": ("loss_se", "loss_stderr", "loss_standard_error"),
    "budget": (
        "budget", "flops_budget", "flop_budget", "compute_budget", "isoflop_budget", "budget_flops",
        "target_flops", "flops_target", "target_compute", "compute_target", "target_budget",
        "isoflop", "isoflops", "C_target", "target_C",
    ),
    "learning_rate": ("learning_rate", "lr", "peak_lr", "max_lr"),
    "seed": ("seed", "rng_seed"),
    "step": (
        "step", "steps_done", "global_step", "train_step", "training_step", "optimizer_step",
        "checkpoint_step", "ckpt_step", "iteration", "iter",
    ),
    "weight": ("weight", "fit_weight"),
    "params_non_embedding": (
        "params_non_embedding", "non_embedding_params", "n_params_non_embedding",
    ),
    "run_id": ("run_id", "run", "run_name", "name", "id", "model"),
    "status": ("status", "state"),
}  # fmt: skip
FITTED = ("params", "tokens", "flops", "loss")
NONE = "none"  # --columns=status=none: the table has no such column
# A column that is one of these cannot be another of them too.
ALONE = ("params", "tokens", "flops", "loss", "loss_se", "learning_rate", "seed", "step", "weight")
_INSIDE = (*FITTED, "params_non_embedding", "budget", "learning_rate", "seed")  # by path or unit
COUNTS = ("params", "tokens", "flops", "params_non_embedding", "budget")
_COUNTED = re.compile(r"\b(params?|parameters?|tokens?|toks?|flops?|n|d|c)\b")
_TRAINING = re.compile(r"\btrain(ing)?\b")
_HELD_OUT = re.compile(r"\b(val|valid|validation|eval|evaluation|test|dev|held ?out|holdout)\b")
# The loss of held-out text in whatever order it is said: `loss_val`, `eval.nll`, `val_loss_mean`.
_BESIDE = re.compile(r"\b(final|last|mean|avg|average)\b")
_A_LOSS = re.compile(r"^(lm |ce )?(loss|nll|cross entropy|ce)$")
# Words of a name that may mean one of ours, where none of the usual ones is there.
_NEAR = {
    "loss": r"\b(loss(es)?|nll|cross entropy|bpb|bpc|bits per (byte|char)|ppl|perplexity)\b",
    "params": r"\b(n?params?|n?parameters?)\b|^(model )?sizes?$",
    "tokens": r"\b(n?tokens?|toks?)\b",
    "flops": r"\b([kmgtpez]?flops?|compute)\b",
}
_OTHERS = re.compile(
    r"\b(per|se|std|stderr|grad|batch|unique|vocab|embedding|embeds?|aux|z|increase|log|log10|log2)\b"
)
_BUDGET = re.compile(r"(^|[^0-9.])\d(\.\d+)?e\+?(1[5-9]|2\d)$", re.IGNORECASE)  # loss_3e18
_SHOWN = 30  # columns that a message lists

Found = tuple[str, float]  # the file's name of a column, and the unit of its numbers


def asked(columns: Mapping[str, str], names: Sequence[str], source: str) -> dict[str, Found]:
    """What `--columns` names, `1e9*gflops` with its factor, or computes; `none` is left out.

    Raises:
      UserError: there is no such column.
    """
    found = {}
    for ours, text in columns.items():
        if text == NONE and NONE not in names:
            continue
        name, factor = (text, None) if text in names else units.scaled(text)
        for part in computed.parts(name, names):
            if part not in names:
                raise UserError(
                    f"{source}: no column '{part}' for {ours}{nearest(part, names)} "
                    f"(there are {shown(names)})"
                )
        if factor is None and ours == "loss" and name in names:
            _, name, factor = metrics.in_nats(name)
        found[ours] = (name, in_unit(ours, name, names) if factor is None else factor)
    return found


def in_unit(ours: str, name: str, names: Sequence[str]) -> float:
    """What one of a column is by its name, of a count of ours that may have a unit."""
    return math.prod(in_units(ours, name, names).values())


def in_units(ours: str, name: str, names: Sequence[str]) -> dict[str, float]:
    """The same of each column that it is the product of, or of itself."""
    if ours not in COUNTS or (metrics.of_log(name) and name not in names):
        return {}
    parts = computed.parts(name, names)
    if len(parts) == 1:
        return {name: units.of_name(name)[1]}
    return {part: part_unit(part) for part in parts}


def part_unit(name: str) -> float:
    """The unit of one of several factors: in `steps*B*T`, and in `batch_B`, B is the batch."""
    base, unit = units.of_name(name)
    spoken = words(name).split()
    if len(_key(re.split(r"[./]", name)[-1])) == 1:
        return 1.0
    axis = spoken[-1] in ("b", "t") and not _COUNTED.search(words(base))
    return 1.0 if axis else unit


def usual(ours: str, names: Sequence[str]) -> list[Found]:
    """The columns that may be `ours` by their names, the best first."""
    ranked = []
    for place, name in enumerate(names):
        if ours == "loss" and _TRAINING.search(words(name)):
            continue
        for inside, (tail, found) in enumerate(_readings(name, ours)):
            rank = _RANK[ours].get(_key(tail))
            # A letter by itself is one of ours, and with a unit a capital is: N_M, but no d_k.
            lone = inside and len(_key(tail)) == 1
            if rank is None or (lone and (found[1] == 1.0 or not name[:1].isupper())):
                continue
            heldout = ours == "loss" and bool(_HELD_OUT.search(words(name)))
            order = (ours == "loss" and not heldout, inside > 0, rank, place)
            ranked.append((order, found))
            break
    first: dict[str, Found] = {}
    for _, found in sorted(ranked):
        first.setdefault(_key(found[0]), found)
    return list(first.values())


def _readings(name: str, ours: str) -> Iterator[tuple[str, Found]]:
    """The name as it is, then without its path from the longest end to the shortest, and unit."""
    yield name, (name, 1.0)
    if ours not in _INSIDE:
        return
    cuts = [0, *(match.end() for match in re.finditer(r"[./]", name))]
    for cut in cuts:
        if cut:
            yield name[cut:], (name, 1.0)
        if ours in COUNTS:
            base, factor = units.of_name(name[cut:])
            if factor != 1.0:
                yield base, (name, factor)
        if ours == "loss":
            base, read, factor = metrics.in_nats(name[cut:])
            found = (name if read == name[cut:] else f"ln({name})", factor)
            yield base, found
            spoken = _BESIDE.sub(" ", words(base))
            of = " ".join(_HELD_OUT.sub(" ", spoken).split())
            if _A_LOSS.match(of):
                yield "val_loss" if _HELD_OUT.search(spoken) else "loss", found


def held_out(names: Sequence[str]) -> list[str]:
    """Columns that may be losses of held-out text, whatever else their names say."""
    likely = re.compile(_NEAR["loss"])
    return [
        name for name in names
        if _HELD_OUT.search(spoken := metrics.in_nats(name)[0]) and likely.search(spoken)
        and not _TRAINING.search(spoken) and not _OTHERS.search(spoken)
    ]  # fmt: skip


def told(ours: str, found: Found, others: Sequence[Found]) -> list[str]:
    """What a person must hear of the choice of a column that is fitted."""
    name, _ = found
    said = []
    rest = [f"'{other}'" for other, _ in others]
    if rest:
        said.append(f"column '{name}' is taken as {ours}; there is also {shown(rest)}")
    return said


def told_axes(names: Iterable[str]) -> list[str]:
    """Factors of a product whose names end in a letter that is no unit there."""
    others = [name for name in names if units.of_name(name)[1] != part_unit(name)]
    return [f"no unit is taken from the name of '{name}'" for name in others]


def told_unit(ours: str, name: str, factor: float) -> list[str]:
    """What a person must hear of a unit that a name has."""
    if factor == 1.0:
        return []
    return [
        f"column '{name}' counts {ours} in units of {factor:g} by its name; "
        f"--columns={items([f'{ours}=1*{name}'])} takes it as it stands"
    ]


def told_metric(name: str, factor: float) -> list[str]:
    """What a person must hear of what losses are counted in."""
    metric, inner = metrics.metric_of(name), metrics.of_log(name)
    if inner or factor == metrics.NATS_A_BIT:
        how = f"the logarithms of '{inner}'" if inner else f"those of '{name}' times ln 2"
        stands = f"--columns={items([f'loss=1*{inner or name}'])} takes it as it stands"
        unit = metric if inner else metrics.NATS
        other = "" if unit == metrics.NATS else f" and not {metrics.NATS}"
        return [f"losses are {how}, in {unit}{other}; {stands}"]
    if metrics.is_logarithm(name):
        theirs = f"--columns={items([f'loss=ln({name})'])} takes their logarithms"
        return [f"losses are those of '{name}', by its name in {metric}; {theirs}"]
    if metric == metrics.NATS or factor != 1.0:
        return []
    return [f"losses are those of '{name}', in {metric} and not {metrics.NATS}"]


def lacking(need: Sequence[str], have: Mapping[str, str], names: Sequence[str], source: str) -> str:
    """All that is missing in one line, with what was recognised and which columns may be meant.

    Args:
      need: what lacks, of FITTED; of params, tokens and flops two suffice.
      have: our name -> the file's, of what was found.
      names: columns of the file that hold something.
    """
    sizes = [ours for ours in need if ours != "loss"]
    wanted = ["loss"] * ("loss" in need)
    wanted += ["two of params, tokens, flops"] if len(sizes) > 1 else []
    free = [name for name in names if name not in have.values()]
    asked_for = ["loss"] * ("loss" in need) + sizes * (len(sizes) > 1)
    guesses = {ours: near(ours, free) for ours in asked_for}
    if "tokens" in need and not guesses.get("tokens"):
        guesses["tokens"] = computed.tokens_of(names, have.get("params") or guesses.get("params"))
    hints = [f"{ours}={name}" for ours, name in guesses.items() if name]
    seen = [f"{ours} is '{name}'" for ours, name in have.items() if ours in FITTED]
    example = f"--columns={items(hints)}?" if hints else "--columns=params=N,loss=..."
    shape = shape_of(names)
    if shape and not shape.table:
        return f"{source}: no table of runs: {shape.instead}"
    if wide := [name for name in names if _BUDGET.search(name)][2:]:
        return (
            f"{source}: no table of runs: columns such as '{wide[0]}' hold a budget each; make a "
            "row per run, with columns params, flops and loss"
        )
    if {"metric", "value"} <= {words(name) for name in names} and "loss" in need:
        return (
            f"{source}: a row per metric: --columns=loss=value with --where=metric=... takes the "
            "rows of one"
        )
    return (
        f"{source}: no column for {' and '.join(wanted)} among {shown(names)}; "
        f"{'recognised: ' + ', '.join(seen) + '; ' if seen else ''}name them with {example}"
        f"{'; ' + shape.instead if shape and shape.instead else ''}"
    )


def near(ours: str, names: Sequence[str]) -> str | None:
    """The column that may be `ours` though its name is none of the usual ones."""
    pattern = re.compile(_NEAR[ours])
    likely = [
        name for name in names if pattern.search(words(name)) and not _OTHERS.search(words(name))
    ]
    if likely:
        likely.sort(key=lambda name: (
            bool(_TRAINING.search(words(name))) and ours == "loss",
            not (_HELD_OUT.search(words(name)) or re.search(r"\b(total|trained)\b", words(name))),
        ))  # fmt: skip
        return likely[0]
    letters = [alias for alias in ALIASES[ours] if len(alias) == 1]
    close = [alias for alias in ALIASES[ours] if len(alias) > 3]
    others = [re.compile(pattern) for other, pattern in _NEAR.items() if other != ours]
    free = [name for name in names if not any(other.search(words(name)) for other in others)]
    return next(
        (name for name in free if re.split(r"[./]", name)[-1] in letters
         or difflib.get_close_matches(name.lower(), close, 1, 0.8)), None
    )  # fmt: skip


def shown(names: Sequence[str]) -> str:
    """The names, the first of many."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_RANK = {
    ours: {_key(alias): rank for rank, alias in reversed(list(enumerate(aliases)))}
    for ours, aliases in ALIASES.items()
}
