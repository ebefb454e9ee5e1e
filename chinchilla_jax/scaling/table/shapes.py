"""Files of programs that many use, known by columns that only they write.

A `Shape` says which of its columns are ours, or, of a file that is no table of runs, what would be
one. What a person names with --columns comes before it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeGuard

# Parameters of the ladder's models, which its files do not hold (allenai/OLMo-ladder, ladder.py).
_LADDER = {
    "190M": 190354176, "370M": 371262464, "600M": 597382464, "760M": 758220288, "1B": 1279395840,
    "3B": 3169537280, "7B": 6887575552, "13B": 13202396160,
}  # fmt: skip

LM_EVAL = "lm_eval"  # column of a row that is lm-eval's: the file of the results


def _by_ladder(run: str) -> dict[str, Any]:
    size = next((size for size in re.findall(r"\d+[MB]", run) if size in _LADDER), None)
    return {"params": _LADDER[size]} if size else {}


def _nothing(run: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Shape:
    """How a file is known, and what it holds.

    Attributes:
      name: whose file it is, in print.
      has: patterns; each is found in the name of some column.
      columns: our name -> the file's, best first, also behind a dotted path; `1e9*gflops` counts
        in units.
      sums: further columns: the sum of others, where all of them are there.
      of_run: what the name of a run tells of it, of a file that is one run's.
      one_run: whether a file is one run's, so that a folder of them is a table.
      note: what a person must know of its counts.
      instead: where it lacks what is fitted, how to get a table that has it.
      table: whether it can be a table of runs at all.
    """

    name: str
    has: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_run: Callable[[str], dict[str, Any]] = _nothing
    one_run: bool = False
    note: str = ""
    instead: str = ""
    table: bool = True

    def found(self, names: Sequence[str]) -> dict[str, tuple[str, float]]:
        """Our name -> the file's and the unit of its numbers, of those that are there."""
        found = {}
        for ours, wanted in self.columns.items():
            for text in wanted:
                factor, _, name = text.rpartition("*")
                theirs = next((n for n in names if n == name or n.endswith(f".{name}")), None)
                if theirs is not None:
                    found[ours] = (theirs, float(factor or 1))
                    break
        return found

    def told(self, found: Mapping[str, tuple[str, float]]) -> str:
        """What was taken for what, in one line."""
        parts = [
            f"{ours} is {f'{factor:g} x ' if factor != 1 else ''}'{theirs}'"
            for ours, (theirs, factor) in found.items()
        ]
        note = f"; {self.note}" if self.note else ""
        return f"read as {self.name}: {', '.join(parts)}{note}"


SHAPES = (
    Shape(
        "nanochat's results.csv",
        (r"^flops_budget$", r"^depth$", r"^num_iterations$", r"^tokens_trained$"),
        {
            "params": ("params_total", "total_params", "num_params"),
            "tokens": ("tokens_trained",),
            "budget": ("flops_budget",),
            "loss": ("val_bpb", "val_loss"),
        },
        sums={
            "params_matmul": ("params_transformer", "params_lm_head"),
            "params_embedding": ("params_wte", "params_value_embeds"),
        },
        note="nanochat's own analysis counts --params=matmul where the file has them",
    ),
    Shape(
        "runs of marin",
        (r"(^|\.)parameter_count$", r"(^|\.)throughput/total_tokens$"),
        {
            "params": ("parameter_count",),
            "tokens": ("throughput/total_tokens",),
            "flops": ("1e9*throughput/total_gflops",),
            "loss": (
                "eval/paloma/c4_en/loss", "eval/paloma/macro_loss", "eval/paloma/c4_en/bpb",
                "eval/macro_loss", "eval/loss", "eval/bpb",
            ),
            "learning_rate": ("optimizer.learning_rate", "learning_rate"),
        },
    ),
    Shape(
        "runs of the OLMo ladder",
        (r"^_step$", r"^throughput/total_tokens$", r"^eval/.+/CrossEntropyLoss$"),
        {
            "params": ("params",),
            "tokens": ("throughput/total_tokens",),
            "flops": ("1e9*throughput/total_training_Gflops",),
            "loss": ("eval/c4_en-validation/CrossEntropyLoss",
                     "eval/all-validation/CrossEntropyLoss"),
            "learning_rate": ("learning_rate_peak",),
            "step": ("_step",),
        },
        of_run=_by_ladder,
        one_run=True,
        note="params are those that the ladder states for the size in a file's name",
    ),
    Shape(
        "trainer_state.json of Hugging Face",
        (r"^total_flos$", r"^global_step$", r"^(eval_)?loss$"),
        {
            "tokens": ("num_input_tokens_seen",),
            "flops": ("total_flos",),
            "loss": ("eval_loss", "loss"),
            "step": ("step",),
            "learning_rate": ("peak_learning_rate",),
        },
        one_run=True,
        note="its FLOPs are 6 N D with N outside the embedding, so N is that",
        instead="a trainer_state.json has tokens only where the run was trained with "
        "include_num_input_tokens_seen=True: else make a table with a row per run",
    ),
    Shape(
        "results of lm-eval",
        (rf"^{LM_EVAL}$",),
        one_run=True,
        instead="results of lm-eval have no tokens and no loss: give them or their folder behind a "
        "table of the runs, --runs=TABLE,RESULTS",
        table=False,
    ),
    Shape(
        "a table of W&B's runs",
        (r"^Name$", r"^(State|Runtime|Created|Sweep|End Time)$"),
        {"run_id": ("Name",), "status": ("State",)},
        instead="in W&B's table of runs show the columns of parameters, tokens and the loss, then "
        "export it as CSV",
    ),
    Shape(
        "a chart of W&B",
        (r" - .+__(MIN|MAX)$|^(Step|.*_step|Wall Time|Relative Time.*)$", r"^.+ - .+$"),
        instead="a chart of W&B has a column per run: download the table of runs (CSV) instead, "
        "with parameters, tokens and the loss among its columns",
        table=False,
    ),
    Shape(
        "curves of TensorBoard",
        (r"^[Ss]tep$", r"^[Vv]alue$", r"^([Tt]ag|[Ww]all[ _]time)$"),
        instead="curves of TensorBoard say no sizes of runs: make a table with a row per run, or a "
        "row per step with a column run_id, with parameters, tokens and the loss as columns",
        table=False,
    ),
)  # fmt: skip


