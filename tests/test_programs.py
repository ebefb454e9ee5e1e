"""The programs as a careless person calls them: one line, what is wrong and what would be right."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chinchilla_jax import program
from chinchilla_jax.experiment import grid, plans, records
from chinchilla_jax.experiment.loading import load_experiment
from tests.command import as_in_a_new_process, call

QUICKSTART = "--config=configs/quickstart.py"
TABLE_A9 = "--config=configs/chinchilla.py"


def process(program, *arguments):
    """As `call`, in a process of its own: imports and the interpreter's end included."""
    command = [sys.executable, "-m", f"chinchilla_jax.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def interruptible(program, *arguments, **variables):
    """As `process`; Ctrl-C reaches it even where the tests, in the background, ignore it."""
    command = [sys.executable, "-m", f"chinchilla_jax.{program}", *arguments]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, timeout=120
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "program,arguments,words",
    [
        ("plan", (), ("--config", "missing")),
        ("plan", ("--config=configs/quickstar.py",), ("no such file", "configs/quickstart.py")),
        ("plan", (QUICKSTART, "--config.budget=1"), ("config.budget", "did you mean budgets")),
        ("plan", (QUICKSTART, "--config.budgets=1e3"), ("no cell is left",)),
        ("plan", (QUICKSTART, "--workdri=x"), ("workdri", "workdir")),
        ("plan", (QUICKSTART, "stray"), ("stray", "unexpected")),
        ("plan", (QUICKSTART, "--cells=3"), ("--cells: no such flag (there are --config,",)),
        ("plan", (QUICKSTART, "--devices=4", "--hardware="), ("--hardware=: no such accel",)),
        ("plan", (QUICKSTART, "--hardware=h200"), ("--devices and --hardware: give both",)),
        (
            "plan",
            (TABLE_A9, "--config.ladder.table=../third_party/chinchilla_table_a9"),
            ("no such table in third_party",),
        ),
        ("plan", (QUICKSTART, "--config.ladder.widths=13"), ("13", "even")),
        ("plan", (QUICKSTART, "--write_config=x.py"), ("--write_config: is of --next",)),
        ("plan", ("--next", "--enough=2"), ("--next and --enough", "one of them")),
        ("plan", (QUICKSTART, "--where=a=b"), ("--where: is of --next",)),
        ("generate", ("--run=x", "--measure", "--nocache"), ("--cache: is not of --measure",)),
        ("sweep", (QUICKSTART,), ("--workdir", "required")),
        ("sweep", ("--workdir=/nonexistent/w",), ("--config",)),
        ("measure", ("--workdir=/nonexistent/w",), ("--config",)),
        (
            "measure",
            ("--workdir=w", QUICKSTART, "--config.techniques.quantisation.after=0"),
            ("techniques.quantisation.after = 0.0: expected 1 to 8",),
        ),
        ("sweep", (QUICKSTART, "--workdir="), ("empty", "write .")),
        ("plan", ("--config=configs",), ("is a folder", "quickstart.py")),
        ("train", ("--workdir=w", "--cell=a"), ("error: --cell=a: expected a whole number",)),
        ("train", ("--workdir=w", "--cell="), ("error: --cell=: expected a whole number",)),
        ("train", ("--workdir=w", "--cell=-1"), ("error: --cell=-1: ", "non-negative")),
        (
            "train",
            ("--workdir=w", "--peer_timeout=x"),
            ("error: --peer_timeout=x: expected a num",),
        ),
        ("sweep", ("--workdir=/nonexistent/w", "--status"), ("plan.json",)),
        ("sweep", ("--workdir=w", "--workers=-1"), ("workers",)),
        ("train", ("--workdir=/nonexistent/w",), ("--cell", "--run")),
        ("train", ("--workdir=w", "--run=/not  there.json"), ("/not  there.json",)),
        ("train", ("--workdir=w", "--cell=0", "--config.a.b=1"), ("--config.a.b: ", "give that")),
        ("sweep", ("--workdir=w", "--config.seed=1"), ("--config.seed: ", "--config=FILE; give")),
        ("sweep", ("--workdir=w", "--config.a", "1", "--status"), ("--config.a: ", "give that")),
        ("measure", ("--workdir=w", "--config.a.b=1"), ("--config.a.b: ", "give that too")),
        ("evaluate", ("--runs=w", "--config.a.b=1"), ("--config.a.b: ", "this program has not")),
        ("forecast", ("--config.a.b=1",), ("--config.a.b: ", "give that too")),
        (
            "evaluate",
            ("--runs=A", "--runs", "B", "--out=mix"),
            ("--runs: is given twice, as A and as B; ", "to compare two, --compare=A,B"),
        ),
        ("evaluate", ("--runs=A", "--laws=a,b", "--laws=b"), ("--laws: is given twice, as a,b",)),
        ("evaluate", ("--runs=A", "--figures", "--nofigures"), ("--figures: is given twice",)),
        ("verify", ("--runs=A", "--runs=B"), ("--runs: is given twice, as A and as B; give it",)),
        ("sweep", ("--workdir=w", "--workers=1", "--workers=2"), ("--workers: is given twice",)),
        (
            "plan",
            (QUICKSTART, "--config.seed=1", "--config.seed=2"),
            ("--config.seed: is given twice, as 1 and as 2",),
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(program, arguments, words):
    done = call(program, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


PROGRAMS = (
    "plan", "sweep", "train", "evaluate", "forecast", "verify", "generate", "export", "measure",
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_tells_what_it_does_and_every_flag(program):
    """Those that programs share among them, and its commands as a shell takes them."""
    done = call(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"    python -m chinchilla_jax.{program} --" in done.stdout
    assert "   --" not in done.stdout.partition("flags:")[0].replace("\n        --", "\n")
    there = call(program, "--none_such").stderr.partition("(there are ")[2].rstrip(")\n")
    flag = r"^  --(?:\[no\])?(\w+): (.*?)\n(?=    \((?:default: |an? |number )|  --|\n)"
    told = re.findall(flag, done.stdout, re.MULTILINE | re.DOTALL)
    names = [name for name, _ in told]
    assert sorted(names) == sorted(name.removeprefix("--") for name in there.split(", "))
    for _, text in told:  # a sentence, but for what absl puts around it
        said = re.sub(r"^<.*?>: ", "", " ".join(text.split())).replace("; repeat this option", ".")
        assert re.match(r"[A-Z].*\.", said) and not said.startswith(("Of the", "Of each")), said


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -m chinchilla_jax.sweep --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("program,arguments", [("sweep", (QUICKSTART,)), ("forecast", ())])
def test_a_process_says_the_same(program, arguments):
    """What the tests here and beside call without a process is what a person gets."""
    done, within = process(program, *arguments), call(program, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (
        within.returncode, within.stdout, within.stderr,
    )  # fmt: skip


def test_what_is_said_before_the_work_has_no_time_and_place(tmp_path):
    shutil.copy("configs/quickstart.py", tmp_path / "mine.py")
    widths = ("--config.ladder.widths=32,34", "--config.vary.seed=0,1")
    done = process("plan", f"--config={tmp_path / 'mine.py'}", *widths)
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: ladder.replicates_up_to = "), done.stderr
    assert second.startswith("warning: ladder.widths: 34 in 17 heads of 2: "), done.stderr


def test_plan_shows_every_cell_with_its_reason():
    done = call("plan", QUICKSTART)
    assert done.returncode == 0
    assert "33 of 56 cells planned" in done.stdout
    assert "tokens per parameter, under" in done.stdout
    assert "1e11" in done.stdout


def test_what_is_given_twice_alike_or_is_a_list_by_itself_is_taken(tmp_path):
    once = call("plan", QUICKSTART, "--config.budgets=1e11")
    twice = call("plan", QUICKSTART, QUICKSTART, *["--config.budgets=1e11"] * 2)
    assert (twice.returncode, twice.stdout, twice.stderr) == (0, once.stdout, once.stderr)
    done = call("generate", f"--run={tmp_path}/none", "--prompt=a", "--prompt=b")
    assert "none: there is no run" in done.stderr


def test_overrides_reach_the_plan():
    done = call("plan", QUICKSTART, "--config.budgets=1e11,3e11", "--config.vary.seed=0,1")
    assert "20 of 32 cells planned" in done.stdout  # half the budgets, these seeds and no others


def test_measure_begins_no_folder(tmp_path):
    done = call("measure", QUICKSTART, f"--workdir={tmp_path / 'typo'}")
    assert done.returncode == 2 and "typo: holds no plan.json" in done.stderr
    assert not list(tmp_path.iterdir())


def test_measure_says_how_many_are_not_done(tmp_path):
    source = load_experiment("configs/quickstart.py")
    plans.write_plan(tmp_path, source, grid.plan(source), {})
    done = call("measure", f"--workdir={tmp_path}", "--cells=3,4")
    assert done.returncode == 0 and "measured 0 of 2 runs, 2 not done\n" in done.stdout


@pytest.mark.parametrize("program,flag", [("train", "cell"), ("sweep", "cells")])
def test_a_cell_that_is_not_there_is_named_with_the_flag_given(tmp_path, program, flag):
    source = load_experiment("configs/quickstart.py")
    plans.write_plan(tmp_path, source, grid.plan(source), {})
    done = call(program, f"--workdir={tmp_path}", f"--{flag}=99")
    assert done.stderr == f"error: --{flag}=99: there is no cell '99'; indices run from 0 to 55\n"


@pytest.mark.parametrize("program,flag", [("train", "--cell=3"), ("sweep", "--cells=3")])
@pytest.mark.parametrize("config", [QUICKSTART, ""])
def test_a_sweep_of_an_earlier_model_is_not_gone_on_with(tmp_path, program, flag, config):
    source = load_experiment("configs/quickstart.py")
    cells = grid.plan(source)
    plans.write_plan(tmp_path, source, cells, {"model_version": 2})
    run = next(cell.run for cell in cells if cell.status == "planned")
    records.run_directory(tmp_path, run.run_id).start(run)
    done = call(program, *filter(None, [config]), f"--workdir={tmp_path}", flag)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 2 and not any("error" in line for line in before)  # it may build text
    assert last.startswith("error: ") and "Traceback" not in done.stderr
    assert f"run {run.run_id} was begun by an earlier version" in last


@pytest.mark.parametrize(
    "overrides,difference",
    [
        ((), ""),
        (("--config.name=other", "--config.order=largest", "--config.data.cache=x"), ""),
        (("--config.recipe.base_lr=0.5",), "recipe.base_lr was 0.006, now 0.5"),
        (("--config.vary.seed=0,1",), "vary.seed was None, now [0, 1]"),
        (("--config.budgets=1e11",), "budgets was [30000000000.0, "),
    ],
)
def test_the_status_of_another_experiment_is_shown_and_said(tmp_path, overrides, difference):
    source = load_experiment("configs/quickstart.py")
    plans.write_plan(tmp_path, source, grid.plan(source), {})
    done = call("sweep", QUICKSTART, *overrides, f"--workdir={tmp_path}", "--status")
    assert done.returncode == 0 and "33 missing" in done.stdout
    said = [line for line in done.stdout.splitlines() if "plan.json" in line]
    assert len(said) == bool(difference) and not done.stderr
    assert all(f": is the plan of another experiment ({difference}" in line for line in said)


@pytest.mark.parametrize(
    "when,status,said",
    [
        ("absl/__init__.py", -signal.SIGINT, ""),
        ("config.py", 130, "interrupted\n"),
    ],
)
def test_ctrl_c_is_no_traceback_also_while_python_imports(tmp_path, when, status, said):
    """It comes in a module that the program imports, or in the configuration, once it runs."""
    (tmp_path / when).parent.mkdir(exist_ok=True)
    (tmp_path / when).write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n" * 2)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    done = interruptible("plan", f"--config={tmp_path / 'config.py'}", **path)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(
    "when,arguments,status",
    [
        ("atexit.register(os._exit, 77); atexit.register(Late)", (), 0),
        ("sys.late = Late()", ("--config.budgets=1e3",), 2),
    ],
)
def test_ctrl_c_after_the_end_of_a_program_leaves_its_result(tmp_path, when, arguments, status):
    """In what is registered for the interpreter's end, which it skips, and in the last moments."""
    (tmp_path / "config.py").write_text(
        "import atexit, os, signal, sys\n"
        "from chinchilla_jax.configs.quickstart import get_config\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT):\n"
        "        kill(me, number)\n"
        f"{when}\n"
    )
    whole = call("plan", QUICKSTART, *arguments)
    done = interruptible("plan", f"--config={tmp_path / 'config.py'}", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (status, whole.stdout, whole.stderr)


@pytest.mark.parametrize("status", [130, 1])
def test_a_program_that_is_interrupted_does_not_wait_for_the_end_of_jax(status):
    """The end of the interpreter, which here aborts, while JAX's threads may be at work."""
    code = (
        "import atexit, os, sys; from chinchilla_jax import program; sys.modules['jax'] = os\n"
        "def main(_):\n"
        "    atexit.register(os.abort)\n"
        "    print('said', end='')\n"
        f"    if {status} == 1: sys.exit(1)\n"
        "    raise KeyboardInterrupt\n"
        "program.run(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (130 if status == 130 else -signal.SIGABRT)
    assert done.stdout == "said"
    assert done.stderr == "interrupted\n" or status == 1


def test_memory_that_runs_out_is_one_line(capsys):
    with as_in_a_new_process(["plan"]), pytest.raises(SystemExit) as end:
        program.run(lambda _: bytes(1 << 62))
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: memory ran out: ")


@pytest.mark.parametrize("first_process", [False, True])
def test_sigterm_ends_a_program_also_as_process_1_of_a_container(first_process):
    code = (
        "import os, time; from chinchilla_jax import program; "
        "program.run(lambda _: (print(os.getpid(), flush=True), time.sleep(60)), 'what is said')"
    )
    command = [sys.executable, "-c", code]
    if first_process:
        container = ["unshare", "--pid", "--fork", "--kill-child", "--"]
        tried = shutil.which("unshare") and subprocess.run([*container, "true"]).returncode == 0
        if not tried:
            pytest.skip("unshare cannot make a process 1 here")
        command = [*container, *command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    number = process.stdout.readline().strip()
    assert (number == "1") == first_process
    inner = process.pid
    if first_process:  # unshare's only child
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        inner = int(Path(children).read_text())
    os.kill(inner, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "what is said\n"
