"""Every reader of JSON, fed with broken but well-formed values: one line for a person, or a value.

A file of ours is written, one of its values is replaced, dropped or joined by another, and it is
read as the programs do. None of it may end in another exception, or in a file somewhere else.
"""

import copy
import functools
import inspect
import json
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chinchilla_jax.data import sources, store
from chinchilla_jax.experiment import json_data, lock, plans, records, results, status, storage
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.needs import read_run
from chinchilla_jax.scaling import comparison, fits
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.training import verified
from tests.scaling.sweeps import write_sweep

DEEP: list[object] = functools.reduce(lambda inner, _: [inner], range(900), [])
STRANGE = (
    None, True, False, 0, -1, 3, 2.5, -0.0, 1e-320, 1e308, 10**30, 10**400, float("nan"),
    float("inf"), "", "a text", "\n", "\0", "\ud800", "../../x", "/tmp/x", "1e3", [], {}, [None],
    [[1.0]], {"a": 1}, {"": None}, DEEP,
)  # fmt: skip
MOST = 40  # changes of each kind of file


def changed(content: object, number: int) -> str:
    """JSON of `content` with one change, another for each number."""
    rng = random.Random(number)
    content = copy.deepcopy(content)
    places = list(places_in(content))
    strange = rng.choice(STRANGE)
    if not places or rng.random() < 0.03:
        return json.dumps(strange)
    holder, key = rng.choice(places)
    if rng.random() < 0.1:
        del holder[key]
    elif rng.random() < 0.05 and isinstance(holder, dict):
        holder["further"] = strange
    else:
        holder[key] = strange
    return json.dumps(content)


def places_in(content):
    """(what holds it, its key or number) of every value."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield content, key
        if isinstance(value, dict | list):
            yield from places_in(value)


def each(test):
    """The test with every number, one after the other."""
    names = [name for name in inspect.signature(test).parameters if name != "number"]

    @functools.wraps(test)
    def all_of_them(*arguments, **fixtures):
        for number in range(MOST):
            try:
                test(*arguments, **fixtures, number=number)
            except BaseException as error:
                error.add_note(f"number {number}")
                raise

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    all_of_them.__signature__ = inspect.Signature(parameters)
    return all_of_them


def refused(read):
    """Calls `read`; an error of a user is one line."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A work folder with a run done, one failed and one under way."""
    folder = tmp_path_factory.mktemp("sweep")
    source = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16, 24, 96)))
    cells = plan(source)
    facts = {"code_version": "1", "corpora": {"k": {"train_tokens": 9, "data_fingerprint": "a"}}}
    plans.write_plan(folder, source, cells, facts)
    done, failed, running = (records.run_directory(folder, cell.run.run_id) for cell in cells[:3])
    for directory, cell in zip((done, failed, running), cells, strict=False):
        directory.start(cell.run)
    done.finish(cells[0].run, "done", "", {"loss": 2.0, "device_kind": "cpu"})
    failed.fail("out of memory")
    beat = {"owner": "host 1", "steps": 100, "step": 3, "doing": "training", "stalled": False,
            "seconds_since_step": 1.0, "usual_seconds": 0.5, "count": 2, "loss": 2.0}  # fmt: skip
    running.heartbeat(beat)
    rows = [{"step": i, "tokens": 10 * i, "flops": 1e6 * i, "loss": 3.0 / i, "seconds": 0.1 * i}
            for i in range(1, 12)]  # fmt: skip
    done.metrics_writer().append(rows)
    return folder, [d.path for d in (done, failed, running)]


def whole_sweep(folder):
    """What programs read of a work folder."""
    status.text(folder)
    plans.continued_plan(folder)
    results.write(folder)
    read_runs(folder)


def fed(file: Path, content: object, read, number: int) -> None:
    """`read` of the file with a change, which is undone; nothing appears beside the folder."""
    before, outside = file.read_bytes(), sorted(file.parents[1].iterdir())
    file.write_text(changed(content, number))
    try:
        refused(read)
    finally:
        file.write_bytes(before)
    assert sorted(file.parents[1].iterdir()) == outside


