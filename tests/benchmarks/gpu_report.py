"""The table of what `gpu.sh` measured, in Markdown, and which bars were met.

    python tests/benchmarks/gpu_report.py runs/gpu

Reads the results that are in the folder: a part that was not run, or not to its end, is said to be
missing and none of its figures is made up.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment.numbers import count

Results = dict[str, Any]  # the content of each part's file, by the part's name
UNFINISHED = ".part"

BESIDE_PYTORCH = 1.0  # tokens/s of PyTorch, at least; 1.15 is the aim
MFU, MFU_SIZE = 0.5, "1.3b"
MEMORY = 0.1  # of the plan, either way
CELLS, CELLS_GAIN = "4", 2.5
THROUGHPUT = "throughput-"


@dataclass(frozen=True)
class Bar:
    """What was asked and what was found; None where it was not measured."""

    what: str
    found: str
    met: bool | None


def read(folder: Path) -> Results:
    """The results in `folder`; of a part that did not end, what it had written."""
    results: Results = {}
    for suffix in (UNFINISHED, ""):  # whole ones over others
        for path in sorted(folder.glob(f"*.json{suffix}")):
            results[path.name.partition(".json")[0]] = json.loads(path.read_text())
    return results


def sizes(results: Results) -> dict[str, dict[str, Any]]:
    """The row of each size that was trained, with the peak of its device."""
    return {
        name: row | {"peak_flops": part["peak_flops"]}
        for key, part in results.items()
        if key.startswith(THROUGHPUT)
        for name, row in part["sizes"].items()
    }


def ratio(row: dict[str, Any]) -> float | None:
    """Our tokens/s over PyTorch's."""
    seconds = row["step_seconds"]
    return seconds["theirs"] / seconds["ours"] if len(seconds) == 2 else None


def mfu(row: dict[str, Any], who: str = "ours") -> float | None:
    """Share of the data sheet's peak."""
    if row["peak_flops"] is None or who not in row["step_seconds"]:
        return None
    return row["step_flops"] / row["step_seconds"][who] / row["peak_flops"]


def off_plan(row: dict[str, Any]) -> float | None:
    """Memory over the plan's, less one."""
    return row["memory"]["ours"] / row["plan"]["memory"] - 1 if row["plan"] else None


OF_A_SIZE: tuple[tuple[str, Callable[..., float | None], str, Callable[[float], bool]], ...] = (
    (f"at least {BESIDE_PYTORCH} x PyTorch", ratio, ".2f", lambda x: x >= BESIDE_PYTORCH),
    (f"at least {MFU:.0%} MFU", mfu, ".1%", lambda x: x >= MFU),
    (f"memory within {MEMORY:.0%} of the plan", off_plan, "+.1%", lambda x: abs(x) <= MEMORY),
)


def bars(results: Results) -> list[Bar]:
    """All bars, in the order of the parts."""
    checks = results.get("correctness", {}).get("checks")
    met = checks and sum(check["met"] for check in checks)
    found = f"{met} of {len(checks)}" if checks else "-"
    listed = [Bar("every check of correctness", found, checks and met == len(checks))]
    for name in ("30m", "124m", "350m", "1.3b"):
        row = sizes(results).get(name)
        for what, function, form, passes in OF_A_SIZE:
            if function is not mfu or name == MFU_SIZE:
                listed.append(bar(f"{name}: {what}", row and function(row), form, passes))
    rates = results.get("cells", {}).get("rates", {})
    gain = rates[CELLS] / rates["1"] if {CELLS, "1"} <= rates.keys() else None
    what = f"{CELLS} cells on the GPU at least {CELLS_GAIN} x one"
    listed.append(bar(what, gain, ".2f", lambda x: x >= CELLS_GAIN))
    return listed


def bar(what: str, value: float | None, form: str, passes: Callable[[float], bool]) -> Bar:
    """A bar, not measured where `value` is None."""
    if value is None:
        return Bar(what, "-", None)
    return Bar(what, format(value, form), passes(value))


