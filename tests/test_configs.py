"""Every experiment in configs/: it loads, it plans, and the plan is what its docstring says."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.experiment import grid, ladder, recipe
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.rows import completed, row_of
from chinchilla_jax.experiment.sizes import BUDGET_TOLERANCE
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.ruler.league import league
from chinchilla_jax.scaling.ruler.panel import is_panel, panel
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs

FOLDER = Path("configs")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def planned(name, **arguments):
    cells = grid.plan(load_experiment(f"{FOLDER / name}.py"), **arguments)
    return [cell for cell in cells if cell.status == "planned"]


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_and_says_how_to_run_it(name):
    path = FOLDER / f"{name}.py"
    experiment = load_experiment(str(path))
    assert experiment.name == name
    assert f"--config={path}" in ast.get_docstring(ast.parse(path.read_text()))
    cells = planned(name)
    assert {cell.run.budget for cell in cells} == set(experiment.budgets)
    for cell in cells:
        passes = ledger(cell.run).training  # a budget buys those of the trained model
        flops = passes["forward"] + passes["backward"]
        if cell.run.flops_convention != "matmul":
            flops = cell.flops
        assert flops == pytest.approx(cell.run.budget, rel=BUDGET_TOLERANCE)


def by_budget(cells):
    groups = {}
    for cell in cells:
        groups.setdefault(cell.run.budget, []).append(cell)
    return groups


@pytest.fixture(scope="module")
def cells():
    return planned("chinchilla")


class TestChinchilla:
    """Hoffmann et al. 2022, arXiv 2203.15556."""

    def test_nine_budgets_around_the_optimum_of_all_three_approaches(self, cells):
        groups = by_budget(cells)
        assert list(groups) == [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
        for budget, group in groups.items():
            tokens = [cell.tokens for cell in group]
            for law in ("hoffmann", "hoffmann_1", "hoffmann_2"):
                optimum = float(law_named(law).optimum(budget).tokens)
                assert 2 * min(tokens) < optimum < max(tokens) / 2, (budget, law)
            assert len(group) > 10

    def test_sizes_and_tokens_are_those_of_the_paper(self, cells):
        """From 44M to 16B parameters (Table A9); tokens of the 245 runs of its figure 4.

        Read off by Besiroglu et al. 2024, arXiv 2404.10102.
        """
        assert {cell.run.sequence_length for cell in cells} == {2048}
        assert {cell.run.model.vocab_size for cell in cells} == {32000}
        sizes = [cell.params for cell in cells]
        assert min(sizes) > 44e6 and max(sizes) == pytest.approx(16183e6, rel=0.008)
        tokens = [cell.tokens for cell in cells]
        assert min(tokens) > 2.45e8 and max(tokens) < 3.178e11
        for cell in cells:  # 6 N D is near the convention of appendix F (Table A4)
            assert 0.9 < cell.flops / (6 * cell.params * cell.tokens) < 1.7

    @pytest.mark.parametrize(
        "width,tokens,low,high,rate",
        [
            (2560, 6e10, 0.5e6, 0.55e6, 1.5e-4),  # D.4: 2.80B at 1e21 FLOPs
            (8192, 1.4e12, 1.5e6, 3e6, 1e-4),  # Table 4: Chinchilla
        ],
    )
    def test_batch_and_rate_go_through_the_published_points(self, width, tokens, low, high, rate):
        rules = load_experiment("configs/chinchilla.py").recipe
        batch = recipe.batch_size(tokens, rules)
        assert low <= batch * 2048 <= high
        at_width = recipe.learning_rate(batch, rules) * rules.base_width / width  # muP
        assert at_width == pytest.approx(rate, rel=0.05)

    def test_the_rate_of_gopher_at_its_own_batch_is_within_a_half(self):
        """Table 4: 280B, width 16384, 4e-5 at 3M tokens; extrapolated ten-fold in width."""
        rules = load_experiment("configs/chinchilla.py").recipe
        rate = recipe.learning_rate(round(3e6 / 2048), rules) * rules.base_width / 16384
        assert abs(math.log(rate / 4e-5)) < math.log(1.5)


class TestGpuSingle:
    def test_an_hour_of_one_gpu_at_forty_percent(self):
        cells = planned("gpu_single")
        assert sum(cell.flops for cell in cells) / (0.4 * 989e12) < 2700
        assert [len(group) for group in by_budget(cells).values()] == [6, 6, 5, 1]

    def test_150_megabytes_of_text_are_enough_and_50_are_not(self):
        assert planned("gpu_single", train_tokens=150_000_000) == planned("gpu_single")
        assert len(planned("gpu_single", train_tokens=50_000_000)) < 18

    def test_every_curve_has_the_expected_optimum_inside(self):
        for budget, cells in list(by_budget(planned("gpu_single")).items())[:3]:
            ratios = [cell.tokens / cell.params for cell in cells]
            assert min(ratios) < 10 and max(ratios) > 30, budget


def test_gopher_vs_chinchilla_trains_the_picks_of_the_two_laws():
    """N = N_0 (C / C_0)^a with a of either paper: Kaplan .73, approach 1 .50 (Table 2)."""
    cells = planned("gopher_vs_chinchilla")
    sizes = sorted({cell.params for cell in cells})
    assert len(sizes) == 2 and len(cells) == 2 * 3
    ratio = cells[0].run.budget / 1e11
    picks = [30e3 * ratio**a for a in (0.50, 0.73)]
    np.testing.assert_allclose(sizes, picks, rtol=0.1)
    assert len({cell.run.budget for cell in cells}) == 1


def test_table_a9_keeps_the_proportions_of_the_table():
    shapes = ladder.trained_shapes(load_experiment("configs/table_a9.py"))
    table = ladder.read_table("chinchilla_table_a9")
    assert shapes[0].depth == table[0].depth == 8
    proportions = {(s.depth, s.heads, s.ff_size / s.width) for s in table}
    assert {(s.depth, s.heads, s.ff_size / s.width) for s in shapes} <= proportions


# What each setting of the panel is taken to be worth in training tokens.
WORTH = {
    "sparse_50": 0.8, "sparse_75": 0.6, "distilled": 1.5, "four_bits": 0.9,
    "sparse_75_four_bits": 0.54, "distilled_four_bits": 1.35, "one_of_four": 1.5,
    "two_of_eight": 1.6, "wider": 1.1, "deeper": 0.8, "feed_forward": 1.05, "one_kv_head": 0.95,
    "curated": 0.9, "random": 1.0, "repeated": 0.85, "noise": 0.72, "mixed": 0.55, "begun": 1.3,
}  # fmt: skip
STARTS = {"techniques": "c_source", "techniques_gpu": "other"}


@pytest.mark.parametrize(("name", "flops"), [("techniques", 1.94e14), ("techniques_gpu", 6.2e19)])
def test_every_technique_is_measured_by_dense_runs_of_its_size_budget_text_and_seed(name, flops):
    """Runs of a known law: the league table has each setting once, and what it is worth."""
    cells, rows = planned(name), []
    assert sum(cell.flops for cell in cells) == pytest.approx(flops, rel=0.01)
    assert f"{flops:g}".replace("+", "") in (FOLDER / f"{name}.py").read_text()
    middle = np.exp(np.mean([np.log((cell.params, cell.tokens)) for cell in cells], axis=0))
    for cell in cells:
        row, setting = row_of(cell.run), cell.run.panel
        n, d = np.array([row["params_active"], row["tokens"] * WORTH.get(setting, 1.0)]) / middle
        text = {"mixed": "a+b", STARTS[name]: "b"}.get(setting, "a")
        row |= {"status": "done", "data_fingerprint": text, "tokenizer_fingerprint": "bytes"}
        rows.append(row | {"loss": 1.0 + 0.4 * n**-0.4 + 0.4 * d**-0.4})
    runs = read_runs(completed(rows))
    assert is_panel(runs)
    found, _ = league(panel(runs), Settings(bootstrap=0))
    assert {one.panel for one in (cell.run for cell in cells)} == {"", STARTS[name], *WORTH}
    worth = sorted(map(_tokens, found.standings))  # a router is no part of the law's parameters
    assert worth == pytest.approx(sorted(WORTH.values()), rel=0.02)
    for one in found.standings:
        assert one.paired == one.runs and one.runs == 2 * one.cells
        assert one.cells == 6
    stacks = [one for one in found.standings if one.parts]
    assert len(stacks) == 2 and all(len(one.parts) == 2 for one in stacks)
    assert all("different cells" in said for said in found.warnings)


def _tokens(standing):
    return next(m.value for m in standing.multipliers if m.measure == "tokens")


def test_data_quality_has_every_setting_beside_the_whole_text_at_its_size_tokens_and_seed():
    cells = planned("data_quality")
    run_of = {cell.run.run_id: cell.run for cell in cells}
    names = load_experiment("configs/data_quality.py").panel
    for name in names:
        beside = [run for run_id, run in run_of.items() if f"-{name}-" in run_id]
        assert len(beside) == 8
        for run in beside:
            whole = run_of[run.run_id.replace(f"{name}-", "")]
            assert (whole.model, whole.tokens, whole.seed) == (run.model, run.tokens, run.seed)
            assert whole.data == run.data  # held out alike
    repeats = [run.tokens / 32768 for run_id, run in run_of.items() if "repeated" in run_id]
    assert 2.5 < min(repeats) < 3 and 14 < max(repeats) < 14.5


def test_kaplan_explained_corrects_one_thing_at_a_time():
    """The same sizes and, but for whole steps, tokens in all four sets of runs."""
    sets = {}
    for cell in planned("kaplan_explained"):
        run = cell.run
        sets.setdefault(run.panel, {})[run.budget, run.model.width] = run
    assert list(sets) == ["", "as_kaplan", "warm_up", "decay"]
    plain, kaplan, warm_up, decay = sets.values()
    assert plain.keys() == kaplan.keys() == warm_up.keys() == decay.keys()
    for place, run in kaplan.items():
        others = (warm_up[place], decay[place])
        for other in (*others, plain[place]):
            assert other.tokens == pytest.approx(run.tokens, rel=0.02)
        assert {(r.batch_size, r.optimizer.learning_rate) for r in (run, *others)} == {(16, 6e-3)}
        assert run.optimizer.warmup_fraction == min(1e5 / run.tokens, 0.9)
        assert [r.optimizer.schedule for r in (run, *others)] == ["wsd", "wsd", "linear"]
        assert run.optimizer.cooldown_fraction == others[0].optimizer.cooldown_fraction == 0
        assert {r.optimizer.warmup_fraction for r in others} == {0.2}
    assert len({run.batch_size for run in plain.values()}) > 4


def test_tuning_varies_rate_and_batch_apart_in_every_cell():
    cells = {}
    for cell in planned("tuning"):
        run = cell.run
        key = run.budget, run.model.width
        cells.setdefault(key, set()).add((run.batch_size, run.lr_multiplier))
    assert len(cells) == 12
    for found in cells.values():
        batches, rates = ({pair[i] for pair in found} for i in (0, 1))
        assert len(batches) >= 2 and len(rates) == 4 and len(found) == len(batches) * len(rates)
