"""Runs that need others: named, settled, put in order, written and read; each mistake in a line."""

import dataclasses
import json

import pytest

from chinchilla_jax.experiment import needs
from chinchilla_jax.experiment.config import CONVENTIONS, Experiment, LadderConfig, RunConfig
from chinchilla_jax.experiment.counting import forward_flops
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.plans import read_plan, write_plan
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.distillation import Distillation
from chinchilla_jax.techniques.quantisation import Quantisation

TEACHER = "techniques.distillation.teacher"
SHAPES = [
    ModelConfig(width=32, depth=depth, heads=2, kv_heads=2, head_size=16, ff_size=96)
    for depth in (1, 2, 4)
]


def experiment(panel=None, **changes):
    ladder = LadderConfig(
        widths=(16, 32), sizes_per_budget=(0,), min_tokens_per_param=0.1, min_steps=20
    )
    settings = {name: Setting(values=values) for name, values in (panel or {}).items()}
    return Experiment(
        **({"name": "t", "budgets": (1e10, 3e10), "ladder": ladder, "panel": settings} | changes)
    )


def by_id(cells):
    return {cell.run.run_id: cell for cell in cells}


TAUGHT = {"taught": {TEACHER: "3e10-32x3"}}


def test_by_budget_and_size_it_is_the_plain_run_of_the_same_seed():
    cells = by_id(plan(experiment(TAUGHT, vary={"seed": (0, 1)})))
    for seed in (0, 1):
        teacher = cells[f"3e10-32x3-s{seed}"].run
        for name in ("1e10-16x2", "3e10-32x3"):
            run = cells[f"{name}-taught-s{seed}"].run
            (other,) = run.needs
            assert other.run == teacher.run_id and other.asked == "3e10-32x3"
            assert other.fingerprint == fingerprint(teacher) and other.step == teacher.steps
            assert other.model == teacher.model and other.tokens == teacher.tokens
            assert other.flops == ledger(teacher).flops_matmul
            assert run.techniques.distillation.teacher == "3e10-32x3"
    plain, taught = cells["1e10-16x2-s0"].run, cells["1e10-16x2-taught-s0"].run
    assert plain.needs == () and (plain.steps, plain.batch_size) == (
        taught.steps,
        taught.batch_size,
    )


def test_a_plain_run_has_the_techniques_of_the_experiment_itself():
    techniques = Techniques(quantisation=Quantisation(after=(4.0,)))
    panel = TAUGHT | {"sparse": {"techniques.sparsity.level": 0.5}}
    cells = by_id(plan(experiment(panel, techniques=techniques)))
    assert cells["1e10-16x2-taught-s0"].run.needs[0].run == "3e10-32x3-s0"


def test_by_a_setting_it_is_the_run_of_it_that_has_the_same_shape_and_seed():
    start, c = "techniques.transfer.start", {"data.builder": "c_source"}
    budgets = {"first": (3e10,), "both": ()}
    panel = {name: Setting(values=c | {"data.validation_fraction": 0.01 * (n + 1)}, budgets=of)
             for n, (name, of) in enumerate(budgets.items())}  # fmt: skip
    for name, asked in (("begun", "first"), ("again", "1e10-both")):
        panel[name] = Setting(values={start: asked}, budgets=(1e10,))
    changes = {"seed": (0, 1), "recipe.lr_multiplier": (1.0, 2.0)}
    cells = by_id(plan(dataclasses.replace(experiment(vary=changes), panel=panel)))
    for ending in ("lr1-s0", "lr2-s0", "lr1-s1", "lr2-s1"):
        for size in ("16x2", "32x3"):
            found = [cells[f"1e10-{size}-{n}-{ending}"].run.needs[0] for n in ("begun", "again")]
            assert [other.run for other in found] == [
                f"3e10-{size}-first-{ending}", f"1e10-{size}-both-{ending}"
            ]  # fmt: skip
    panel["begun"] = Setting(values={start: "both"})
    with pytest.raises(UserError, match="could be 1e10-16x2-both-s0 or 3e10-16x2-both-s0; give"):
        plan(dataclasses.replace(experiment(), panel=panel))