def shape_of(names: Iterable[str]) -> Shape | None:
    """The first shape whose columns are there."""
    names = list(names)
    return next(
        (
            shape
            for shape in SHAPES
            if all(any(re.search(pattern, name) for name in names) for pattern in shape.has)
        ),
        None,
    )


# Names that say nothing of a run, since every run has them.
_EVERYWHERE = re.compile(
    r"^(trainer_state|tracker_metrics|metrics|summary|(eval_)?results?(_\d{4}-.+)?|checkpoint-\d+|)$"
)


def run_of(path: PurePath, folder: PurePath | None = None) -> str:
    """The run that a file is of: the name of the file, or of the folder that tells runs apart.

    Below `folder` all the names on the way to it tell.
    """
    below = path.relative_to(folder) if folder else path
    parts = (*below.parts[:-1], path.stem)
    telling = [part for part in parts if not _EVERYWHERE.match(part)]
    if not telling:
        return run_of(path) if folder else path.stem
    return "/".join(telling) if folder else telling[-1]


def document(data: Any, path: PurePath) -> list[dict[str, Any]] | None:
    """The rows of a JSON document that is one run's; None for any other."""
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("log_history"), list) and "total_flos" in data:
        return _trainer_state(data, run_of(path))
    results = data.get("results")
    if isinstance(results, dict) and {"versions", "n-shot", "lm_eval_version"} & set(data):
        return [_lm_eval(data, results, path)]
    return None


def _trainer_state(data: Mapping[str, Any], run: str) -> list[dict[str, Any]]:
    """A row per logged step; tokens and FLOPs of the whole run in proportion to its steps."""
    logged = [entry for entry in data["log_history"] if isinstance(entry, dict)]
    rates = [e["learning_rate"] for e in logged if isinstance(e.get("learning_rate"), int | float)]
    rows: dict[Any, dict[str, Any]] = {}
    last = data.get("global_step")
    for entry in logged:
        step = entry.get("step")
        row = rows.setdefault(step, {"run_id": run, "global_step": last})
        row.update(entry)
        for name in ("num_input_tokens_seen", "total_flos"):
            whole = data.get(name)
            if not _is_count(row.get(name)):  # 0 where nobody counted
                counted = _is_count(step) and _is_count(last) and _is_count(whole)
                row[name] = step / last * whole if counted else None  # type: ignore[operator]
        row["peak_learning_rate"] = max(rates, default=None)
    return list(rows.values())


def _lm_eval(data: Mapping[str, Any], results: Mapping[str, Any], path: PurePath) -> dict[str, Any]:
    """One row: `hellaswag/acc_norm` and the like."""
    config = data.get("config")
    config = config if isinstance(config, dict) else {}
    row: dict[str, Any] = {"run_id": run_of(path), LM_EVAL: path.name}
    if isinstance(name := data.get("model_name"), str) and name:
        row["model_name"] = name
    if _is_count(count := config.get("model_num_parameters")):
        row["params"] = count
    for task, measured in results.items():
        for metric, value in measured.items() if isinstance(measured, dict) else ():
            if isinstance(value, int | float):
                row[f"{task}/{metric.removesuffix(',none')}"] = value
    return row


def _is_count(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
