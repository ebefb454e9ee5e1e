"""Further laws behind one interface: a file each, found by name in `LAWS`."""

from chinchilla_jax import techniques
from chinchilla_jax.scaling.laws.compute import COMPUTE
from chinchilla_jax.scaling.laws.farseer import FARSEER
from chinchilla_jax.scaling.laws.kaplan import KAPLAN
from chinchilla_jax.scaling.laws.over_training import OVER_TRAINING
from chinchilla_jax.scaling.laws.surface import SURFACE
from chinchilla_jax.techniques.law import Law

LAWS: dict[str, Law] = {
    law.name: law for law in (SURFACE, KAPLAN, COMPUTE, OVER_TRAINING, FARSEER, *techniques.laws())
}
