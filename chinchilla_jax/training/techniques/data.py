"""How the text of a run is made: see `chinchilla_jax/techniques/data.py`."""

from dataclasses import replace

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.techniques.data import Data
from chinchilla_jax.training.techniques.hooks import Hooks


def _corpus(corpus: Corpus, config: Data, run: RunConfig) -> Corpus:
    return replace(corpus, most=config.unique_tokens or None, noise=config.noise)


HOOKS = Hooks(corpus=_corpus)
