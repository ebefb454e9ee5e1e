"""Whether two checkouts say the same: every number of fits.json, every figure of results.csv.

    python tests/benchmarks/same_numbers.py --before=../before --tables=runs/quickstart,fig4.csv
    python tests/benchmarks/same_numbers.py --results=../before/runs/quickstart,runs/quickstart

Each checkout has a .venv of its own (./launch/setup.sh). Numbers are compared to the last digit by
their place in the file; what only one of them has is counted and named, times are left out. The
exit status is 1 where a number differs.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What the same run measures otherwise each time, and on which code it was planned.
TIMES = {"wall_seconds", "tokens_per_second", "mfu", "input_share", "joules_gpu", "joules_cpu",
         "joules_memory", "joules_estimated", "config_fingerprint"}  # fmt: skip
SHOWN = 12


def fits(checkout: Path, table: Path, flags: list[str]) -> dict[str, Any]:
    """The fits.json of a table by `checkout`."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [checkout.absolute() / ".venv/bin/python", "-m", "chinchilla_jax.evaluate",
             f"--runs={table.absolute()}", f"--out={folder}", "--nofigures", *flags],
            cwd=checkout, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads((Path(folder) / "fits.json").read_text())


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text and null of a JSON value by its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def rows(workdir: Path) -> dict[str, Any]:
    """The cells of results.csv by run and column, empty ones as none."""
    with (workdir / "results.csv").open() as lines:
        return {
            f"{row['run_id']}.{name}": _number(cell)
            for row in csv.DictReader(lines)
            for name, cell in row.items()
            if name not in TIMES
        }


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell or None


def compare(title: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Prints what differs; whether no number does."""
    both = before.keys() & after.keys()
    different = [k for k in before if k in both and before[k] != after[k]]

    def numeric(key: str) -> bool:
        return any(isinstance(x, (int, float)) for x in (before[key], after[key]))

    wrong = [k for k in different if numeric(k) and k != "version"]
    print(f"{title}: {sum(map(numeric, both))} numbers in both, {len(wrong)} differ")
    for key in [*wrong[:SHOWN], *(k for k in different if k not in wrong)][:SHOWN]:
        print(f"  {key}: {before[key]!r} -> {after[key]!r}")
    for name, only in (("before", before.keys() - both), ("after", after.keys() - both)):
        groups = sorted({key.partition("[")[0].partition(".")[0] for key in only})
        print(f"  only {name}: {len(only)} ({', '.join(groups[:SHOWN])})")
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, default=Path())
    parser.add_argument("--after", type=Path, default=Path())
    parser.add_argument(
        "--tables", type=lambda text: [Path(x) for x in text.split(",")], default=[]
    )
    parser.add_argument("--results", type=lambda text: [Path(x) for x in text.split(",")])
    arguments, flags = parser.parse_known_args()
    same = True
    for table in arguments.tables:
        found = [dict(leaves(fits(c, table, flags))) for c in (arguments.before, arguments.after)]
        same &= compare(table.name, *found)
    if arguments.results:
        before, after = map(rows, arguments.results)
        same &= compare("results.csv", before, after)
    sys.exit(not same)


if __name__ == "__main__":
    main()
