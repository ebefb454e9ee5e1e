"""How a run starts from another one: see `chinchilla_jax/techniques/transfer.py`."""

from typing import Any

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.techniques.transfer import Transfer
from chinchilla_jax.training.initial import abstract_params
from chinchilla_jax.training.sharding import with_shardings
from chinchilla_jax.training.sources import Sources
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.techniques.hooks import Hooks


def _start(state: TrainState, config: Transfer, run: RunConfig, sources: Sources) -> TrainState:
    """The weights of the other run; moments of the optimizer and the schedule begin anew.

    Raises:
      UserError: a run of another parametrization, under which they would make another model.
    """
    other, ours = sources[config.start].other, run.optimizer
    if (other.parametrization, other.base_width) != (ours.parametrization, ours.base_width):
        raise UserError(
            f"{run.run_id} starts from {other.run}, which was trained under "
            f"{other.parametrization} of base width {other.base_width}, here "
            f"{ours.parametrization} of {ours.base_width}; take the same"
        )
    where: Any = state.step.sharding
    model = Decoder(run.model, scaling=Scaling(), scan="layers" in state.params)
    params = sources[config.start].params(with_shardings(abstract_params(model), where.mesh))
    return state.replace(params=params)


HOOKS = Hooks(start=_start)
