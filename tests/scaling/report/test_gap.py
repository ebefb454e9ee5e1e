"""The law of students on runs and their dense partners: fitted for each kind, and its figure."""

from dataclasses import replace

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.report import comparison
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.gap import drawers, gap
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.techniques import without
from chinchilla_jax.techniques.teachers import student_loss, supervised_loss
from tests.scaling.report.marks import assert_points_are_listed

LAW = LAWS["students"]
OFF = without("students")
PARAMS = np.array([198e6, 546e6, 975e6])
RATIOS = (20.0, 80.0, 320.0)
TEACHERS = np.array([546e6, 1.82e9, 4.82e9, 12.6e9])


def sweep(noise=0.002):
    """Dense runs, students of four teachers, and students begun from one, better by a tenth."""
    random, rows = np.random.default_rng(0), []
    known = supervised_loss(TEACHERS, 20 * TEACHERS)

    def add(name, params, tokens, loss, **more):
        rows.append({
            "run_id": name, "status": "done", "params_total": params, "tokens": tokens,
            "flops": 6 * params * tokens, "seed": 0, **OFF, **more,
            "loss": float(loss * np.exp(noise * random.standard_normal())),
        })  # fmt: skip

    for params in PARAMS:
        for tokens in params * np.array(RATIOS):
            name = f"{params:g}-{tokens:g}"
            add(name, params, tokens, supervised_loss(params, tokens))
            for size, teacher_loss in zip(TEACHERS, known, strict=True):
                loss = student_loss(params, tokens, teacher_loss)
                taught = {
                    "distillation_teacher": f"{size:g}",
                    "distillation_teacher_loss": float(teacher_loss),
                }
                add(f"{name}-{size:g}", params, tokens, loss, **taught)
                taught["distillation_start"] = "teacher"
                if size == TEACHERS[1]:
                    add(f"{name}-begun", params, tokens, 0.9 * loss, **taught)
    return rows


@pytest.fixture(scope="module")
def compared():
    runs = read_runs(sweep())
    return *compare(runs, Settings(bootstrap=0), [LAW]), runs


def test_each_kind_of_student_has_a_fit_of_its_own(compared):
    found, _, _ = compared
    taught, begun = found.laws
    assert taught.condition == {"distillation_start": "random"}
    assert taught.fit.runs == 36 and taught.fit.rms == pytest.approx(0.002, rel=0.3)
    assert begun.fit is None and "cannot determine" in begun.reason


def test_students_are_drawn_against_their_teachers(compared, tmp_path):
    found, arrays, runs = compared
    fit = found.laws[0].fit
    with style.styled():
        figure = comparison.law_figures(found, runs)["gap"]()
    (ax,) = figure.axes
    curves, missed = ax.lines[: len(PARAMS)], []
    for line, dots, params in zip(curves, ax.collections, PARAMS, strict=True):
        x, y = line.get_data()
        points = dots.get_offsets()
        assert len(points) == len(RATIOS) * len(TEACHERS)
        # The curve at the middle length, against the law that made the runs.
        dense = supervised_loss(params, RATIOS[1] * params)
        true = student_loss(params, RATIOS[1] * params, x * dense) / dense - 1
        np.testing.assert_allclose(y, 100 * true, atol=1.0)
        on_line = np.interp(points[:, 0], x, y)
        missed.append(points[:, 1] - on_line)
    assert np.std(missed) == pytest.approx(100 * fit.rms, rel=0.2)
    (bend,) = (line for line in ax.lines if str(line.get_label()).startswith("bend at d1"))
    assert bend.get_xdata()[0] == fit.parameters["d1"]
    with style.styled():
        unknown = gap(replace(fit, interval={"d1": None}), where(runs, found.laws[0].condition))
    assert len(unknown.axes[0].lines) == len(ax.lines) - 1
    page = comparison.write(tmp_path, found, arrays, runs).read_text()
    assert 'id="gap"' in page and (tmp_path / "gap.png").exists()
    assert_points_are_listed(tmp_path, "gap")
    assert drawers([], runs) == {}


def test_without_dense_runs_one_line_says_what_would_give_their_loss():
    rows = [row for row in sweep() if row["distillation_teacher"]]
    with pytest.raises(UserError, match="needs the column dense_loss, the loss of the same run"):
        compare(read_runs(rows), Settings(bootstrap=0), [LAW])
