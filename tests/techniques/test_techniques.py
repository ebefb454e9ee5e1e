"""One field and one row a technique: what is planned, counted and told follows from the table."""

import ast
import dataclasses
from pathlib import Path

import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment import estimate, memory
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.hardware import by_name
from chinchilla_jax.experiment.ledger import dense, facts, ledger
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.meshes import MeshShape
from chinchilla_jax.experiment.plans import read_plan, write_plan
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.results import write
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling.table.conditions import conditions
from chinchilla_jax.scaling.table.kinds import _TECHNIQUES as KNOWN
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.techniques import TECHNIQUES, Techniques
from tests.techniques.toy import TOY, Toy, WithToy, toy, with_toy  # noqa: F401
from tests.training.helpers import small_run

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "chinchilla_jax"
HOMES = ("techniques", "training/techniques")
# What turns each technique on.
ON = {
    "shape": {"width_multiplier": 3.0},
    "sparsity": {"level": 0.5},
    "distillation": {"teacher": "1e11-32x3"},
    "quantisation": {"bits": 4.0},
    "experts": {"routed": 4},
    "data": {"unique_tokens": 65536, "noise": 0.25},
    "transfer": {"start": "1e11-32x3"},
}


def experiment(**changes):
    ladder = LadderConfig(widths=(16, 32), sizes_per_budget=(0,), min_tokens_per_param=0.1)
    return Experiment(name="t", budgets=(1e11,), ladder=ladder, **changes)


def toys(**vary):
    return experiment(
        techniques=WithToy(), vary={f"techniques.toy.{name}": x for name, x in vary.items()}
    )


def test_every_technique_has_a_field_and_a_row():
    fields = dataclasses.fields(Techniques)
    assert [f.name for f in fields] == [technique.name for technique in TECHNIQUES]
    for technique in TECHNIQUES:
        assert getattr(Techniques(), technique.name) == technique.off
        hash(technique.off)
        assert (PACKAGE / "techniques" / f"{technique.name}.py").exists()


def test_off_a_run_is_planned_counted_and_told_as_before(request):
    before = plan(experiment())
    told = [(to_json(cell), fingerprint(cell.run), row_of(cell.run)) for cell in before]
    request.getfixturevalue("toy")
    off = plan(experiment(techniques=WithToy(toy=Toy())))
    assert told == [(to_json(cell), fingerprint(cell.run), row_of(cell.run)) for cell in off]
    for cell in off:
        assert "techniques" not in to_json(cell.run)
        assert ledger(cell.run) == dense(facts(cell.run))
        assert not any(name.startswith(("shape_", "toy_")) for name in row_of(cell.run))


def test_on_it_is_planned_counted_and_told(toy):  # noqa: F811
    cells = plan(toys(level=(0.0, 0.5), kind=("plain", "odd")))
    names = [cell.run.run_id.split("-", 2)[2] for cell in cells[:4]]
    assert names == [f"level_{x}-kind_{kind}-s0" for x in ("0", "0.5") for kind in ("plain", "odd")]
    dense_run, on = cells[0].run, cells[2].run
    without = plan(experiment(techniques=WithToy()))[0].run
    assert fingerprint(dense_run) == fingerprint(without)
    assert len({fingerprint(cell.run) for cell in cells}) == len(cells)
    assert to_json(on)["techniques"] == {"toy": {"level": 0.5, "kind": "plain"}}
    row, costs = row_of(on), ledger(on)
    assert (row["toy_level"], row["toy_kind"]) == (0.5, "plain")
    assert row["flops_toy"] == costs.training["toy"] == 10 * on.tokens
    assert row["flops"] == cells[2].flops == ledger(dense_run).flops_matmul + row["flops_toy"]
    assert row["params_total"] == row_of(dense_run)["params_total"]
    assert row["params_nonzero"] < row["params_total"]


