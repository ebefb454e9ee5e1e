"""A table of branches: trunks are resampled, and a sum of FLOPs counts none twice."""

import csv

import numpy as np
import pytest

from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.report import summary
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.fitting.test_chance import noisy, table
from tests.scaling.known import TRUE


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """(with its trunks, the same rows without)."""
    budget, n, d, trunk = table(near=4.0)
    loss = TRUE.loss(n, d) * noisy(np.random.default_rng(0), trunk, 0.9)
    longest = {t: int(np.argmax(np.where(trunk == t, d, 0))) for t in trunk}
    found = []
    for branches in (True, False):
        file = tmp_path_factory.mktemp("table") / "results.csv"
        with file.open("w", newline="") as out:
            writer = csv.writer(out)
            extra = ("parent_run", "parent_step", "marginal_flops") if branches else ()
            writer.writerow(("run_id", "params", "tokens", "flops", "loss", "seed", *extra))
            for i in range(len(n)):
                of = longest[trunk[i]]
                lineage = ("", "", budget[i]) if of == i else (f"run{of}", 7 + i, budget[i] / 4)
                row = (f"run{i}", n[i], d[i], budget[i], loss[i], 0)
                writer.writerow(row + (lineage if branches else ()))
        found.append(analyse(read_runs(str(file)), Settings(bootstrap=200))[0])
    return found


def test_trunks_and_what_they_share_are_in_the_record(analysed):
    fits, plain = analysed
    told = fits.table.trunks
    assert told.branches + told.trunks <= fits.table.fitted
    assert told.branches > 2 * told.trunks > 4
    budget, _, _, trunk = table(near=4.0)
    of_trunks = sum(max(budget[trunk == t]) for t in set(trunk))  # each once
    assert told.flops == pytest.approx(of_trunks + (sum(budget) - of_trunks) / 4)
    assert told.flops_apart == pytest.approx(sum(budget))
    assert 0.5 < fits.isoflop.noise.shared <= 1
    assert plain.table.trunks is None and plain.isoflop.noise.shared is None
    assert from_json(Fits, to_json(fits), "fits").table.trunks == told
    # The same optimum, and other intervals.
    assert fits.parametric.a == plain.parametric.a and fits.isoflop.a == plain.isoflop.a
    assert fits.parametric.interval["a"] != plain.parametric.interval["a"]
    assert fits.isoflop.interval["a"] != plain.isoflop.interval["a"]


def test_the_report_says_that_trunks_are_resampled(analysed):
    fits, plain = analysed
    note = summary.exponents(fits).note
    told = fits.table.trunks
    assert f"{told.branches} runs are branches of {told.trunks} trunks" in note
    assert "so that trunks are resampled, and not runs. They cost " in note
    assert "trunks" not in summary.exponents(plain).note