@pytest.mark.parametrize("name", ["plan.json", "config.json", "result.json", "failure.json",
                                  "heartbeat.json", "metrics.jsonl"])  # fmt: skip
@each
def test_a_file_of_a_work_folder(sweep, monkeypatch, name, number):
    monkeypatch.setattr(status, "HEARTBEAT_SECONDS", 0.0)
    folder, (done, failed, running) = sweep
    place = {"plan.json": folder, "config.json": done, "failure.json": failed,
             "heartbeat.json": running}.get(name, done)  # fmt: skip
    if name == "metrics.jsonl":
        lines = (place / name).read_text().splitlines()
        row = changed(json.loads(lines[4]), number)
        (place / name).write_text("\n".join([*lines[:4], row, *lines[5:], ""]))
        directory = records.RunDirectory(done)
        refused(directory.metrics)
        refused(directory.last_flops)
        refused(lambda: read_runs(folder))
        (place / name).write_text("\n".join([*lines, ""]))
        return
    read = functools.partial(whole_sweep, folder)
    if name == "config.json":
        read = functools.partial(read_run, place / name)
    fed(place / name, json.loads((place / name).read_text()), read, number)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """fits.json of a fit and of a comparison."""
    from chinchilla_jax.scaling.analysis import analyse
    from chinchilla_jax.scaling.settings import Settings

    folder = write_sweep(tmp_path_factory.mktemp("reports"))
    found = analyse(read_runs(folder), Settings(bootstrap=40, budgets=(1e13,)))[0]
    fits.write(folder / "one.json", found)
    table = [
        {"params": 1e3 * n, "tokens": 1e5 * d, "loss": 1 + n**-0.3 + d**-0.3 + k, "optimizer": o}
        for k, o in enumerate("ab") for n in (1, 2, 4, 8) for d in (1, 3, 9, 27)
    ]  # fmt: skip
    both = comparison.compare(read_runs(table), Settings(bootstrap=0), by=["optimizer"])[0]
    comparison.write(folder / "two.json", both)
    return folder


@pytest.mark.parametrize("name,where", [("one.json", {}), ("two.json", {"optimizer": "a"})])
@each
def test_a_report(reports, name, where, number):
    file = reports / name
    content = json.loads(file.read_text())
    fed(file, content, lambda: comparison.read(file, where), number)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@each
def test_a_table(tmp_path, suffix, number):
    rows = [
        {"run_id": f"r{i}{j}", "params": 1e3 * 2**i, "tokens": 1e5 * 3**j, "budget": 1e9,
         "loss": 1 + 2.0**-i + 3.0**-j, "config": {"lr": 0.1, "seed": 0}, "status": "done"}
        for i in range(4) for j in range(4)
    ]  # fmt: skip
    file = tmp_path / f"table{suffix}"
    text = changed(rows, number)
    if suffix == ".jsonl":
        rows[5] = "HERE"
        text = "\n".join(map(json.dumps, rows)).replace('"HERE"', changed({**rows[4]}, number))
    file.write_text(text)
    refused(lambda: read_runs(file))


@each
def test_a_text_in_json_lines(tmp_path, number):
    line = changed({"text": "words", "id": {"n": 1}}, number)
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n' + line + "\n")
    refused(lambda: list(sources.documents([tmp_path / "a.jsonl"], "text", Counter())))


@each
def test_what_is_known_of_a_corpus(text_corpus, number):
    file = text_corpus.folder / "meta.json"
    fed(file, json.loads(file.read_text()), lambda: store._load(text_corpus.folder), number)


@pytest.mark.parametrize("sealed", [False, True])
@each
def test_the_record_of_a_checkpoint(tmp_path, sealed, number):
    """With a seal that is right too: whoever can write the file can compute it."""
    folder = tmp_path / "run" / "checkpoints" / "5"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"step": 5, "examples": 40, "meta": {"batch_size": 8}, "joules": {},
              "layout": {"a": "b"}, "leaves": {"a": "00"}, "files": {"d/0": "00"}}  # fmt: skip
    content = json.loads(changed(record, number))
    if isinstance(content, dict):
        content["seal"] = verified.seal(content) if sealed else verified.seal(record)
    (folder / verified.RECORD).write_text(json.dumps(content))
    found, damage = verified.read_record(folder)
    assert damage or {"step", "meta", "layout", "leaves", "files"} <= found.keys()
    for name in found.get("files", {}):
        assert (folder / name).resolve().is_relative_to(folder.resolve())


