"""What a start is worth in data: golden values, the law in a loss surface, and the ruler."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.ledger import facts
from chinchilla_jax.experiment.needs import other_run
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.transfer import TEXT, TEXT_AND_CODE, TRANSFER, Transfer, transferred
from tests.training.helpers import small_run


@pytest.mark.parametrize(
    ("published", "params", "characters", "ratio"),
    [(TEXT, 4e7, 3e5, 474.6), (TEXT, 1e9, 1e8, 13.76), (TEXT_AND_CODE, 1e9, 1e8, 32.38)],
)
def test_effective_data_transferred(published, params, characters, ratio):
    found = transferred(np.float64(characters), np.float64(params), published) / characters
    assert found == pytest.approx(ratio, rel=4e-4)


def test_a_run_from_scratch_has_its_own_data_alone():
    surface = {"E": 1.5, "A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.3} | TEXT
    own, n = np.float64(1e8), np.float64(1e8)
    scratch, more, begun = (
        TRANSFER.predict(surface, params=n, tokens=d, pretrained_tokens=before)
        for d, before in ((own, 0.0), (own + transferred(own, n, TEXT), 0.0), (own, 1e10))
    )
    assert begun == pytest.approx(more, rel=1e-12) and begun < scratch


def begun(model=None, **changes):
    run = small_run(model=model)
    config = Transfer(start="first")
    first = other_run("first", "first", dataclasses.replace(small_run(), run_id="first"))
    known = dataclasses.replace(run, techniques=Techniques(transfer=config), needs=(first,))
    return dataclasses.replace(known, **changes)


def test_a_start_of_another_shape_is_left_out_and_of_another_vocabulary_an_error():
    assert techniques.misfit(begun().techniques, facts(begun())) == ""
    run = begun({"depth": 1})
    assert techniques.misfit(run.techniques, facts(run)) == (
        "cannot start from first: it is of another shape (32x2, not 32x1)"
    )
    run = begun({"ff_size": 32})
    assert "another 32x2" in techniques.misfit(run.techniques, facts(run))
    run = begun({"vocab_size": 300})
    with pytest.raises(UserError, match="a run starts from one of its own tokenizer"):
        techniques.misfit(run.techniques, facts(run))
