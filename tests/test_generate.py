"""The program `generate`, called as a person calls it."""

import dataclasses
import shutil
import sys
import types

import pytest

from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.parameters import FLOAT32
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.training import serving
from chinchilla_jax.training.loop import train
from tests import command
from tests.training.helpers import small_run


@pytest.fixture(scope="module")
def workdir(text_corpus, tmp_path_factory):
    """Two finished runs and one that is not."""
    folder, cache = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("cache")
    base = small_run(steps=1, model={"depth": 1}, training={"data_parallel": 1})
    for seed in range(2):
        run = dataclasses.replace(
            base, run_id=f"r{seed}", seed=seed, data=DataConfig(cache=str(cache))
        )
        row = train(run, text_corpus, run_directory(folder, run.run_id))
        assert row["status"] == "done"
    run_directory(folder, "begun").start(dataclasses.replace(run, run_id="begun"))
    return folder


def generate(*arguments):
    return command.call("generate", *arguments)


def test_a_text_is_written_behind_its_prompt(workdir, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CHINCHILLA_JAX_CACHE", str(tmp_path))
    asked = [f"--run={workdir / 'runs' / 'r0'}", "--prompt=the ", "--prompt=a", "--tokens=20"]
    done = generate(*asked)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("\n\na", 1)
    assert first.startswith("the ") and len(first) > 4 and second.strip()
    assert "trained on sequences of 16 tokens" in caplog.text
    again = generate(f"--run={workdir / 'r0'}", *asked[1:], "--cache=false")
    assert again.stdout == done.stdout


def test_what_writing_takes_is_added_to_results(workdir, monkeypatch, tmp_path):
    """Of all finished runs of a folder; those that are damaged are left out."""
    monkeypatch.setenv("CHINCHILLA_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(serving, "_SECONDS", 0.0)
    copy = shutil.copytree(workdir, tmp_path / "work")
    shutil.rmtree(copy / "runs" / "r1" / "checkpoints" / "1")
    shutil.copytree(copy / "runs" / "r1", copy / "runs" / "r2")
    (copy / "runs" / "r2" / "result.json").write_text("{")
    before = run_directory(copy, "r0").result()
    done = generate(f"--run={copy}", "--measure")
    assert done.returncode == 1 and "r1: not measured: " in done.stderr, done.stderr
    assert "r2: not measured: " in done.stderr and "result.json" in done.stderr
    assert done.stdout.splitlines()[2].split()[0] == "r0"
    after = run_directory(copy, "r0").result()
    assert after.items() >= before.items()
    run = run_directory(copy, "r0").configuration()
    found = {name: after[name] for name in after.keys() - before.keys()}
    assert found.pop("decode_hardware").startswith("cpu")
    found.pop("joules_per_token")  # None where nothing counts
    assert 0 < found["decode_seconds_per_token"] < found["first_token_seconds"] < 10
    assert found["prefill_seconds_per_token"] == found["first_token_seconds"] / 16
    assert found["inference_bytes_ledger"] == serving.ledger_bytes(run, FLOAT32)
    assert found["inference_bytes_decode"] > found["inference_bytes_ledger"]
    assert found["decode_memory_bytes"] > ledger(run).total("bytes_at_rest")
    assert "decode_seconds_per_token" not in run_directory(copy, "r1").result()


@pytest.mark.parametrize("arguments,told", [
    (["--run=WORK/nothing", "--prompt=a"], "is no run"),
    (["--run=WORK/runs/begun", "--prompt=a"], "is not finished"),
    (["--run=WORK/none/of/it", "--prompt=a"], "there is no run"),
    (["--run=WORK"], "give either --prompt=TEXT"),
    (["--run=WORK", "--prompt=a", "--measure"], "give either --prompt=TEXT"),
    (["--run=WORK/runs/begun", "--measure"], "is not finished"),
    (["--run=WORK", "--prompt="], "--prompt: is empty"),
    (["--run=WORK", f"--prompt={17 * 'x'}"], "has 17 tokens, and the run was trained on"),
    (["--run=WORK", "--prompt=a", "--temperature=-1"], "--temperature = -1"),
    (["--run=WORK", "--prompt=a", "--top_p=0"], "--top_p = 0"),
    (["--run=WORK", "--prompt=a", "--tokens=0"], "--tokens=0"),
    (["--run=WORK", "--prompt=a", "--tensor=3"], "--tensor=3: does not divide"),
    (["--run=WORK", "--prompt=a", "--tensor=99"], "--tensor=99: a mesh of data_parallel 1 x"),
])  # fmt: skip
def test_a_mistake_is_told_in_one_line(workdir, monkeypatch, tmp_path, arguments, told):
    monkeypatch.setenv("CHINCHILLA_JAX_CACHE", str(tmp_path))
    done = generate(*(a.replace("WORK", str(workdir)) for a in arguments))
    assert done.returncode == 2 and not done.stdout
    assert told in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("program,arguments,told", [
    ("generate", ["--run=RUNS/r0", "--prompt=a", "--temperature=-1"], "--temperature = -1"),
    ("generate", ["--run=RUNS/r0", "--prompt=a", "--temperature=nan"], "--temperature = nan"),
    ("generate", ["--run=RUNS/r0", "--prompt=a", "--top_k=-1"], "--top_k = -1"),
    ("generate", ["--run=RUNS/r0", "--prompt=a", "--top_p=2"], "--top_p = 2"),
    ("generate", ["--run=RUNS/r0", "--prompt=a", "--seed=-1"], "--seed = -1"),
    ("generate", ["--run=RUNS/r00", "--prompt=a"], "is no run; did you mean r0?"),
    ("generate", ["--run=RUNS/begun", "--prompt=a"], "is not finished"),
    ("export", ["--run=RUNS/begun", "--to=new"], "is not finished"),
    ("export", ["--run=RUNS/r0", "--to=gs://bucket/new"], "exported to a local folder"),
    ("export", ["--run=RUNS/r0", "--to=RUNS/r0"], "is there already, and is no exported model"),
])  # fmt: skip
def test_a_mistake_is_told_before_jax_is_imported(workdir, monkeypatch, program, arguments, told):
    for module in ("generation", "export"):
        monkeypatch.setitem(sys.modules, f"chinchilla_jax.training.{module}", None)
    done = command.call(program, *(a.replace("RUNS", str(workdir / "runs")) for a in arguments))
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1, done


def test_an_interrupted_text_ends_its_line(workdir, monkeypatch):
    def write(folder, prompts, most, sampling, cached, tensor, show):
        show(f"{prompts[0]}lo")
        raise KeyboardInterrupt

    generation = types.SimpleNamespace(write=write)
    monkeypatch.setitem(sys.modules, "chinchilla_jax.training.generation", generation)
    done = generate(f"--run={workdir}", "--prompt=the ")
    assert (done.returncode, done.stdout, done.stderr) == (130, "the lo\n", "interrupted\n")


def test_a_damaged_checkpoint_is_told_in_one_line(workdir, tmp_path):
    damaged = shutil.copytree(workdir / "runs" / "r0", tmp_path / "r0")
    file = next(path for path in damaged.glob("checkpoints/1/**/d/*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-1])
    done = generate(f"--run={damaged}", "--prompt=a")
    assert done.returncode == 2 and "is damaged: the file" in done.stderr
    assert done.stderr.count("\n") == 1
