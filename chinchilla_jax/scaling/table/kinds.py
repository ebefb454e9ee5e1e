"""What each column of a table says about its runs: chance, a setting, an outcome, a condition.

Runs replicate each other where nothing but chance differs, and follow one law where nothing but
size, tokens, settings and chance does. Names tell first, since they tell even where no two runs of
a cell differ; where a name says nothing, behaviour does. Doubt goes to the condition: one too many
is named and can be overruled, one too few fits two laws as one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.cells import cell_index

Labels = npt.NDArray[np.str_]
Codes = npt.NDArray[np.int64]

KINDS = {
    "fitted": "params, tokens, FLOPs, loss, and what weighs or groups them",
    "condition": "runs of two values are never fitted as one",
    "setting": "of several in one cell the best counts",
    "seed": "runs that differ in it alone replicate each other",
    "count": "follows from size, tokens and FLOPs",
    "outcome": "came out of a run, or says where and how fast it ran",
    "identifier": "names a run",
    "constant": "the same in all runs",
}
ASKED = "asked for"  # the reason of a kind that a person chose
OURS = "it is our "  # what that of a column begins with that has a name of ours
CHOICES = ("condition", "setting", "seed", "count", "outcome", "identifier")

_TECHNIQUE = "techniques"
OTHER_LOSS = "data, and what the loss means"  # losses under two values need no common unit

# Words of a name; the first pattern that matches counts. A "shape" (or its steps) and an "amount"
# are counts unless they differ inside a cell (`_settled`); a "topic" in words is a condition, in
# numbers what it behaves as: `data_ratio` is no corpus. A "measure" is an outcome in numbers, and
# in words what it behaves as: `eval_set` says on what a loss was measured.
_NAMES: tuple[tuple[str, str, str], ...] = (
    ("amount", "what a run holds and costs", r"^((params|flops|inference) .+|bytes at rest)$"),
    ("seed", "seeds", r"seeds?|replicas?|replicates?|replications?|rng|data order|shuffle"),
    ("condition", _TECHNIQUE, r"techniques?|teacher|kd|loss weight"),
    ("outcome", "where it ran", (
        r"devices?|gpus?|tpus?|cpus?|nodes?|host|hostname|mesh|parallel|fsdp|workers?|threads?|"
        r"hardware|accelerator|machine|world size|remat|compile|log every|eval every|"
        r"training layers|chunk tokens|divergence factor"
    )),
    ("identifier", "names of runs", (
        r"id|uuid|url|user|author|commit|git|sha|notes?|tags?|comments?|reason|status|state|"
        r"created|updated|date|timestamp|job|config fingerprint|needs|"
        r"^(forecast|panel|parent (run|step)|marginal flops)$"
    )),
    ("setting", "hyper-parameters", (
        r"lr|learning rates?|(base|peak|max|min|final) rate|final fraction|base width|warm ?ups?|"
        r"cool ?downs?|decay|anneal|annealing|schedules?|scheduler|horizon|batch|bs|bsz|"
        r"micro ?batch|accum|accumulation|clip|clipping|beta ?[12]|(?<!after )b[12]|betas|"
        r"eta|eps|epsilon|momentum|nesterov|dropout|wd|init std|init scale|initiali[sz]er|ema|"
        r"z ?loss|label smoothing"
    )),
    ("measure", "measurements", (
        r"loss|losses|nll|cross entropy|ppl|perplexity|bpb|bpc|bits per (byte|char|character)|"
        r"acc|accuracy|err|errors?|scores?|f1|bleu|se|std ?err|"
        r"standard error"
    )),
    ("outcome", "measurements", (
        r"held out|left out|lost|times?|secs?|seconds?|minutes?|hours?|days?|ms|runtime|duration|"
        r"wall|elapsed|speed|throughput|"
        r"per (second|sec|s)|mfu|hfu|utili[sz]ation|grad norm|gradient norm|gnorm|memory|mem|"
        r"energy|joules?|kwh|watts?|power|carbon|co2|cost|usd|input share|spikes?"
    )),
    ("condition", OTHER_LOSS, r"tokeni[sz]ers?|vocab|vocabulary"),
    ("topic", OTHER_LOSS, (
        r"corpus|corpora|datasets?|data|mixtures?|mix|domains?|languages?|metrics?|benchmarks?|"
        r"tasks?|sequence|seq|context|objective|curriculum|split|sources?"
    )),
    ("condition", _TECHNIQUE, (
        r"optimi[sz]ers?|opt|precision|dtype|quanti[sz]ed|quanti[sz]ation|quant|bits?|fp8|int8|"
        r"int4|sparsity|sparse|pruning|pruned|density|distill?ed|distill?ation|students?|"
        r"temperature|experts?|moe|routers?|routing|top k|granularity|lora|repetitions?|"
        r"pretrained"
    )),
    ("condition", "kinds of run", (
        r"definition|arch|architecture|attention type|activation|positions?|tie|tied|recipe|"
        r"parametri[sz]ation|experiments?|conditions?|variants?|treatments?|ablations?|methods?|"
        r"framework|family|series|flop increase"
    )),
    ("amount", "counts", (
        r"params?|parameters?|n ne|[kmgt]?flops?|[kmgt]?macs|compute|bytes|tokens?|epochs?"
    )),
    ("shape", "shapes and steps", (
        r"width|depth|layers?|blocks?|heads?|dims?|d model|d ff|ff|ffw|ffn|mlp|hidden|aspect|"
        r"n embd|steps?|iterations?|updates?"
    )),
    ("amount", "counts", r"sizes?|n|d|c|x c|mult|budgets?|examples|sequences|documents"),
    ("measure", "measurements", r"^(eval|evaluation|val|validation|test|downstream)|len norm"),
)  # fmt: skip
_PATTERNS = tuple((kind, why, re.compile(rf"\b({p})\b")) for kind, why, p in _NAMES)
# Our own names, whatever the table calls them.
_OURS = {
    **dict.fromkeys(("params", "tokens", "flops", "loss", "budget", "weight"), "fitted"),
    "learning_rate": "setting",
    "seed": "seed",
    "status": "identifier",
}
_TECHNIQUES = frozenset(techniques.dense_columns())  # columns of our own rows
_MEASURED = frozenset(techniques.measured_columns())
_DETERMINED = techniques.determined()
# What a run of ours holds and costs tells no conditions apart; all parameters beside active ones,
# of tables that name no technique, may (`_settled`).
_LEDGER = re.compile(
    r"^(bytes_at_rest(_.+)?|flops_.+|inference_.+|params_(embedding|readout|attention|feed_forward|"
    r"norms|positions|non_embedding|matmul|nonzero|average|.+_non_embedding)(_.+)?)$"
)
_UNIQUE = re.compile(
    r"\b(uniq(ue)?|distinct) (toks?|tokens)\b|\b(toks?|tokens) (uniq(ue)?|distinct)\b"
)
_LABEL = re.compile(r"\bid\b")  # `corpus_id` tells corpora apart
_TEXT = re.compile(
    r"(\b(corpus|dataset|mixture|domain|language)|^(data|mix|split|source))( id| index| number)?$"
)
_PARAMS = re.compile(r"\b(params?|parameters?|n ne)\b")
_ONCE = "once"  # the label of a run that sees every token once
_CHOICES = 12  # numbers that somebody chose; more are measured
_SAME = 0.01  # counts this close are one: rounding to whole steps and sequences


@dataclass(frozen=True)
class Column:
    """A column of the file: what it was taken for, and why; `values` counts the different ones."""

    name: str
    kind: str
    reason: str
    values: int


@dataclass(frozen=True)
class Sizes:
    """What a cell is made of, [R] each: params, tokens and FLOPs of every run."""

    params: Floats
    tokens: Floats
    flops: Floats

    @property
    def cell_R(self) -> Codes:
        return cell_index(self.params, self.tokens)


def words(name: str) -> str:
    """The words of a name in lower case: `config.peakLR` is `config peak lr`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[a-z0-9]+", spaced.lower()))


