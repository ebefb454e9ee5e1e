"""A suggested command is the one that was meant, whatever a folder or a column is called."""

import re
import shlex
from pathlib import Path

import pytest
from absl import flags

import chinchilla_jax
from chinchilla_jax.experiment import commands

NAMES = ["runs/q", "my runs", "$HOME", "it's", 'a "b"', "a,b", "~", "*", "größe", "a\\b", "`ls`"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_takes_it_as_it_was_meant(name):
    told = commands.command("sweep", config="a.py", workdir=Path(name))
    words = ["python", "-m", "chinchilla_jax.sweep", "--config=a.py", f"--workdir={name}"]
    assert shlex.split(told) == words
    assert "'" not in commands.command("sweep", workdir="gs://bucket/runs/a_1-b.c+d")


def test_a_list_is_taken_as_it_was_meant():
    asked = [f"{name}={name}" for name in NAMES]
    (word,) = shlex.split(commands.items(asked))
    assert flags.ListParser().parse(word) == asked
    assert commands.items(["optimizer=adamw", "bits=4"]) == "optimizer=adamw,bits=4"


def test_every_command_is_written_in_one_place():
    package = Path(chinchilla_jax.__file__).parent
    for file in package.rglob("*.py"):
        told = re.search(r"python -m chinchilla_jax\.\w+ [^\n]*[{]", file.read_text())
        assert not told or file == package / "experiment" / "commands.py", f"{file}: {told[0]}"