def table(head: str, rows: list[list[str]]) -> Iterator[str]:
    """A table of Markdown and the empty line after it."""
    yield f"| {head} |"
    yield "|" + "---|" * (head.count("|") + 1)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def cell(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)


def speeds(rows: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    """A line of each size."""
    for name, row in rows.items():
        seconds, memory, plan = row["step_seconds"], row["memory"], row["plan"] or {}
        tokens = {who: row["batch"] * row["sequence"] / value for who, value in seconds.items()}
        yield [
            f"{name}, {count(row['params'])}, {row['batch']} x {row['sequence']}",
            cell(tokens.get("ours"), ",.0f"),
            cell(tokens.get("theirs"), ",.0f"),
            cell(ratio(row), ".2f"),
            cell(mfu(row, "ours"), ".1%"),
            cell(mfu(row, "theirs"), ".1%"),
            cell(memory.get("ours"), ".2f", 1e9),
            cell(memory.get("theirs"), ".2f", 1e9),
            cell(plan.get("memory"), ".2f", 1e9),
            cell(seconds.get("ours"), ".1f", 1e-3),
            cell(plan.get("step_seconds"), ".1f", 1e-3),
        ]


def unmet(results: Results) -> Iterator[str]:
    """A list of the checks that were not met, and the empty line after it."""
    checks = [c for c in results.get("correctness", {}).get("checks", ()) if not c["met"]]
    for check in checks:
        found = "not computed" if check["error"] is None else f"{check['error']:.2g}"
        limit = f"at most {check['tolerance']:g}. {check['reason']}"
        yield f"* {check['name']}: {found}, {limit}".strip()
    if checks:
        yield ""


def origin(part: dict[str, Any]) -> str:
    """Where and when a part was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    return f"{part['device']}, {part['date']}, {versions}"


def lines(results: Results) -> Iterator[str]:
    """The report."""
    if not results:
        yield "No bar was measured."
        return
    origins = {name: origin(part) for name, part in results.items()}
    for found in dict.fromkeys(origins.values()):
        parts = ", ".join(name for name in origins if origins[name] == found)
        # Figures of several machines are told apart.
        yield f"{found}; `tests/benchmarks/gpu.sh`: {parts}"
        yield ""
    words = {True: "met", False: "**not met**", None: "not measured"}
    yield from table(
        "bar | found | verdict", [[b.what, b.found, words[b.met]] for b in bars(results)]
    )
    yield from unmet(results)
    if rows := list(speeds(sizes(results))):
        yield from table(
            "size, parameters, batch | tokens/s | PyTorch | ratio | MFU | PyTorch | GB | PyTorch "
            "| plan | ms a step | plan",
            rows,
        )
    if cells := results.get("cells"):
        rates = cells["rates"]
        yield f"Cells of {cells['size']} on one device, {cells['batch']} tokens a step:"
        yield ""
        rows = [[n, f"{rate:,.0f}", f"{rate / rates['1']:.2f}"] for n, rate in rates.items()]
        yield from table("cells | tokens/s together | of one", rows)
    if profile := results.get("profile"):
        step, kinds = profile["step_seconds"], profile["kinds"]
        yield f"A step of {profile['size']}, {1e3 * step:.1f} ms, by what its kernels do:"
        yield ""
        rows = [[kind, f"{1e3 * s:.1f}", f"{s / step:.1%}"] for kind, s in kinds.items()]
        yield from table("kernels | ms | of the step", rows)


def main() -> None:
    if len(sys.argv) != 2 or not (folder := Path(sys.argv[1])).is_dir():
        sys.exit("usage: python tests/benchmarks/gpu_report.py FOLDER of results")
    print("\n".join(lines(read(folder))))
    texts = {}
    for suffix in (UNFINISHED, ""):
        for path in sorted(folder.glob(f"techniques-*.txt{suffix}")):
            texts[path.name.partition(".txt")[0]] = path.read_text().strip()
    for text in texts.values():
        print("```", text, "```", "", sep="\n")


if __name__ == "__main__":
    main()
