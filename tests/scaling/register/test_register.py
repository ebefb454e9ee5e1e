"""A forecast frozen before its runs: what is written, and what is refused."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from chinchilla_jax.experiment import faults, ladder
from chinchilla_jax.experiment import grid as grids
from chinchilla_jax.experiment.config import LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.scaling import fits as record
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.design.next_runs import next_runs
from chinchilla_jax.scaling.fits import read as read_fits
from chinchilla_jax.scaling.forecast.frontier import from_fits
from chinchilla_jax.scaling.forecast.questions import at_flops
from chinchilla_jax.scaling.forecast.runs import noise_of_seeds
from chinchilla_jax.scaling.register import registration
from chinchilla_jax.scaling.register.register import register
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.register.known import TEXT, grid_in, plan_in, quickstart, report, train
from tests.scaling.sweeps import true_loss


@pytest.fixture(scope="module")
def fits(grid):
    return grid


@pytest.fixture(scope="module")
def made(fits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    files = folder / "one.json", folder / "check_1e13.py"
    return register(fits, 1e13, *files, seeds=2), *files


def test_it_says_what_the_fits_say(made, fits):
    known, file, _ = made
    answer = at_flops(from_fits(read_fits(fits)), 1e13)
    assert (known.params.value, known.params.interval) == (answer.params, answer.interval["params"])
    assert (known.loss.value, known.loss.interval) == (answer.loss, answer.interval["loss"])
    assert registration.read(file) == known
    assert known.decades == pytest.approx(math.log10(1e13 / 3e12), abs=0.01)
    assert known.basis.runs == 24 and known.corpus.data_fingerprint == TEXT
    slope = math.log(true_loss(4e5, 4.2e6 * 10**0.5) / true_loss(4e5 / 10**0.5, 4.2e6))
    assert known.slope == pytest.approx(slope / math.log(10), rel=0.5) and known.slope < 0


def test_the_config_trains_the_best_size_and_its_neighbours(made, fits):
    known, file, config = made
    experiment = load_experiment(str(config))
    assert experiment.forecast == json.loads(file.read_text())["digest"]
    assert dataclasses.replace(experiment, forecast="") == known.experiment
    cells = [cell for cell in grids.plan(experiment) if cell.status == "planned"]
    assert [fingerprint(cell.run) for cell in cells] == [run.fingerprint for run in known.runs]
    assert {cell.run.budget for cell in cells} == {1e13}
    assert {cell.run.forecast for cell in cells} == {experiment.forecast}
    sizes = sorted({run.size for run in known.runs})
    for wanted, size in zip((0.5, 0.5**0.5, 1, 2**0.5, 2), sizes, strict=True):
        assert size == pytest.approx(wanted, rel=0.3)
    assert sorted(run.seed for run in known.runs) == [0] * 5 + [1] * 5
    plan = json.loads((fits.parent.parent / "plan.json").read_text())["experiment"]
    for group in ("recipe", "training", "measurement"):
        assert getattr(experiment, group) == getattr(quickstart(), group), group
        assert group in plan
    assert experiment.data == dataclasses.replace(quickstart().data, fingerprint=TEXT)


def test_a_run_is_forecast_where_the_law_has_it(made):
    known, *_ = made
    for run in known.runs:
        expected = known.loss.value * true_loss(run.params, run.tokens)
        middle = min(known.runs, key=lambda run: abs(math.log(run.size)))
        expected /= true_loss(middle.params, middle.tokens)
        assert run.loss.value == pytest.approx(expected, rel=0.01)
        low, high = run.loss.interval
        assert low < run.loss.value < high
        width = math.log(high / low)  # chance, form and the scatter of one run
        assert width > math.log(known.loss.interval[1] / known.loss.interval[0])


def test_a_registered_forecast_is_never_changed(made, fits, tmp_path):
    _, file, config = made
    before = file.read_bytes()
    for target in (config, tmp_path / "other.py", None):
        with pytest.raises(UserError, match="is there already"):
            register(fits, 1e13, file, target, seeds=2)
    assert file.read_bytes() == before and not (tmp_path / "other.py").exists()


def test_an_interrupted_registration_goes_on(made, fits, tmp_path):
    _, file, config = made
    (tmp_path / "one.json").write_bytes(file.read_bytes())  # killed before the second file
    register(fits, 1e13, tmp_path / "one.json", tmp_path / "check_1e13.py", seeds=2)
    written = (tmp_path / "check_1e13.py").read_text()
    assert written == config.read_text().replace(str(file.parent), str(tmp_path))
    (tmp_path / "check_1e13.py").unlink()
    for changed in ({"seeds": 1}, {"flops": 2e13}):
        with pytest.raises(UserError, match="never changed"):
            arguments = {"flops": 1e13, "seeds": 2} | changed
            register(fits, arguments["flops"], tmp_path / "one.json",
                     tmp_path / "check_1e13.py", seeds=arguments["seeds"])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("fits", 5), ("fits", None), ("file", 1.5), ("config", 3), ("flops", "1e13"), ("flops", True),
     ("flops", float("nan")), ("flops", -1e13), ("seeds", 1.5), ("seeds", 0), ("form", 3),
     ("where", ["bits"]), ("where", {"bits": 4}), ("like", "quickstart")],
)  # fmt: skip
def test_an_argument_of_another_kind_is_told_by_name(name, value, tmp_path):
    given = {"fits": tmp_path, "flops": 1e13, "file": tmp_path / "one.json"} | {name: value}
    with pytest.raises(UserError, match=f"^{name} = ") as told:
        register(**given)
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["value", "order", "space"])
def test_a_changed_file_is_refused(made, tmp_path, change):
    _, file, _ = made
    data = json.loads(file.read_text())
    if change == "value":
        data["loss"]["interval"][1] *= 1.001
    if change == "order":
        data = dict(reversed(data.items()))
    (tmp_path / "one.json").write_text(json.dumps(data))
    if change == "value":
        with pytest.raises(UserError, match="was changed after it was registered"):
            registration.read(tmp_path / "one.json")
    else:
        assert registration.read(tmp_path / "one.json") == made[0]


@pytest.mark.parametrize("content", ["{}", "[]", '{"digest": "1"}', '{"version": 1}'])
def test_what_is_no_registration_is_refused(tmp_path, content):
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(UserError, match="is no registered forecast"):
        registration.read(tmp_path / "one.json")


def refused(fits, words, tmp_path, flops=1e13, config="check.py", **arguments):
    with pytest.raises(UserError, match=words):
        register(fits, flops, tmp_path / "one.json", tmp_path / config, **arguments)
    assert not list(tmp_path.iterdir())  # nothing half-written


@pytest.mark.parametrize("flops", [1e12, 3e12])
def test_a_target_below_the_data_is_refused(fits, tmp_path, flops):
    refused(fits, r"have runs of 3e12 FLOPs.*larger budget", tmp_path, flops)


def test_a_name_that_is_no_module_is_refused(fits, tmp_path):
    refused(fits, "give a Python file", tmp_path, config="check 1.py")
    refused(fits, "give a Python file", tmp_path, config="check.json")


def test_a_refused_fit_is_refused_in_its_words(tmp_path):
    few = grid_in(tmp_path / "few", quickstart(budgets=(1e11, 3e11)))
    (tmp_path / "out").mkdir()
    fits = read_fits(few)
    if fits.sources.minima is None and fits.sources.surface is None:
        refused(few, "needed|fitted", tmp_path / "out")
    with pytest.raises(UserError, match="budgets have a minimum"):
        register(few, 1e13, tmp_path / "out" / "one.json", form="loss_law")


def test_without_draws_there_is_nothing_to_register(copied, tmp_path):
    without = dataclasses.replace(read_fits(copied), draws=record.Draws(None, None))
    record.write(copied, without)
    (tmp_path / "out").mkdir()
    refused(copied, "no bootstrap draws.*--bootstrap", tmp_path / "out")


def test_a_form_without_draws_points_to_the_other(fits, tmp_path):
    refused(fits, "no bootstrap draws of form surface.*--form=loss_law", tmp_path, form="surface")


@pytest.fixture
def copied(fits, tmp_path):
    """The grid to be changed; its fits.json."""
    shutil.copytree(fits.parent.parent, tmp_path / "grid")
    file = tmp_path / "grid" / "report" / "fits.json"
    found = read_fits(file)
    moved = dataclasses.replace(found.table, source=str(tmp_path / "grid"))
    record.write(file, dataclasses.replace(found, table=moved))
    return file


def test_fits_of_other_runs_than_there_are_now_are_refused(copied, tmp_path):
    more = plan_in(tmp_path / "grid", quickstart(budgets=(1e11, 3e11, 1e12, 3e12, 6e12)))
    train(tmp_path / "grid", [cell for cell in more if cell.run.budget == 6e12])
    (tmp_path / "out").mkdir()
    refused(copied, "made of 24 runs.*evaluate again", tmp_path / "out")


def test_a_folder_that_was_moved_is_found_by_its_report(fits, tmp_path):
    shutil.copytree(fits.parent.parent, tmp_path / "grid")
    found = read_fits(tmp_path / "grid" / "report" / "fits.json")
    away = dataclasses.replace(found.table, source="runs/where_it_was")
    record.write(tmp_path / "grid" / "report" / "fits.json", dataclasses.replace(found, table=away))
    known = register(tmp_path / "grid" / "report", 1e13, tmp_path / "a.json", tmp_path / "a.py")
    assert len(known.runs) == 5


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("recipe", "base_lr", 0.004),
        ("data", "packages", "installed"),
        ("measurement", "eval_windows", 64),
        ("training", "dtype", "float32"),
    ],
)
def test_another_corpus_recipe_or_evaluation_is_refused(fits, tmp_path, group, name, value):
    like = quickstart()
    like = dataclasses.replace(
        like, **{group: dataclasses.replace(getattr(like, group), **{name: value})}
    )
    refused(fits, rf"--config: is of another.*{group}\.{name} was", tmp_path, like=like)


def test_how_it_is_carried_out_may_differ(fits, tmp_path):
    like = quickstart()
    like = dataclasses.replace(like, execution=dataclasses.replace(like.execution, fsdp=2))
    known = register(fits, 1e13, tmp_path / "one.json", tmp_path / "check.py", like=like)
    assert known.experiment.execution.fsdp == 2
    assert load_experiment(str(tmp_path / "check.py")).execution.fsdp == 2


def test_runs_of_another_model_version_are_refused(copied, tmp_path):
    plan = tmp_path / "grid" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"model_version": 2}))
    (tmp_path / "out").mkdir()
    refused(copied, f"model version 2.*this version trains {MODEL_VERSION}", tmp_path / "out")
    register(copied, 1e13, tmp_path / "out" / "one.json")  # the forecast alone


def test_runs_of_another_shape_than_the_recipe_gives_are_refused(copied, tmp_path):
    file = tmp_path / "grid" / "plan.json"
    content = json.loads(file.read_text())
    for cell in content["cells"]:
        if cell["run"]["model"]["width"] == 24:
            cell["run"]["model"] |= {"heads": 1, "kv_heads": 1, "head_size": 24}
    file.write_text(json.dumps(content))
    (tmp_path / "out").mkdir()
    told = "its 24x3 has heads = 1, and this version's recipe gives 2: what would be trained"
    refused(copied, told, tmp_path / "out")
    with pytest.raises(UserError, match=told):
        next_runs(tmp_path / "grid", 1e13, settings=Settings(bootstrap=200))
    register(copied, 1e13, tmp_path / "out" / "one.json")  # the forecast alone


def test_a_size_that_the_ladder_lacks_is_refused(tmp_path):
    grid_of = quickstart()
    shapes = tuple(ladder.trained_shapes(grid_of))
    fits = grid_in(tmp_path / "grid", quickstart(ladder=LadderConfig(
        shapes=shapes[:7], min_tokens_per_param=0.3)))  # fmt: skip
    (tmp_path / "out").mkdir()
    refused(fits, "the nearest shape of the ladder has", tmp_path / "out", flops=1e14)
    refused(fits, "cannot be trained: .*no cell is left", tmp_path / "out", flops=1e18)


def test_a_budget_that_the_corpus_cannot_feed_is_refused(fits, tmp_path):
    refused(fits, "cannot be trained: .*epochs", tmp_path, flops=1e17)


def test_that_a_neighbour_cannot_be_trained_is_told_with_its_reason(fits, tmp_path):
    """The text has enough for N*, and too little for the tokens of a smaller model."""
    refused(fits, r"no smaller neighbour .*\(needs 4\.\d epochs", tmp_path, flops=1.5e16)


def test_a_table_of_others_is_registered_without_a_config(tmp_path):
    rows = [
        f"{n:g},{c / 6 / n:g},{c:g},{true_loss(n, c / 6 / n)}"
        for c in (1e18, 3e18, 1e19, 3e19)
        for n in ((c / 120) ** 0.5 * 2**k for k in range(-3, 3))
    ]
    (tmp_path / "theirs.csv").write_text("\n".join(["params,tokens,flops,loss", *rows]))
    found, _ = analyse(read_runs(tmp_path / "theirs.csv"), Settings(bootstrap=200))
    record.write(tmp_path / "out" / "fits.json", found)
    (tmp_path / "forecasts").mkdir()
    refused(tmp_path / "out", "no work folder of ours", tmp_path / "forecasts", flops=1e20)
    known = register(tmp_path / "out", 1e20, tmp_path / "forecasts" / "one.json")
    assert known.experiment is None and len(known.basis.digest) == 64
    # Their runs are nobody's plan: sizes about N*, and where a run of them would fall.
    assert [run.size for run in known.runs] == pytest.approx([0.5, 0.5**0.5, 1, 2**0.5, 2])
    for run in known.runs:
        assert 6 * run.params * run.tokens == pytest.approx(1e20)
        assert run.loss.value == pytest.approx(true_loss(run.params, run.tokens), rel=0.05)
    assert known.basis.columns == {n: n for n in ("params", "tokens", "flops", "loss")}


def test_a_folder_that_cannot_be_written_is_one_line(fits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(faults.StorageError, match="cannot be written"):
        register(fits, 1e13, tmp_path / "file" / "one.json")


def test_seeds_and_settings_of_the_grid(tmp_path):
    """Seeds are those asked for; a setting that was searched is searched again."""
    vary = {"recipe.lr_multiplier": (1.0, 2.0), "seed": (3,)}
    fits = grid_in(tmp_path / "grid", quickstart(vary=vary))
    files = tmp_path / "one.json", tmp_path / "check.py"
    known = register(fits, 1e13, *files)
    assert known.experiment.vary == {"recipe.lr_multiplier": (1.0, 2.0)}
    assert {run.seed for run in known.runs} == {3}
    assert {run.setting for run in known.runs} == {"lr1", "lr2"}


def test_a_grid_that_says_how_many_sizes_each_budget_has(tmp_path):
    ladder = dataclasses.replace(quickstart().ladder, sizes_per_budget=(6, 6, 5, 5))
    fits = grid_in(tmp_path / "grid", quickstart(ladder=ladder))
    known = register(fits, 1e13, tmp_path / "one.json", tmp_path / "check.py")
    assert len(known.runs) == 5
    assert next_runs(tmp_path / "grid", 1e13, settings=Settings(bootstrap=200)).runs


def test_the_noise_is_that_of_seeds_at_the_largest_budget(tmp_path):
    """Of a surface too, whose residuals hold the noise of small budgets and what it misses."""
    cells = plan_in(tmp_path, quickstart(vary={"seed": (0, 1)}))
    random = np.random.default_rng(0)
    sizes = dict(zip(quickstart().budgets, (0.03, 0.02, 0.01, 0.005), strict=True))

    def loss(cell):
        noise = sizes[cell.run.budget] * random.standard_normal()
        return true_loss(cell.params, cell.tokens) * np.exp(noise)

    train(tmp_path, cells, loss)
    files = tmp_path / "f.json", tmp_path / "check_1e13.py"
    made = register(report(tmp_path), 1e13, *files, form="surface")
    assert made.basis.form == "surface" and 0.003 < made.basis.noise < 0.009
    # Runs scatter by it around what is expected, those off the best size by the misfit besides.
    best, *_, far = sorted(made.runs, key=lambda run: abs(math.log(run.size)))
    star, near, off = (
        math.log(one.interval[1] / one.interval[0]) / 2 for one in (made.loss, best.loss, far.loss)
    )
    fits = read_fits(tmp_path / "report" / "fits.json")
    misfit = fits.sources.surface.noise
    assert misfit > 2 * made.basis.noise
    assert near == pytest.approx(math.hypot(star, 1.96 * made.basis.noise), rel=0.1)
    assert off > 1.15 * near
    assert noise_of_seeds(fits, 1e11) > 2 * noise_of_seeds(fits, 1e13)
    assert noise_of_seeds(fits, 1e14) == noise_of_seeds(fits, 1e13) == made.basis.noise