def test_epochs_are_those_of_the_text_that_is_left(toy):  # noqa: F811
    source = toys(kind=("plain", "half"))
    most = max(cell.tokens for cell in plan(source))
    reasons = {
        cell.run.techniques.toy.kind: cell.reason
        for cell in plan(source, int(most / 3))
        if cell.tokens == most
    }
    assert reasons == {"plain": "", "half": "needs 6 epochs of the corpus, over 4"}


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_time_and_memory_are_those_of_its_ledger_and_of_what_it_carries(toy, remat):  # noqa: F811
    plain = small_run(model={"width": 64, "depth": 2}, training={"remat": remat})
    run, h200 = with_toy(plain, level=0.5), by_name("h200")
    mesh = MeshShape(1, 2, 2)
    without, found = (estimate.on_mesh(each, mesh, 1, h200) for each in (plain, run))
    forward = ledger(run).training["forward"] if remat == "full" else 0
    flops = (ledger(run).flops_matmul + forward) / run.steps
    assert found.arithmetic_seconds == pytest.approx(flops / (4 * h200.peak_flops), rel=1e-12)
    assert found.arithmetic_seconds > without.arithmetic_seconds
    assert found.memory.state - without.memory.state == pytest.approx(2000 / 4, rel=0.05)
    alone = MeshShape()
    assert memory.state_bytes(run, alone) - memory.state_bytes(plain, alone) == 2000


def test_a_plan_with_it_is_written_and_read(toy, tmp_path):  # noqa: F811
    planned = toys(level=(0.0, 0.5))
    write_plan(tmp_path, planned, plan(planned), {})
    again, cells, _ = read_plan(tmp_path)
    assert again == planned and cells == plan(planned)


