"""No other test runs the scripts of tests/benchmarks: what they import must still be there."""

import ast
import functools
import importlib.util
from pathlib import Path

import pytest
from absl import flags

from .command import as_in_a_new_process

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))


@functools.cache
def file_of(module):
    """The file of a module of ours, or of a script beside; None of any other module."""
    for place in (ROOT, ROOT / "tests" / "benchmarks"):
        path = place.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return file
        if path.is_dir():
            return path
    return None


@functools.cache
def names_in(file):
    """What a module has at its top, wherever it comes from."""
    if file.is_dir():
        return frozenset()
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


def has(module, name):
    return name in names_in(file_of(module)) or file_of(f"{module}.{name}") is not None


def codes(script):
    """Its tree, and those of the imports of programs that it hands to other processes as text."""
    tree = ast.parse(script.read_text())
    yield tree
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and "\nfrom chinchilla_jax" in text:
            yield ast.parse("\n".join(line for line in text.split("\n") if line[:5] == "from "))


def lacking(tree):
    """Names that it takes from our modules and that these do not have."""
    modules = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if file_of(node.module) is None:
            if node.module.startswith("chinchilla_jax"):
                yield node.module
            continue
        for alias in node.names:
            if not has(node.module, alias.name):
                yield f"{node.module}.{alias.name}"
            elif file_of(f"{node.module}.{alias.name}") is not None:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    stored = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module and node.value.id not in stored and not has(module, node.attr):
                yield f"{module}.{node.attr}"


def test_the_names_that_benchmarks_take_are_there():
    assert len(SCRIPTS) > 30
    found = {s.name: [name for tree in codes(s) for name in lacking(tree)] for s in SCRIPTS}
    assert {name: names for name, names in found.items() if names} == {}
    gone = "from chinchilla_jax.experiment import config\nfrom peers import gone\nconfig.Gone(1)"
    assert list(lacking(ast.parse(gone))) == ["peers.gone", "chinchilla_jax.experiment.config.Gone"]


@pytest.mark.parametrize(
    "name", ["fitting", "held_out_intervals", "held_out_surfaces", "minima", "next_runs"]
)
def test_flags_of_benchmarks_parse(name):
    """Those whose flags are absl's, which are defined when the file is loaded."""
    path = ROOT / "tests" / "benchmarks" / f"{name}.py"
    known = set(flags.FLAGS)
    with as_in_a_new_process([name]):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        defined = set(flags.FLAGS) - known
        assert defined
        flags.FLAGS([name, *(f"--{flag}={flags.FLAGS[flag].default}" for flag in defined
                             if isinstance(flags.FLAGS[flag].default, int | float))])  # fmt: skip
