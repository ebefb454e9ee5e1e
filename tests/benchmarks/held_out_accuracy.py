"""How forecasts of accuracy fare on the largest runs of tables: how many lie inside an interval.

    python tests/benchmarks/held_out_accuracy.py [TABLE[:COLUMNS[:WHERE]] ...]

By default the tables of ../shared/data that have accuracies, where they are. COLUMNS and WHERE are
those of evaluate, as loss=c4_loss and train=rpj.
"""

import sys
from pathlib import Path

import numpy as np

from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.sections.downstream import downstream
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where
from chinchilla_jax.scaling.table.read import read_runs

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TABLES = (
    f"{DATA / 'olmo_ladder.csv'}:loss=c4_loss",
    *(f"{DATA / 'gadre_overtraining.csv'}:loss=loss_c4_val:train={t}"
      for t in ("rpj", "c4_original", "rw_original")),
)  # fmt: skip


def pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if part)


@silent()
def main() -> None:
    inside, widths, errors = [], [], []
    for table in sys.argv[1:] or TABLES:
        path, columns, picked = [*table.split(":"), "", ""][:3]
        if not Path(path).exists():
            print(f"{path}: not here")
            continue
        runs = where(read_runs(path, pairs(columns)), pairs(picked)).best()
        tasks = downstream(runs, (), Settings(), np.random.default_rng(0))
        rows = [row for task in tasks for row in task.checked if row.inside is not None]
        inside += [row.inside for row in rows]
        widths += [row.interval[1] - row.interval[0] for row in rows if row.interval]
        errors += [row.predicted - row.observed for row in rows]
        print(f"{Path(path).name} {picked}: {sum(r.inside for r in rows)} of {len(rows)} inside")
    if inside:
        print(
            f"{sum(inside)} of {len(inside)} inside; median width {np.median(widths):.3f}, "
            f"rms error {np.sqrt(np.mean(np.square(errors))):.3f}"
        )


if __name__ == "__main__":
    main()
