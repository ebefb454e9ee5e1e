"""What a generated token is to read, by the ledger of a run."""

import dataclasses

from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.parameters import FLOAT32
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.training.serving import ledger_bytes
from tests.training.helpers import small_run


def test_bytes_of_the_ledger_are_those_that_a_token_meets():
    run = small_run(model={"vocab_size": 256, "kv_heads": 2})
    model = run.model
    met = ledger(run).total("stored") - 256 * 32 + 32  # of the embedding a row
    kept = model.depth * 2 * 16 * 2 * 4
    assert ledger_bytes(run, 2) == FLOAT32 * met + 2 * kept
    relative = small_run(model={"definition": "chinchilla"})
    projections = 2 * 32 * 32  # of distances, whose products are kept
    kept = 2 * (2 * 16 + 17) * 32
    stored = ledger(relative).total("stored") - projections
    assert ledger_bytes(relative, 4) == FLOAT32 * (stored + kept)
    few = dataclasses.replace(run, techniques=Techniques(quantisation=Quantisation(bits=4)))
    assert ledger_bytes(few, 2) < 0.4 * ledger_bytes(run, 2)
    mixed = dataclasses.replace(model, experts=8, expert_picks=1, expert_size=64)
    extra = ledger_bytes(dataclasses.replace(run, model=mixed), 2) - ledger_bytes(run, 2)
    assert extra == FLOAT32 * model.depth * (3 * 32 * 64 + 32 * 8)