def test_by_its_id_it_is_one_run_for_all():
    panel = {"taught": {TEACHER: "3e10-32x3-s1"}}
    cells = plan(experiment(panel, vary={"seed": (0, 1)}))
    taught = [cell for cell in cells if cell.run.needs]
    assert len(taught) == 8 and {c.run.needs[0].run for c in taught} == {"3e10-32x3-s1"}


def test_it_is_charged_in_parts():
    cells = by_id(plan(experiment(TAUGHT)))
    row, plain = (row_of(cells[f"1e10-16x2{x}-s0"].run) for x in ("-taught", ""))
    run, teacher = cells["1e10-16x2-taught-s0"].run, cells["3e10-32x3-s0"].run
    forward = run.steps * forward_flops(teacher.model, run.batch_size, run.sequence_length)
    assert row["flops_teacher"] == forward
    assert row["flops"] == plain["flops"] + forward == cells[run.run_id].flops
    assert row["needs_flops"] == row_of(teacher)["flops"]
    assert row["needs_tokens"] == teacher.tokens
    assert row["needs"] == "3e10-32x3-s0"
    assert not {"needs", "needs_flops", "flops_teacher"} & set(plain)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_its_teacher_is_in_its_flops_by_every_convention(convention):
    cells = by_id(plan(experiment(TAUGHT, flops_convention=convention)))
    taught = next(cell.run for cell in cells.values() if cell.run.needs)
    row = row_of(taught)
    dense = row_of(cells[taught.run_id.replace("-taught", "")].run)
    for name in ("flops", *(f"flops_{c}" for c in CONVENTIONS)):
        assert row[name] - row["flops_teacher"] == dense[name], name
    assert row["flops"] == cells[taught.run_id].flops


def test_what_a_teacher_needs_is_charged_with_it():
    panel = {"first": {TEACHER: "3e10-32x3"}, "second": {TEACHER: "1e10-32x3-first-s0"}}
    cells = by_id(plan(experiment(panel)))
    first, second = (cells[f"1e10-16x2-{name}-s0"].run for name in panel)
    middle = cells["1e10-32x3-first-s0"].run
    assert second.needs[0].flops == ledger(middle).flops_matmul + first.needs[0].flops
    behind = needs.chains([cell.run for cell in cells.values()])
    assert behind["3e10-32x3-s0"] == 2 and behind[middle.run_id] == 1 and sum(behind.values()) == 3


def test_one_that_is_needed_ends_with_a_checkpoint():
    cells = by_id(plan(experiment(TAUGHT, execution=Execution(save_final=False))))
    saved = {name for name, cell in cells.items() if cell.run.execution.save_final}
    assert saved == {"3e10-32x3-s0"}


def test_a_fingerprint_knows_the_other_run_and_not_what_it_is_called():
    run = by_id(plan(experiment(TAUGHT)))["1e10-16x2-taught-s0"].run
    (other,) = run.needs
    renamed = dataclasses.replace(run, needs=(dataclasses.replace(other, run="other"),))
    retrained = dataclasses.replace(run, needs=(dataclasses.replace(other, fingerprint="0"),))
    assert fingerprint(renamed) == fingerprint(run) != fingerprint(retrained)
    assert from_json(RunConfig, to_json(run), "run") == run


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda student, needs: [], "teacher = .* is not among its needs"),
        (
            lambda student, needs: [needs[0] | {"run": "nobody"}],
            "needs nobody, which is no planned",
        ),
        (lambda student, needs: [needs[0] | {"run": student}], "can never begin"),
    ],
)
def test_damaged_needs_of_a_plan_are_one_line(tmp_path, change, message):
    source = experiment(TAUGHT)
    write_plan(tmp_path, source, plan(source), {})
    file = tmp_path / "plan.json"
    content = json.loads(file.read_text())
    run = next(c["run"] for c in content["cells"] if c["run"].get("needs") and not c["reason"])
    run["needs"] = change(run["run_id"], run["needs"])
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"^{file}: {run['run_id']}.*{message}"):
        read_plan(tmp_path)


def test_a_plan_with_needs_is_written_and_read(tmp_path):
    source = experiment(TAUGHT)
    write_plan(tmp_path, source, plan(source), {})
    assert read_plan(tmp_path)[:2] == (source, plan(source))


