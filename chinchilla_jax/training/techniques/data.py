"""How the text of a run is made: see `chinchilla_jax/techniques/data.py`."""

from dataclasses import replace

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.techniques.data import Data
from chinchilla_jax.training.techniques.hooks import Hooks


def _corpus(corpus: Corpus, config: Data, run: RunConfig) -> Corpus:
    if config.quality:
        from chinchilla_jax.data.selection import selected

        corpus = selected(corpus, config.quality, config.keep, config.curated)
    return replace(corpus, most=config.unique_tokens or None, noise=config.noise)


HOOKS = Hooks(corpus=_corpus)
