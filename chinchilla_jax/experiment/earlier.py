"""What earlier versions wrote and how people wrote to them, as this version has it.

Version 1 of the plan had one group, `training`, for what is now `training`, `measurement` and
`execution`; `seeds` and `lr_multipliers` for what now are entries of `vary`; and one corpus.
"""

from collections.abc import Mapping
from typing import Any

from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.schema import from_json

# Where a field of an experiment, or of a run, has gone.
MOVED = {
    "training.data_parallel": "execution.data_parallel",
    "training.fsdp": "execution.fsdp",
    "training.tensor": "execution.tensor",
    "training.microbatch": "execution.microbatch",
    "training.steps_per_dispatch": "execution.steps_per_dispatch",
    "training.log_every": "execution.log_every",
    "training.checkpoint_seconds": "execution.checkpoint_seconds",
    "training.keep_checkpoints": "execution.keep_checkpoints",
    "training.async_checkpoints": "execution.async_checkpoints",
    "training.save_final": "execution.save_final",
    "training.tensorboard": "execution.tensorboard",
    "training.eval_windows": "measurement.eval_windows",
    "training.divergence_factor": "measurement.divergence_factor",
    "lr_multipliers": "vary.recipe.lr_multiplier",
    "seeds": "vary.seed",
}


def plan(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a plan.json of version 1, without its number, as version 2 has it."""
    new = dict(content)
    experiment = upgraded(new.pop("experiment", None))
    cells = [{**cell, "run": upgraded(cell["run"])} for cell in new.pop("cells", [])]
    names = ("train_tokens", "data_fingerprint", "tokenizer_fingerprint")
    corpus = {name: new.pop(name) for name in names if name in new}
    data = from_json(DataConfig, experiment["data"], "plan.json: experiment.data")
    return {
        **new,
        "corpora": {fingerprint(data): corpus},
        "experiment": experiment,
        "cells": cells,
    }


def upgraded(config: Any) -> Any:
    """JSON of an experiment or a run, of any version, with every field where it is now."""
    if not isinstance(config, Mapping):
        return config
    new = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()
    }
    for old, now in MOVED.items():
        group, _, name = old.rpartition(".")
        fields = new.get(group) if group else new
        if isinstance(fields, dict) and name in fields:
            target, _, field = now.partition(".")
            if isinstance(place := new.setdefault(target, {}), dict):
                place[field] = fields.pop(name)
    if isinstance(vary := new.get("vary"), dict):
        for path, values in list(vary.items()):
            group, _, name = path.rpartition(".")
            place = new.get(group) if group else new
            # An axis of one value named no run: it is what the field itself has.
            if isinstance(values, list) and len(values) == 1 and isinstance(place, dict):
                place[name] = vary.pop(path)[0]
    return new
