"""The shape of a model: what every other wing knows of it without the rest of a run."""

from dataclasses import dataclass

from chinchilla_jax.experiment.schema import one_of, positive, require

DEFINITIONS = ("chinchilla", "modern")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one decoder.

    `chinchilla`: RMSNorm, Transformer-XL relative positions, GELU, tied embedding (Hoffmann et
    al. 2022, after Gopher). `modern`: RMSNorm, rotary positions, QK-norm, SwiGLU, untied readout,
    grouped-query attention where `kv_heads < heads`.
    """

    definition: str = "modern"
    vocab_size: int = 256  # V
    width: int  # D, the residual stream
    depth: int  # L, layers
    heads: int  # H, query heads
    kv_heads: int  # G, key and value heads; H unless queries share them
    head_size: int  # K; H K need not equal D (six rows of Table A9 differ)
    ff_size: int  # F

    def __post_init__(self) -> None:
        where = "model"
        one_of(f"{where}.definition", self.definition, DEFINITIONS)
        positive(
            where,
            vocab_size=self.vocab_size,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            ff_size=self.ff_size,
        )
        require(
            self.heads % self.kv_heads == 0,
            f"{where}.kv_heads",
            self.kv_heads,
            f"must divide heads = {self.heads}",
        )
        if self.definition == "chinchilla":
            require(
                self.kv_heads == self.heads,
                f"{where}.kv_heads",
                self.kv_heads,
                f"the chinchilla definition has as many as heads = {self.heads}",
            )
            require(
                self.width % 2 == 0,
                f"{where}.width",
                self.width,
                "must be even for the sines and cosines of relative positions",
            )
        else:
            require(
                self.head_size % 2 == 0,
                f"{where}.head_size",
                self.head_size,
                "must be even, since rotary positions turn pairs",
            )
