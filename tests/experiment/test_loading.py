"""Configuration files as careless people write them."""

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import load_experiment, split_overrides

GOOD = """
from chinchilla_jax.experiment.config import Experiment, LadderConfig
def get_config():
    return Experiment(name="x", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16)))
"""


def test_overrides_are_parted_from_flags_and_applied_in_order(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(GOOD)
    arguments = ["p", "--config.budgets=1e12,3e12", "--workdir=w", "--config.name", "a b",
                 "--config.name=c"]  # fmt: skip
    others, overrides = split_overrides(arguments)
    assert others == ["p", "--workdir=w"]
    loaded = load_experiment(str(path), overrides)
    assert loaded.budgets == (1e12, 3e12) and loaded.name == "c"


def test_an_override_without_a_value():
    with pytest.raises(UserError, match=r"write --config.name=VALUE"):
        split_overrides(["--config.name", "--workdir=w"])


@pytest.mark.parametrize(
    "content,words",
    [
        ("def get_config(:", (":1:", "SyntaxError")),
        ("import nonsense_module", (":1:", "nonsense_module")),
        ("x = 1", ("must define get_config",)),
        ("def get_config():\n    return 3", ("returns an Experiment",)),
        (
            GOOD.replace("budgets", "budgetts"),
            (":4:", "Experiment.budgetts", "did you mean budgets"),
        ),
        (GOOD.replace("(8, 16)", "()"), (":4:", "exactly one of widths")),
        (GOOD.replace("(1e11,)", "'1e11'"), (":4:", "expected a list")),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, words):
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        load_experiment(str(path))
    for word in ("broken.py", *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_axes_that_have_moved_are_named_where_they_are_now(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(GOOD)
    with pytest.raises(UserError, match=r"^config\.seeds: is now config\.vary\.seed$"):
        load_experiment(str(path), [("seeds", "0,1")])
    path.write_text(GOOD.replace("budgets", "lr_multipliers=(1.0,), budgets"))
    with pytest.raises(
        UserError, match=r"lr_multipliers is now vary\.recipe\.lr_multiplier, as vary=\{\"recipe"
    ):
        load_experiment(str(path))


@pytest.mark.parametrize(
    "field,now", [("training.fsdp", "execution.fsdp"), ("training.eval_windows", "measurement.")]
)
def test_a_field_that_has_moved_is_named_where_it_is_now(tmp_path, field, now):
    path = tmp_path / "c.py"
    path.write_text(GOOD)
    with pytest.raises(UserError, match=rf"^config\.{field}: is now config\.{now}"):
        load_experiment(str(path), [(field, "4")])
    name = field.split(".")[1]
    path.write_text(f"from chinchilla_jax.experiment.config import *\nTrainingConfig({name}=4)")
    with pytest.raises(UserError, match=rf"c\.py:2: TrainingConfig.*{name} is now {now}"):
        load_experiment(str(path))


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "quickstart.py").write_text(GOOD)
    with pytest.raises(UserError, match=r"did you mean .*quickstart\.py"):
        load_experiment(str(tmp_path / "quikstart.py"))


@pytest.mark.parametrize("folder", ["", "configs"])
@pytest.mark.parametrize(
    "name,near",
    [
        ("quickstrat", "quickstart"),
        ("quick_start", "quickstart"),
        ("quickstrat.py", "quickstart"),
        ("config/quickstart.py", "configs/quickstart.py"),
        ("onw.py", "own.py"),
    ],
)
def test_a_misspelt_name_names_the_nearest_that_would_do(tmp_path, monkeypatch, folder, name, near):
    (tmp_path / "own.py").write_text(GOOD)
    if folder:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "quickstart.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    place = "configs/" if folder else "the package"
    with pytest.raises(UserError, match=rf"; did you mean {near}\? \({place} has .*quickstart\.py"):
        load_experiment(name)
    load_experiment(near)


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("a.yaml", b"a: 1\nb:\n  - 2\n", r"a\.yaml:2: SyntaxError"),
        ("a.json", b'{"a": 1}', "must define get_config"),
        ("empty.py", b"", "must define get_config"),
        ("zeros.py", b"\0\1\xff", "SyntaxError"),
        ("latin.py", b"x = '\xff'", "SyntaxError"),
        ("ends.py", b"import sys\nsys.exit(0)\n", r"ends\.py:2: ends the program"),
        ("loop.py", b"def get_config():\n    return get_config()\n", "RecursionError"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load_experiment(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/null", "no/such"])
def test_a_text_that_can_be_no_file_is_one_line(name):
    with pytest.raises(UserError, match=r"no such file( |; did)|cannot be a file: File name too"):
        load_experiment(name)


def test_a_folder_is_told_with_the_files_it_has(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "gone.py").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"is a folder; give a file of it \(.*/ has mine\.py\)"):
        load_experiment(str(tmp_path))
    with pytest.raises(UserError, match=r"gone\.py: no such file"):
        load_experiment(str(tmp_path / "gone.py"))