MISTAKES = {
    "3e10-33x3": r'teacher = "3e10-33x3": is neither .* did you mean 3e10-32x3-s0\?',
    "3e10-32x3-taught-s0": r"the run 3e10-32x3-taught-s0 would need itself",
    "no/such/folder": "no/such/folder is no folder of a run, which has a config.json",
    "3e10-16x2-other-s0": "3e10-16x2-other-s0 -> .*taught-s0 -> .*other-s0|in a circle",
}


@pytest.mark.parametrize("teacher", MISTAKES)
def test_a_teacher_that_cannot_be_is_one_line(teacher):
    panel = {"taught": {TEACHER: teacher}, "other": {TEACHER: "1e10-16x2-taught-s0"}}
    with pytest.raises(UserError, match=MISTAKES[teacher]) as raised:
        plan(experiment(panel))
    assert "\n" not in str(raised.value)


def test_without_plain_runs_there_is_no_teacher():
    techniques = Techniques(distillation=Distillation(teacher="3e10-32x3"))
    with pytest.raises(UserError, match=r"would need itself|the grid has none"):
        plan(experiment(techniques=techniques))


def test_a_student_that_cannot_start_from_its_teacher_is_rejected_with_the_reason():
    panel = {"warm": {TEACHER: "1e11-32x4", "techniques.distillation.start": "teacher"}}
    ladder = LadderConfig(
        shapes=(*SHAPES, dataclasses.replace(SHAPES[1], depth=3)),
        sizes_per_budget=(0,), min_tokens_per_param=0.1,
    )  # fmt: skip
    cells = by_id(plan(experiment(panel, budgets=(1e11,), ladder=ladder)))
    reasons = {depth: cells[f"1e11-32x{depth}-warm-s0"].reason for depth in (1, 2, 3, 4)}
    assert reasons[1] == reasons[2] == reasons[4] == ""
    assert "3 layers are not every n-th of 4" in reasons[3]
    panel["warm"][TEACHER] = "1e10-16x2"
    cells = by_id(plan(experiment(panel)))
    assert "only its depth may differ" in cells["1e10-32x3-warm-s0"].reason


def test_without_a_teacher_there_is_no_distillation():
    weights = {"techniques.distillation.weight": (0.5, 0.9)}
    cells = plan(experiment(vary=weights))
    assert [c.reason for c in cells[1::2]] == [
        f"is the same run as {cell.run.run_id}" for cell in cells[::2]
    ]
    assert all(cell.run.techniques == Techniques() for cell in cells)


@pytest.mark.parametrize(
    "values", [{"weight": 1.5}, {"temperature": 0.0}, {"start": "warm"}], ids=str
)
def test_values_out_of_range_are_one_line(values):
    with pytest.raises(UserError, match=r"techniques\.distillation\."):
        Distillation(teacher="a", **values)


def test_a_folder_anywhere_may_be_needed_at_its_end_or_at_a_step(tmp_path):
    run = plan(experiment())[-1].run
    RunDirectory(tmp_path / "there").start(run)
    folder = str(tmp_path / "there")
    for asked, step in ((folder, run.steps), (f"{folder}/checkpoints/10", 10)):
        cells = plan(experiment({"taught": {TEACHER: asked}}))
        (other,) = cells[1].run.needs
        assert other.run == other.asked == asked and other.step == step
        assert other.tokens == step * run.batch_size * run.sequence_length
        assert other.flops == ledger(run).flops_matmul * step // run.steps
        assert needs.place(other, tmp_path / "runs") == tmp_path / "there"
    with pytest.raises(UserError, match=f"the run has {run.steps} steps"):
        plan(experiment({"taught": {TEACHER: f"{folder}/checkpoints/{run.steps + 1}"}}))


def test_a_teacher_of_another_vocabulary_is_one_line(tmp_path):
    run = plan(experiment())[-1].run
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=300))
    RunDirectory(tmp_path / "there").start(run)
    with pytest.raises(UserError, match="has a vocabulary of 300, and the student 256"):
        plan(experiment({"taught": {TEACHER: str(tmp_path / "there")}}))
