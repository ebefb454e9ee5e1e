"""The house keeps its walls: who may import whom, what is light, how long a program may be."""

import ast
import graphlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "chinchilla_jax"
PROGRAMS = ("plan", "sweep", "train", "measure", "evaluate", "forecast", "verify", "generate",
            "export")  # fmt: skip
MAY_IMPORT = {
    "experiment": {"techniques"},
    "techniques": {"experiment"},
    "models": {"experiment"},
    "data": {"experiment"},
    "formats": {"data", "experiment"},
    "training": {"models", "data", "formats", "experiment", "techniques"},
    "scaling": {"experiment", "techniques"},
}
# A technique knows what a model is and how it is counted, and of runs what it is told.
TECHNIQUES_MAY_IMPORT = {
    "errors", "schema", "fingerprint", "model", "other_run", "parameters", "counting",
}  # fmt: skip
# The way of the data through the evaluator: a room imports only those before it.
ROOMS = ("arrays", "arguments", "beside", "table", "fitting", "settings", "laws", "tuning", "fits",
         "doubt", "approaches", "forecast", "sections", "analysis", "ruler", "comparison",
         "register", "design", "report", "notebook")  # fmt: skip
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def imports(path):
    """Every module that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("wing", MAY_IMPORT)
def test_a_wing_imports_only_those_below_it(wing):
    files = list((PACKAGE / wing).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "chinchilla_jax" and rest != ["__version__"]:
                assert rest[0] in MAY_IMPORT[wing] | {wing}, f"{path} imports {name}"
            if wing in ("experiment", "techniques", "formats", "scaling"):
                assert top not in JAX, f"{path} imports {name}"
            assert top != "tensorflow", f"{path} imports {name}"


def test_techniques_know_of_experiments_only_what_a_model_is():
    for path in (PACKAGE / "techniques").rglob("*.py"):
        for name in imports(path):
            if name.startswith("chinchilla_jax.experiment"):
                assert name.split(".")[2] in TECHNIQUES_MAY_IMPORT, f"{path} imports {name}"


def test_the_evaluator_is_walked_in_one_direction():
    scaling = PACKAGE / "scaling"
    for path in scaling.rglob("*.py"):
        room = path.relative_to(scaling).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imports(path):
            if name.startswith("chinchilla_jax.scaling."):
                other = name.split(".")[2]
                assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}"


def test_no_two_classes_of_the_evaluator_share_a_name():
    found = [
        node.name
        for path in (PACKAGE / "scaling").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(found) > 80 and sorted(found) == sorted(set(found))


def test_no_files_import_each_other_in_a_circle():
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    below = {
        name: {part for full in imports(path) for part in (full, full.rpartition(".")[0])}
        & modules.keys() - {name}
        for name, path in modules.items()
    }
    assert sum(map(len, below.values())) > len(modules)  # an empty graph has no circle either
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError, which names the circle


def test_no_wall_clock_is_read():
    """So that hosts whose clocks differ cannot disagree: durations by monotonic clocks, and the
    one time stamp of a file, of `sources.stamp`, is only ever compared for being the same. The date
    of a registered forecast is for people: its digest, which runs bear, tells what came first."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                assert name not in ("time.time", "time.time_ns", "time.localtime"), path
                dated = name == "datetime.date.today" and path.name == "register.py"
                assert dated or node.attr not in ("now", "utcnow", "today", "getmtime"), path
                assert not node.attr.startswith(("st_mtime", "st_ctime")) or (
                    path.name == "sources.py"
                ), f"{path}: {name}"


@pytest.mark.slow
def test_an_installed_wheel_has_its_tables_and_configs(tmp_path):
    """Not an editable install, and not run beside the checkout."""
    source, target = tmp_path / "source", tmp_path / "installed"
    for folder in (
        "chinchilla_jax",
        "configs",
        "third_party",
    ):  # a copy: building leaves its own files
        shutil.copytree(PACKAGE.parent / folder, source / folder, symlinks=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PACKAGE.parent / name, source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, f"--target={target}", str(source)], check=True, cwd=tmp_path)
    code = (
        "import chinchilla_jax;"
        "from chinchilla_jax.experiment.ladder import read_table;"
        "from chinchilla_jax.experiment.loading import load_experiment;"
        "from chinchilla_jax.scaling.laws.published import published;"
        "print(chinchilla_jax.__file__, len(read_table('chinchilla_table_a9')), len(published()),"
        " load_experiment('configs/quickstart.py').name);"
        "from chinchilla_jax.scaling.report.page import page;"
        "assert '<script>' in page('title', '', (), ())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    place, shapes, laws, config = done.stdout.split()
    assert place.startswith(str(target)) and int(shapes) == 50 and int(laws) > 5
    assert config == "quickstart"
    top = {path.name for path in target.iterdir() if not path.name.endswith(".dist-info")}
    assert top - {"bin", "__pycache__"} == {"chinchilla_jax"}
    tables = {path.name for path in target.rglob("third_party/*")}
    assert "jobset_crd.json" not in tables, tables  # which only a test reads
    beside = {path.suffix for path in target.rglob("chinchilla_jax/**/*") if path.is_file()}
    assert beside <= {".py", ".pyc", ".typed", ".csv", ".json", ".md", ".css", ".js"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_short_and_define_little(name):
    text = (PACKAGE / f"{name}.py").read_text()
    assert len(text.splitlines()) < 100
    functions = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)]
    assert "main" in {f.name for f in functions} and len(functions) <= 4


@pytest.mark.parametrize(
    "module,forbidden",
    [
        ("chinchilla_jax", {"jax", "numpy", "tensorflow_datasets", "matplotlib", "absl"}),
        ("chinchilla_jax.evaluate", {"jax", "flax", "tensorflow_datasets", "pyarrow"}),
        ("chinchilla_jax.forecast", {"jax", "flax", "tensorflow_datasets", "matplotlib"}),
        ("chinchilla_jax.verify", {"jax", "flax", "tensorflow_datasets", "matplotlib"}),
        ("chinchilla_jax.plan", {"jax", "flax", "tensorflow_datasets", "scipy"}),
        ("chinchilla_jax.sweep", {"jax", "flax", "tensorflow_datasets"}),
        ("chinchilla_jax.data.store", {"jax", "tensorflow_datasets", "sentencepiece"}),
    ],
)
def test_importing_is_light(module, forbidden):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not forbidden & set(done.stdout.split())