def test_rows_without_it_have_its_dense_value_beside_those_with_it(toy, tmp_path):  # noqa: F811
    planned = toys(level=(0.0, 0.5))
    cells = plan(planned)
    write_plan(tmp_path, planned, cells, {})
    rows = write(tmp_path)
    assert [row["toy_level"] for row in rows] == [0.0, 0.5] * (len(cells) // 2)
    assert {row["toy_kind"] for row in rows} == {"plain"}
    assert all(set(row) >= {"toy_level", "toy_kind"} for row in rows)
    assert "shape_width_multiplier" not in rows[0]


def test_a_finished_run_stands_for_the_rows_that_a_technique_derives(toy):  # noqa: F811
    once, twice = ({"run_id": name, "loss": 2.0, "toy_level": 0.0} for name in "ab")
    assert techniques.derived([once, {**once, "toy_twice": None}]) == []
    found = techniques.derived([once, {**twice, "toy_twice": 1.5}])
    assert [(row["run_id"], row["toy_level"], row["loss"]) for row in found] == [
        ("b-twice", 2.0, 1.5)
    ]


def test_a_folder_begun_without_it_is_not_continued_with_it(toy, tmp_path):  # noqa: F811
    run = plan(experiment(techniques=WithToy()))[0].run
    RunDirectory(tmp_path).start(run)
    with pytest.raises(UserError, match=r"techniques was None, now \{'toy': \{'level': 0.5"):
        RunDirectory(tmp_path).start(with_toy(run, level=0.5))


def test_a_technique_that_a_shape_cannot_have_is_one_line(toy):  # noqa: F811
    with pytest.raises(UserError, match=r"techniques\.toy\.level = 9: over 2 layers"):
        plan(toys(level=(0.0, 9.0)))


def test_it_is_set_from_the_command_line():
    config = str(ROOT / "configs" / "quickstart.py")
    wide = load_experiment(config, [("techniques.shape.width_multiplier", "0.5")])
    assert wide.techniques.shape.width_multiplier == 0.5
    varied = load_experiment(config, [("vary.techniques.shape.depth_multiplier", "1,2")])
    assert varied.vary == {"techniques.shape.depth_multiplier": (1.0, 2.0)}
    with pytest.raises(UserError, match="did you mean width_multiplier"):
        load_experiment(config, [("techniques.shape.width_multiplyer", "2")])


def test_the_evaluator_knows_every_column_of_every_technique():
    assert techniques.dense_columns()["shape_width_multiplier"] == 1.0
    assert set(techniques.dense_columns()) == KNOWN
    rows = [
        {"params": n, "tokens": d, "loss": 3 - n / 1e7, "shape_width_multiplier": x}
        for x in (1.0, 1.5) for n in (1e6, 2e6, 4e6) for d in (1e8, 2e8)
    ]  # fmt: skip
    assert read_runs(rows).kinds["shape_width_multiplier"].reason == "a technique's"
    assert len(conditions(read_runs(rows))) == 2
    for technique in TECHNIQUES:
        run = plan(experiment())[0].run
        on = dataclasses.replace(technique.off, **ON[technique.name])
        run = dataclasses.replace(run, techniques=Techniques(**{technique.name: on}))
        assert set(row_of(run)) & KNOWN == set(technique.columns(on))


def named(path, names):
    """Where a file outside the techniques' own names one: imports, fields, columns, laws."""
    words = set(techniques.dense_columns()) | {law.name for law in techniques.laws()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("techniques"):
            yield from (a.name for a in node.names if a.name in names)
        if isinstance(node, ast.ImportFrom) and ".techniques." in f"{node.module}":
            yield from (n for n in names if f"{node.module}.".endswith(f".techniques.{n}."))
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[-1] in names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("techniques"):
            yield from ({node.attr} & names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Techniques"):
            yield from (k.arg for k in node.keywords)
        if isinstance(node, ast.Constant) and node.value in words:
            yield node.value


def test_no_file_names_a_technique_but_its_own_and_the_tables():
    names = {technique.name for technique in TECHNIQUES}
    for path in PACKAGE.rglob("*.py"):
        if not path.relative_to(PACKAGE).as_posix().startswith(HOMES):
            assert list(named(path, names)) == [], path
    assert set(named(PACKAGE / "techniques" / "__init__.py", names)) == names  # the table does


def test_that_test_sees_names(tmp_path):
    file = tmp_path / "loop.py"
    for line in (
        "from chinchilla_jax.techniques.shape import shaped",
        "from chinchilla_jax.techniques import shape",
        "from chinchilla_jax.training.techniques import shape",
        "x = run.techniques.shape",
        "x = Techniques(shape=1)",
        "x = row['shape_width_multiplier']",
        "x = law.name == 'width_depth'",
    ):
        file.write_text(line)
        assert list(named(file, {"shape"})), line
    file.write_text("x = array.shape; from a.techniques import active")
    assert not list(named(file, {"shape"}))


def test_the_toy_is_no_part_of_the_package():
    assert TOY not in TECHNIQUES


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("sparsity", {"level": "0.75"}, "75 % sparse"),
        ("sparsity", {"level": "0.5", "group_size": "4"}, "2:4 sparse"),
        ("sparsity", {"level": "0.5", "ramp_end": "0.9"}, "50 % sparse, ramp end 0.9"),
        ("sparsity", {"ramp_end": "0.9"}, "sparsity ramp end 0.9"),
        ("distillation", {"teacher": "3e12-48x3"}, "distilled from 3e12-48x3"),
        ("distillation", {"teacher": "a", "start": "teacher", "weight": "0"},
         "distilled from a, begun from its layers, weight 0"),
        ("quantisation", {"bits": "4"}, "4 bits"),
        ("quantisation", {"bits": "4", "start": "1"}, "4 bits after training"),
        ("quantisation", {"bits": "1", "start": "0.75", "group": "32"},
         "1 bit from 75 % on, group 32"),
        ("shape", {"depth_multiplier": "0.5", "kv_heads": "2"},
         "0.5 x depth, 2 key-value heads"),
        ("shape", {"ff_multiplier": "2", "kv_heads": "1", "width_multiplier": "2"},
         "2 x feed-forward ratio, 1 key-value head, 2 x width"),
        ("experts", {"routed": "8"}, "1 of 8 experts"),
        ("experts", {"routed": "8", "per_token": "2", "shared": "1", "balance": "loss"},
         "2 of 8 experts, 1 shared, balance loss"),
        ("experts", {"capacity": "1.25"}, "experts capacity 1.25"),
        ("transfer", {"start": "3e12-48x3"}, "begun from 3e12-48x3"),
        ("data", {"quality": "classifier", "curated": "good"}, "50 % of the text by classifier"),
        ("data", {"quality": "random", "keep": "0.25"}, "random 25 % of the text"),
        ("data", {"quality": "gopher"}, "text by gopher"),
        ("data", {"mixed_with": "['c_source']", "weights": "[1.0, 1.0]"}, "50 % c_source"),
        ("data", {"mixed_with": "['a', 'b']", "weights": "[2.0, 1, 1e0]"}, "25 % a and 25 % b"),
        ("data", {"mixed_with": "['a']", "noise": "0.1"}, "10 % noise, mixed with a"),
        ("data", {"keep": "0.25"}, "keep 0.25"),
        ("data", {"unique_tokens": "65536"}, "65536 unique tokens"),
        ("data", {"unique_tokens": "0", "noise": "0.25"}, "all of the text, 25 % noise"),
    ],
)  # fmt: skip
def test_settings_in_words(name, fields, words):
    technique = next(t for t in techniques.TECHNIQUES if t.name == name)
    assert technique.described(fields) == words
    assert {f"{name}_{field}" for field in fields} <= {*technique.known}
