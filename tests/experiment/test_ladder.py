"""The shapes of an experiment."""

import pytest

from chinchilla_jax.experiment import ladder
from chinchilla_jax.experiment.config import DataConfig, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from tests.experiment.test_grid import experiment


def test_the_chinchilla_ladder_has_its_fifty_shapes():
    shapes = ladder.trained_shapes(
        experiment(
            ladder=LadderConfig(table="chinchilla_table_a9"),
            recipe=RecipeConfig(definition="chinchilla", sequence_length=2048),
            data=DataConfig(tokenizer="sentencepiece", vocab_size=32000),
        )
    )
    assert len(shapes) == 50 and shapes[0].width == 512


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(UserError, match="did you mean chinchilla_table_a9"):
        ladder.read_table("chinchilla_table_a8")
