"""Which folder is meant by a run that is over."""

import dataclasses

import pytest

from chinchilla_jax.experiment import finished
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.records import run_directory
from tests.training.helpers import small_run


@pytest.fixture
def workdir(tmp_path):
    """A run that is done, a worse one, one that diverged and one that goes on."""
    run = small_run()
    results = {"best": 1.0, "worse": 2.0, "diverged": None, "begun": None}
    for name, loss in results.items():
        directory = run_directory(tmp_path, name)
        named = dataclasses.replace(run, run_id=name)
        directory.start(named)
        if name != "begun":
            status = "diverged" if name == "diverged" else "done"
            directory.finish(named, status, "why", {"loss": loss})
    return tmp_path


def test_a_run_is_found_by_its_folder_and_by_its_name(workdir):
    best, worse = (workdir / "runs" / name for name in ("best", "worse"))
    assert finished.folders_of(workdir) == [best, worse]
    for place in (best, workdir / "best", workdir):  # of a work folder the best
        assert finished.done_at(place) == best
    for place in (workdir / "bst", best.parent / "bst"):
        with pytest.raises(UserError, match=r"is no run; did you mean best\?.*begun, best, diverg"):
            finished.folder_of(place)
    with pytest.raises(UserError, match="there is no run"):
        finished.folder_of(workdir / "nothing" / "here")


def test_a_damaged_result_leaves_the_other_runs(workdir, caplog):
    best, worse = (workdir / "runs" / name for name in ("best", "worse"))
    (best / "result.json").write_text("{")
    assert finished.done_at(workdir) == worse
    assert "left out:" in caplog.text and f"{best}/result.json" in caplog.text
    assert finished.folders_of(workdir) == [best, worse]  # who reads the first tells what it has
    (worse / "result.json").write_text("{}")
    for place in (workdir, best):
        with pytest.raises(UserError, match=r"best/result\.json"):
            finished.done_at(place)


@pytest.mark.parametrize("name,told", [
    ("begun", "is not finished"),
    ("diverged", "has diverged: why"),
])  # fmt: skip
def test_a_run_that_is_not_done_is_refused(workdir, name, told):
    with pytest.raises(UserError, match=told):
        finished.done_at(workdir / name)
