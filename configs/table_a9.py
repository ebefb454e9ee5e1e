"""A ladder from a table: the proportions of Table A9 at a sixteenth of its widths, for a CPU.

    ./launch/local.sh --config=configs/table_a9.py

Twelve runs of the chinchilla definition on the embedded corpus, 7.8e13 FLOPs: three times the
quickstart. The paper's models are narrow and deep next to the width rule of the other configs:
36 x 9 layers here where the rule has 48 x 3. What that shape costs or gains shows beside
configs/cpu_serious.py, whose curve at 1e13 FLOPs has the same text, tokens and recipe.

A ladder may be `widths` (shapes by the rule of experiment/recipe.py), `table` (a table of
third_party as it stands, as in configs/chinchilla.py) or, as here, any list of `shapes`.
"""

from dataclasses import replace

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.ladder import read_table
from chinchilla_jax.experiment.model import ModelConfig

SCALE = 16


def shrunk(shape: ModelConfig) -> ModelConfig:
    """`shape` with every vector SCALE times shorter; heads and layers stay."""
    return replace(
        shape,
        width=shape.width // SCALE,
        head_size=shape.head_size // SCALE,
        ff_size=shape.ff_size // SCALE,
    )


def get_config() -> Experiment:
    return Experiment(
        name="table_a9",
        budgets=(3e12, 1e13),
        ladder=LadderConfig(
            shapes=tuple(shrunk(shape) for shape in read_table("chinchilla_table_a9")[:20]),
            min_tokens_per_param=0.3,
        ),
        recipe=RecipeConfig(definition="chinchilla"),
    )
