"""Experts: feed-forward networks of which every token goes through a few, as a router picks them.

Each layer's feed-forward network becomes `routed` experts, of which a token picks `per_token`, and
`shared` ones that all tokens go through (Dai et al. 2024, DeepSeekMoE, arXiv 2401.06066). Experts
are 1/`granularity` of the dense network (Krajewski et al. 2024, arXiv 2402.07871); by default so
small that a token meets as many parameters as in the dense run, beside the router. With one routed
expert a run is the dense run.

Loads are balanced by a bias of each expert's choice, a little more after a step in which it had
less than its part (Wang et al. 2024, arXiv 2408.15664), by a loss (Fedus et al. 2022, arXiv
2101.03961, equation 4; here by sequence), or not at all. No token is dropped, unless `capacity`
says how many of a sequence an expert takes: by sequence, so that neither the mesh nor the batch
decides what is dropped, and no token depends on a later one.

A budget buys the passes through what a token meets; what routers compute comes on top, as
`flops_router`. So a run has the tokens of its dense partner. Blocks that are filled in part are not
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chinchilla_jax.experiment.counting import SIX
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import FLOAT32, PARAMETERS, active
from chinchilla_jax.experiment.schema import one_of, require
from chinchilla_jax.techniques.routing import JOINT, LEVERAGE, ROUTED
from chinchilla_jax.techniques.technique import Facts, Ledger, Technique, listed

_WHERE = "techniques.experts"
BALANCES = ("bias", "loss", "none")


@dataclass(frozen=True, kw_only=True)
class Experts:
    """How many experts there are, how many a token meets, and how they are kept busy."""

    routed: int = field(default=1, metadata={"short": "E"})  # a token picks among; 1 is dense
    per_token: int = field(default=1, metadata={"short": "k"})
    shared: int = field(default=0, metadata={"short": "sh"})  # every token goes through
    # Of the dense network's size to an expert's; 0: per_token + shared, of equal active size.
    granularity: int = field(default=0, metadata={"short": "G"})
    balance: str = field(default="bias", metadata={"short": "by"})
    bias_rate: float = 1e-3  # a step, of a probability
    loss_weight: float = 0.01  # a layer, in nats
    router_weight: float = 0.0  # of logsumexp^2 of router logits in the loss; Zoph et al.: 1e-3
    # Picks of a sequence that an expert takes, over an equal split; 0: all.
    capacity: float = field(default=0.0, metadata={"short": "cap"})

    def __post_init__(self) -> None:
        require(self.routed >= 1, f"{_WHERE}.routed", self.routed, "must be 1 (dense) or more")
        require(
            self.routed == 1 or 1 <= self.per_token < self.routed,
            f"{_WHERE}.per_token",
            self.per_token,
            f"must be at least 1 and fewer than routed = {self.routed}",
        )
        for name in ("shared", "granularity", "bias_rate", "loss_weight", "router_weight"):
            value = getattr(self, name)
            require(value >= 0, f"{_WHERE}.{name}", value, "must be 0 or more")
        one_of(f"{_WHERE}.balance", self.balance, BALANCES)
        require(
            self.capacity == 0 or self.capacity >= 1,
            f"{_WHERE}.capacity",
            self.capacity,
            "must be 0 (no token is dropped), 1 (an equal split) or more",
        )

    @property
    def parts(self) -> int:
        """How many experts make the dense network."""
        return self.granularity or self.per_token + self.shared


def with_experts(planned: ModelConfig, config: Experts) -> ModelConfig:
    """The shape with experts in place of its feed-forward networks.

    Raises:
      UserError: a network that does not divide into experts.
    """
    if config.routed == 1:
        return planned
    if planned.ff_size % config.parts:
        sizes = [n for n in range(1, 65) if planned.ff_size % n == 0]
        near = sorted(sorted(sizes, key=lambda n: abs(n - config.parts))[:3])
        why = "" if config.granularity else " (per_token + shared, since none is given)"
        raise UserError(
            f"{_WHERE}.granularity = {config.parts}{why}: does not divide the feed-forward size "
            f"{planned.ff_size} of width {planned.width}; near it are {', '.join(map(str, near))}"
        )
    size = planned.ff_size // config.parts
    return replace(
        planned,
        ff_size=config.shared * size,
        experts=config.routed,
        expert_picks=config.per_token,
        expert_size=size,
        expert_capacity=config.capacity,
    )


def counted(ledger: Ledger, config: Experts, facts: Facts) -> Ledger:
    """With the routers' FLOPs, forward and backward."""
    router = active(PARAMETERS["router"], facts.model)
    return ledger.add("router", SIX * router * facts.tokens)


def state_bytes(config: Experts, facts: Facts) -> int:
    """Of biases and of what is summed up over steps, everywhere."""
    return 2 * FLOAT32 * facts.model.depth * facts.model.experts


def _reduced(config: Experts) -> Experts:
    return config if config.routed > 1 else Experts()


def words(fields: Mapping[str, str]) -> str:
    """`2 of 8 experts, 1 shared`, with what else differs behind it."""
    rest = {k: v for k, v in fields.items() if k not in ("routed", "per_token", "shared")}
    if "routed" not in fields:
        return f"experts {listed(fields)}"
    shared = f"{fields['shared']} shared" if "shared" in fields else ""
    picked = f"{fields.get('per_token', '1')} of {fields['routed']} experts"
    return ", ".join(filter(None, [picked, shared, listed(rest)]))


MEASURES = ("experts_dropped", "experts_largest_load")


TECHNIQUE = Technique(
    name="experts",
    off=Experts(),
    reduced=_reduced,
    model=with_experts,
    ledger=counted,
    carried=state_bytes,
    measures=MEASURES,
    laws=(ROUTED, JOINT, LEVERAGE),
    words=words,
)