def kinds_of(
    labels: Mapping[str, Labels],
    ours: Mapping[str, str],
    sizes: Sizes,
    asked: Mapping[str, str] | None = None,
) -> dict[str, Column]:
    """The kind of every column.

    Args:
      labels: [R] a column of the file by its name, cells as text (`columns.labels`).
      ours: our name for the columns that have one, by the file's name.
      asked: kinds that the caller knows better, by the file's name.

    Raises:
      UserError: `asked` names no column, no kind, or a column that is fitted.
    """
    asked = asked or {}
    for name, kind in asked.items():
        _check(name, kind, labels, ours)
    found: dict[str, Column] = {}
    for name, label_R in labels.items():
        values = len(set(label_R))
        if name in asked:
            found[name] = Column(name, asked[name], ASKED, values)
        elif (kind := _OURS.get(ours.get(name, ""), "")) and (kind == "fitted" or values > 1):
            found[name] = Column(name, kind, f"{OURS}{ours[name]}", values)
        elif values == 1:
            found[name] = Column(name, "constant", "the same in all runs", 1)
        elif name in _TECHNIQUES:
            found[name] = Column(name, "condition", "a technique's", values)
        elif any(column in labels for column in _DETERMINED.get(name, ())):
            found[name] = Column(name, "count", "follows from a technique's columns", values)
        elif name in _MEASURED:
            found[name] = Column(name, "outcome", "measured of a technique", values)
        elif _LEDGER.search(name) and is_numeric(label_R):
            found[name] = Column(name, "count", "of our ledger", values)
        elif _UNIQUE.search(words(name)):
            found[name] = _repetition(name, label_R, sizes)
        else:
            by_name = _by_name(name, label_R)
            found[name] = by_name or _by_behaviour(name, label_R, sizes)
            # In words, or by a number, it says on what a loss was measured, or in which unit.
            if not by_name and found[name].kind == "condition" and names_a_text(name):
                found[name] = replace(found[name], reason=f"by name: {OTHER_LOSS}")
    return _settled(found, labels, sizes.cell_R)