@pytest.mark.parametrize("name", ["../../config.json", "d/../../../x", "/etc/hostname"])
def test_the_record_of_a_checkpoint_names_no_file_outside_its_folder(tmp_path, name):
    folder = tmp_path / "checkpoints" / "5"
    folder.mkdir(parents=True)
    for named, damaged in (("d/0", False), (name, True)):
        record = {"step": 5, "examples": 40, "meta": {}, "joules": {}, "layout": {}, "leaves": {},
                  "files": {named: "00"}}  # fmt: skip
        record["seal"] = verified.seal(record)
        (folder / verified.RECORD).write_text(json.dumps(record))
        found, damage = verified.read_record(folder)
        assert bool(damage) == damaged == (named not in found.get("files", {}))


@each
def test_a_lease(tmp_path, monkeypatch, number):
    monkeypatch.setenv("CHINCHILLA_JAX_LOCK", "lease")
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    lease = {"owner": "host 1", "pid": 1, "machine": lock._machine(), "token": "a", "count": 1,
             "period": 10.0, "released": False}  # fmt: skip
    (tmp_path / "lease-000001").write_text(changed(lease, number))
    lock.owner(tmp_path)
    lock.is_held(tmp_path)
    with lock.lock(tmp_path, patient=True) as mine:
        assert mine  # it never changed: its owner is taken for dead
    with lock.lock(tmp_path) as mine:
        assert mine


def readers(folder: Path):
    """Whatever reads a file of a work folder or of its run `a`."""
    directory = records.RunDirectory(folder / "runs" / "a")
    return (
        lambda: plans.read_plan(folder),
        lambda: read_run(directory.path / "config.json"),
        lambda: fits.read(folder / "plan.json"),
        directory.result,
        directory.failure,
        directory.last_heartbeat,
        directory.metrics,
        directory.last_flops,
        directory.owner,
    )


FILES = ("plan.json", "runs/a/config.json", "runs/a/result.json", "runs/a/failure.json",
         "runs/a/heartbeat.json", "runs/a/metrics.jsonl", "runs/a/lock")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    for read in readers(tmp_path):
        refused(read)
    with pytest.raises(UserError, match="is a device or a pipe, not a file"):
        storage.read_bytes(tmp_path / name)


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_that_grows_is_not_written_through_a_link_or_a_pipe(tmp_path, name, kind):
    """Whoever can write the folder can have one lead to any file of its owner."""
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (tmp_path / "thesis").write_text("x")
    if kind == "link":
        (run / name).symlink_to(tmp_path / "thesis")
    else:
        os.mkfifo(run / name)
    with pytest.raises(UserError, match=f"{name}: is a link or a pipe, not a file; remove it"):
        if name == "lock":
            with lock.lock(run):
                pass
        else:
            records.RunDirectory(run).metrics_writer().append([{"step": 1}])
    assert (tmp_path / "thesis").read_text() == "x"


def test_a_file_of_more_than_ours_has_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"a": "x" * 1000}))
    with pytest.raises(UserError, match=r"config\.json: .* more than 999 bytes"):
        json_data.read_json(tmp_path / "config.json", 999)


def test_a_file_takes_the_memory_that_it_has_and_not_the_most_it_may_have(tmp_path):
    """Where memory is limited (`ulimit -d`) a plan could not be read."""
    (tmp_path / "plan.json").write_text("{}")
    tracemalloc.start()
    try:
        assert json_data.read_json(tmp_path / "plan.json") == {}
        assert tracemalloc.get_traced_memory()[1] < 1e6 < json_data.MOST_JSON
    finally:
        tracemalloc.stop()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@example({"\n": None})  # a name with a line break
@example({"a" * 5000: None})
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_json_at_all(tmp_path, content):
    """As every file of a run and of a work folder."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(json.dumps(content).encode())
    for read in readers(tmp_path):
        refused(read)
