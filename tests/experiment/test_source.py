"""An experiment written as Python is the same experiment when it is loaded."""

import ast
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.source import new_file, source

CONFIGS = sorted(Path("configs").glob("*.py"))


def back(experiment, folder):
    (folder / "written.py").write_text(source(experiment, "Written."))
    return load_experiment(str(folder / "written.py"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_comes_back(config, tmp_path):
    experiment = load_experiment(str(config))
    assert back(experiment, tmp_path) == experiment


def test_odd_values_come_back(tmp_path):
    shape = ModelConfig(width=8, depth=2, heads=1, kv_heads=1, head_size=8, ff_size=24)
    experiment = Experiment(
        name='a "name" of C:\\new\nline, ä',
        budgets=(0.1 + 0.2, 1e11 + 1, 3.0),
        ladder=LadderConfig(shapes=(shape, dataclasses.replace(shape, depth=3))),
        data=DataConfig(builder="local_text", path="a\\b'*.txt", fingerprint="0f"),
        recipe=RecipeConfig(base_lr=1 / 3, optimizer="muon"),
        forecast="12ab",
        vary={"seed": (3,), "data.max_megabytes": (None, 0.5)},
    )
    assert back(experiment, tmp_path) == experiment


def test_it_reads_like_the_configs_that_are_there(tmp_path):
    text = source(load_experiment("configs/quickstart.py"), "Iso-FLOP curves.")
    assert "budgets=(3e10, 1e11, 3e11, 1e12, 3e12),\n" in text
    assert "recipe" not in text and "seed" not in text  # as they are by default
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    for config in CONFIGS if ruff else ():
        (tmp_path / "one.py").write_text(source(load_experiment(str(config)), "One."))
        command = [ruff, "format", "--check", "--config=pyproject.toml", tmp_path / "one.py"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (config, done.stdout, (tmp_path / "one.py").read_text())


@pytest.mark.parametrize(
    "docstring", ['a"""b""""', 'says "so"', "a\\", r"C:\x41\new", "Two.\n\n    \"\\'", "", '"']
)
def test_a_docstring_has_any_text(docstring):
    written = source(load_experiment("configs/quickstart.py"), docstring)
    found = ast.get_docstring(ast.parse(written), clean=False)
    assert found == docstring + "\n" * ("\n" in docstring)


@pytest.mark.parametrize("name", ["more.txt", "more", "-x.py", "a b.py", "ä*.py"])
def test_a_file_that_could_be_no_configuration_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"--write_config=.*: give a Python file, as configs/more"):
        new_file(tmp_path / name)


def test_a_configuration_may_have_any_plain_name(tmp_path):
    file = new_file(tmp_path / "my-name.2.py")
    file.write_text(
        source(Experiment(name="x", budgets=(1e11,), ladder=LadderConfig(widths=(8,))), ".")
    )
    assert load_experiment(str(file)).name == "x"
    with pytest.raises(UserError, match=r"my-name\.2\.py: is there already; give another name"):
        new_file(file)