def _settled(
    found: dict[str, Column], labels: Mapping[str, Labels], cell_R: Codes
) -> dict[str, Column]:
    """Shapes and amounts by name, by whether a cell determines them.

    Of several shapes of one size the best counts, as of settings. An amount that differs at equal
    params and tokens, where no condition and no shape stands beside it, tells of a technique that
    the table does not name: all parameters against active ones, say.
    """
    known = [c.name for c in found.values() if c.kind in ("condition", "shape")]
    beside_R = joint(cell_R, *(codes(labels[name]) for name in known))
    settled = {}
    for name, column in found.items():
        label_R = labels[name]
        if column.kind == "shape":
            inside = differs(codes(label_R), cell_R)
            reason = f"{column.reason}, and it differs inside a cell" if inside else column.reason
            column = replace(column, kind="setting" if inside else "count", reason=reason)
        elif column.kind == "amount":
            column = _amount(column, label_R, cell_R, beside_R)
        settled[name] = column
    return settled


def _check(name: str, kind: str, labels: Mapping[str, Labels], ours: Mapping[str, str]) -> None:
    if name not in labels:
        raise UserError(
            f"--kinds={name}={kind}: no column '{name}'{nearest(name, list(labels))} "
            f"(there are {', '.join(labels)})"
        )
    if kind not in CHOICES:
        raise UserError(
            f"--kinds={name}={kind}: a column is {', '.join(CHOICES)}{nearest(kind, CHOICES)}"
        )
    if _OURS.get(ours.get(name, "")) == "fitted":
        raise UserError(
            f"--kinds={name}={kind}: '{name}' is fitted as {ours[name]}; "
            f"--columns={ours[name]}=... takes another column"
        )


def _by_name(name: str, label_R: Labels) -> Column | None:
    spoken, values, numeric = words(name), len(set(label_R)), is_numeric(label_R)
    kind, why = _named(spoken)
    if _LABEL.search(spoken):
        of_what = _named(_LABEL.sub(" ", spoken))
        kind, why = of_what if of_what[1] in (OTHER_LOSS, _TECHNIQUE) else (kind, why)
    if not kind or (kind == "topic" and numeric) or (kind == "measure" and not numeric):
        return None
    kind = {"topic": "condition", "measure": "outcome"}.get(kind, kind)
    return Column(name, kind, f"by name: {why}", values)


def _named(spoken: str) -> tuple[str, str]:
    """The kind and its reason by the words of a name; empty where they say nothing."""
    return next(
        ((kind, why) for kind, why, pattern in _PATTERNS if pattern.search(spoken)), ("", "")
    )


def names_a_text(name: str) -> bool:
    """Whether a name is that of a text, or of a measurement, which was made on one: `dataset`,
    `corpus_id`, `eval_set`; `data_ratio` and `n_datasets` are none."""
    spoken = words(name)
    return _named(spoken)[0] == "measure" or bool(_TEXT.search(spoken))


def _repetition(name: str, label_R: Labels, sizes: Sizes) -> Column:
    """Unique tokens make a condition where one corpus does not explain them, nor one number of
    epochs."""
    unique_R = np.minimum(_numbers(label_R, sizes.tokens), sizes.tokens)
    values = len(set(label_R))
    if np.all(np.abs(unique_R / np.minimum(sizes.tokens, unique_R.max()) - 1) < _SAME):
        return Column(name, "count", "one corpus, as far as the tokens go", values)
    per_token_R = unique_R / sizes.tokens
    if per_token_R.max() < (1 + _SAME) * per_token_R.min():
        return Column(name, "count", "follows tokens", values)
    return Column(name, "condition", "repetition: corpora of different sizes", values)


