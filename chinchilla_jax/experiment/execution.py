"""How a run is carried out: on which devices, and what is logged and kept on the way."""

from dataclasses import dataclass, field

from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, one_of, positive, require

SWITCHES = ("auto", "on", "off")
MOST_THREADS = 256


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The mesh, the dispatches, the log and the checkpoints of a run.

    None of it is part of a run's fingerprint: a run may continue under other values, and ends with
    the same numbers but for the rounding of another mesh or another microbatch. On a CPU it goes on
    with the threads that it began with.
    """

    data_parallel: int = 0  # devices on each mesh axis; 0: all that the other axes leave
    fsdp: int = 1
    tensor: int = 1
    microbatch: int = 0  # sequences per gradient accumulation step; 0: the whole batch
    steps_per_dispatch: int = 0  # steps per call of the device; 0: 64 on CPU, 1 on accelerators
    log_every: int = 50  # steps
    checkpoint_seconds: float = 60.0  # between checkpoints
    keep_checkpoints: int = 2
    async_checkpoints: str = "auto"  # written while training goes on; auto: on accelerators
    save_final: bool = True
    tensorboard: bool = False
    wandb: str = field(default="", metadata=UNLESS_DEFAULT)  # a project of Weights & Biases
    # Of a run on one CPU device; 0: one in a sweep, `training/threads.py` says when else.
    threads: int = field(default=0, metadata=UNLESS_DEFAULT)
    # Of the electricity used, g of CO2 equivalents per kWh, as its supplier or a map of grids says.
    grams_co2e_per_kwh: float | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        where = "execution"
        one_of(f"{where}.async_checkpoints", self.async_checkpoints, SWITCHES)
        positive(
            where,
            fsdp=self.fsdp,
            tensor=self.tensor,
            log_every=self.log_every,
            checkpoint_seconds=self.checkpoint_seconds,
            keep_checkpoints=self.keep_checkpoints,
        )
        for name in ("data_parallel", "microbatch", "steps_per_dispatch", "threads"):
            value = getattr(self, name)
            require(value >= 0, f"{where}.{name}", value, "must be 0 (automatic) or more")
        most = f"must be at most {MOST_THREADS}: no cell of a grid gains by more"
        require(self.threads <= MOST_THREADS, f"{where}.threads", self.threads, most)
        allowed = len(self.wandb) <= 128 and not set(self.wandb) & set("/\\#?%:")
        require(
            allowed,
            f"{where}.wandb",
            self.wandb,
            "must be the name of a project: up to 128 characters, none of / \\ # ? % :",
        )
        intensity = self.grams_co2e_per_kwh
        require(
            intensity is None or 0 <= intensity <= 5000,
            f"{where}.grams_co2e_per_kwh",
            intensity,
            "must lie in [0, 5000] g of CO2 equivalents per kWh; coal is about 1000",
        )
