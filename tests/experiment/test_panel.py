"""Settings beside the plain experiment: a union, each with cells of its choice."""

from dataclasses import replace

import pytest

from chinchilla_jax.experiment import grid
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.experiment.schema import from_json, to_json
from tests.experiment.test_vary import experiment

PANEL = {
    "muon": Setting(values={"recipe.optimizer": "muon"}, budgets=(1e12,), widths=(16,)),
    "fast": Setting(values={"recipe.base_lr": 0.012, "recipe.beta1": 0.8}, widths=(8,)),
}
SEEDS = {"seed": (0, 1)}


def ids(cells):
    return [cell.run.run_id for cell in cells]


def test_each_setting_has_its_cells_beside_the_plain_ones():
    plain = grid.plan(experiment(vary=SEEDS))
    cells = grid.plan(experiment(vary=SEEDS, panel=PANEL))
    added = {
        "1e12-16x2-muon-s0", "1e12-16x2-muon-s1", "1e11-8x2-fast-s0", "1e11-8x2-fast-s1",
        "1e12-8x2-fast-s0", "1e12-8x2-fast-s1",
    }  # fmt: skip
    assert set(ids(cells)) == set(ids(plain)) | added
    assert [cell.run for cell in cells if cell.run.run_id not in added] == [c.run for c in plain]
    runs = {cell.run.run_id: cell.run for cell in cells}
    muon, dense = runs["1e12-16x2-muon-s1"], runs["1e12-16x2-s1"]
    assert (muon.optimizer.name, dense.optimizer.name) == ("muon", "adamw")
    assert (muon.steps, muon.batch_size, muon.seed) == (dense.steps, dense.batch_size, dense.seed)
    assert runs["1e11-8x2-fast-s0"].optimizer.beta1 == 0.8
    assert row_of(muon)["panel"] == muon.panel == "muon" and "panel" not in row_of(dense)
    assert fingerprint(replace(muon, panel="other")) == fingerprint(muon)
    assert len({fingerprint(run) for run in runs.values()}) == len(runs)


def test_a_panel_is_written_and_read_and_leaves_experiments_without_one_as_they_were():
    source = experiment(vary=SEEDS, panel=PANEL)
    assert from_json(Experiment, to_json(source), "config") == source
    assert "panel" not in to_json(experiment())
    assert fingerprint(source) == fingerprint(experiment())


def test_a_setting_may_also_say_how_it_is_run_or_measured():
    values = {"techniques.quantisation.after": (4.0,), "execution.microbatch": 1}
    panel = {
        "plain": Setting(values=values),
        "fast": Setting(values={"recipe.beta1": 0.8, **values}),
    }
    cells = {cell.run.run_id: cell for cell in grid.plan(experiment(panel=panel))}
    fast = cells["1e11-8x2-fast-s0"].run
    assert fast.techniques.quantisation.after == (4.0,) and fast.execution.microbatch == 1
    # By itself that is no other run.
    assert cells["1e11-8x2-plain-s0"].reason == "is the same run as 1e11-8x2-s0"


def test_a_shape_of_the_ladder_keeps_its_width_in_the_panel():
    """The widths are the ladder's, not those that the technique makes of them."""
    panel = {"flat": Setting(values={"techniques.shape.depth_multiplier": 0.5}, widths=(48,))}
    ladder = LadderConfig(widths=(8, 48), sizes_per_budget=(0,), min_tokens_per_param=0.01)
    flat = ids(grid.plan(experiment(ladder=ladder, panel=panel)))
    assert flat[:3] == ["1e11-8x2-s0", "1e11-48x3-s0", "1e11-56x2-flat-s0"]


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("Fast", {"recipe.beta1": 0.8}, "panel = 'Fast': a name stands in run ids"),
        ("a b", {"recipe.beta1": 0.8}, "panel = 'a b': a name stands in run ids"),
        ("fast", {}, "panel.fast.values: sets nothing"),
        ("fast", {"recipe.beta": 0.8}, r"panel.fast.values.recipe.beta: no such field; did you"),
        ("fast", {"recipe": 0.8}, r"panel.fast.values.recipe: is a group"),
        ("fast", {"recipe.beta1": "x"}, r"panel.fast.values.recipe.beta1 = 'x': expected a num"),
        ("fast", {"recipe.beta1": 1.5}, r"panel.fast: recipe.beta1 = 1.5: must lie in"),
        ("fast", {"seed": 3}, r"panel.fast.values.seed: varies already"),
        ("fast", {"order": "largest"}, r"panel.fast.values.order: cannot vary; order decides no"),
        (
            "fast",
            {"budgets": (1e10,)},
            r"panel.fast.values.budgets: cannot vary; budgets are an axis",
        ),
        ("fast", {"panel": {}}, r"panel.fast.values.panel: cannot vary; panel decides no"),
    ],
)
def test_what_no_setting_can_be_is_said_in_one_line(name, setting, message):
    with pytest.raises(UserError, match=message) as error:
        grid.plan(experiment(vary=SEEDS, panel={name: Setting(values=setting)}))
    assert "\n" not in str(error.value)


def test_cells_that_the_grid_lacks_are_said_in_one_line():
    values = {"recipe.beta1": 0.8}
    with pytest.raises(
        UserError, match=r"panel.a.budgets = 200000000000.0: is none of the grid's \(1e"
    ):
        experiment(panel={"a": Setting(values=values, budgets=(2e11,))})
    with pytest.raises(UserError, match=r"panel.a.widths = 12: is none of the ladder's \(8, 16\)"):
        grid.plan(experiment(panel={"a": Setting(values=values, widths=(12,))}))


@pytest.mark.parametrize(
    "settings,message",
    [
        ("{'a': {'values': {'recipe.beta1': .8}}}", r"panel.a = {'values': .*: expected a Setting"),
        ("{'a': Setting(value={'recipe.beta1': .8})}", r"Setting.value: .*did you mean values"),
        ("{'a': Setting(values={3: .8})}", r"panel.a.values: has 3; expected the path of a field"),
        ("{'a': Setting(values={'seed': Quantisation(bit=4)})}", r"Quantisation.bit: .*bits"),
    ],
)
def test_what_is_no_setting_is_one_line(tmp_path, settings, message):
    config = tmp_path / "c.py"
    config.write_text(
        "from chinchilla_jax.experiment.config import Experiment, LadderConfig\n"
        "from chinchilla_jax.experiment.panel import Setting\n"
        "from chinchilla_jax.techniques.quantisation import Quantisation\n"
        "def get_config():\n"
        "    return Experiment(name='t', budgets=(1e11,), ladder=LadderConfig(widths=(8,)),\n"
        f"        panel={settings})\n"
    )
    with pytest.raises(UserError, match=message) as error:
        load_experiment(str(config))
    assert "\n" not in str(error.value) and "TypeError" not in str(error.value)


def test_a_setting_of_a_file_is_no_flag(tmp_path):
    config = tmp_path / "c.py"
    config.write_text(
        "from chinchilla_jax.experiment.config import Experiment, LadderConfig, LadderConfig\n"
        "from chinchilla_jax.experiment.panel import Setting\n"
        "def get_config():\n"
        "    return Experiment(name='t', budgets=(1e11,), ladder=LadderConfig(widths=(8,)),\n"
        "        panel={'fast': Setting(values={'recipe.beta1': .8})})\n"
    )
    assert list(load_experiment(str(config)).panel) == ["fast"]
    with pytest.raises(UserError, match=r"^config\.panel"):
        load_experiment(str(config), [("panel.fast", "0.9")])