def _amount(column: Column, label_R: Labels, cell_R: Codes, beside_R: Codes) -> Column:
    known_R = label_R != ""  # an empty cell is no other amount
    label_R, cell_R, beside_R = label_R[known_R], cell_R[known_R], beside_R[known_R]
    value_R = codes(label_R)
    if is_numeric(label_R):
        value_R = near(np.abs(_numbers(label_R, np.zeros(len(label_R)))))
    if not differs(value_R, cell_R) or not differs(value_R, beside_R):
        return replace(column, kind="count")
    if _PARAMS.search(words(column.name)) or _few(column.values, len(label_R)):
        return replace(column, kind="condition", reason="differs at equal params and tokens")
    return replace(column, kind="outcome", reason="more values than a choice has")


def _by_behaviour(name: str, label_R: Labels, sizes: Sizes) -> Column:
    """A column whose name says nothing."""
    value_R, cell_R = codes(label_R), sizes.cell_R
    values, numeric = int(value_R.max()) + 1, is_numeric(label_R)
    inside = differs(value_R, cell_R)
    replicated = _repeated(cell_R)
    if not _few(values, len(label_R)) or (numeric and values > _CHOICES):
        if replicated and not inside:
            return Column(name, "count", "one value a cell", values)
        kind = "outcome" if numeric else "identifier"
        return Column(name, kind, "more values than a choice has", values)
    if inside:
        return Column(name, "condition", "differs inside a cell", values)
    axes = {
        "params": sizes.params,
        "tokens": sizes.tokens,
        "tokens per parameter": sizes.tokens / sizes.params,
        "FLOPs": sizes.flops,
    }
    for axis, x_R in axes.items():
        if _follows(value_R, x_R):
            return Column(name, "count", f"follows {axis}", values)
    if numeric and replicated:
        return Column(name, "count", "one value a cell", values)
    return Column(name, "condition", "few values, whatever the size", values)


def _few(values: int, runs: int) -> bool:
    """Whether a value stands for three runs or more, as a category's does."""
    return values <= max(2, runs // 3)


def _follows(value_R: Codes, x_R: Floats) -> bool:
    """Whether x tells the value: equal x equal values, or one stretch of x for each value."""
    group_R = near(x_R)
    if not differs(value_R, group_R) and _repeated(group_R):
        return True
    ordered = value_R[np.argsort(x_R, kind="stable")]
    return int(np.sum(np.diff(ordered) != 0)) == len(np.unique(ordered)) - 1


def _repeated(group_R: Codes) -> bool:
    """Whether at least half of the runs share their group."""
    return int(np.sum(np.bincount(group_R)[group_R] > 1)) * 2 >= len(group_R)


def codes(label_R: Labels) -> Codes:
    """A number for each different label, 0 upwards."""
    return np.asarray(np.unique(label_R, return_inverse=True)[1].ravel(), np.int64)


def joint(*code_R: Codes) -> Codes:
    """A number for each different combination."""
    return cell_index(*(code.astype(float) for code in code_R))


def differs(value_R: Codes, group_R: Codes) -> bool:
    """Whether some group holds two values."""
    return len(np.unique(joint(value_R, group_R))) > len(np.unique(group_R))


def near(x_R: Floats) -> Codes:
    """Groups of numbers of which each is within 1 % of the next."""
    order = np.argsort(x_R, kind="stable")
    apart = np.diff(x_R[order]) > _SAME * np.abs(x_R[order][:-1])
    group_R = np.empty(len(x_R), np.int64)
    group_R[order] = np.concatenate([[0], np.cumsum(apart)])
    return group_R


def is_numeric(label_R: Labels) -> bool:
    """Whether every label that is not empty reads as a number."""
    try:
        _numbers(label_R, np.zeros(len(label_R)))
    except ValueError:
        return False
    return True


def _numbers(label_R: Labels, empty_R: Floats) -> Floats:
    """Labels as numbers, `empty_R` where a cell is empty."""
    return np.array([float(x) if x else y for x, y in zip(label_R, empty_R, strict=True)])


def condition_labels(column: Column, label_R: Labels, tokens_R: Floats) -> Labels:
    """The labels that make the condition: runs that see every token once are one condition.

    Where nearly every run has unique tokens of its own, those of as many epochs are one.
    """
    unique = _UNIQUE.search(words(column.name)) and column.name not in _TECHNIQUES
    if column.kind != "condition" or not unique:
        return label_R
    unique_R = _numbers(label_R, tokens_R)
    once_R = unique_R >= (1 - _SAME) * tokens_R
    told_R = np.where(once_R, _ONCE, label_R)
    again_R = np.array([f"{x:.2g} epochs" for x in tokens_R / unique_R])
    some, all_of = (len(set(labels[~once_R])) for labels in (again_R, told_R))
    if not _few(all_of, int((~once_R).sum())) and _few(some, int((~once_R).sum())):
        return np.where(once_R, _ONCE, again_R)
    return told_R
