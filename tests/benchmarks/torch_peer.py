"""The same model and training step in PyTorch, for benchmarks side by side."""

import contextlib
import time
from typing import Any

import numpy as np
from peers import DISPATCH, process_peak_bytes, windows

from chinchilla_jax.experiment import config
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.parameters import parameter

INSTALL = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"


def torch_decoder(shape: ModelConfig, sequence: int, embedding_scale: float) -> Any:
    """The `modern` definition as a person writes it in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    norm_eps = 1e-6
    heads, size = shape.heads, shape.head_size

    def rotary() -> tuple[torch.Tensor, torch.Tensor]:
        rates = 10_000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(sequence), rates)
        return angles.cos(), angles.sin()

    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query_key_value = nn.Linear(shape.width, 3 * heads * size, bias=False)
            self.query_norm = nn.RMSNorm(size, norm_eps)
            self.key_norm = nn.RMSNorm(size, norm_eps)
            self.out = nn.Linear(heads * size, shape.width, bias=False)

        def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
            b, s, _ = x.shape
            q, k, v = self.query_key_value(x).view(b, s, 3, heads, size).unbind(2)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            q = rotate(self.query_norm(q), cos, sin)
            k = rotate(self.key_norm(k), cos, sin)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(b, s, heads * size))

    class FeedForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(shape.width, shape.ff_size, bias=False)
            self.up = nn.Linear(shape.width, shape.ff_size, bias=False)
            self.down = nn.Linear(shape.ff_size, shape.width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(F.silu(self.gate(x)) * self.up(x))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm = nn.RMSNorm(shape.width, norm_eps)
            self.attention = Attention()
            self.feed_forward_norm = nn.RMSNorm(shape.width, norm_eps)
            self.feed_forward = FeedForward()

        def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.attention_norm(x), cos, sin)
            return x + self.feed_forward(self.feed_forward_norm(x))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(shape.vocab_size, shape.width)
            self.layers = nn.ModuleList([Layer() for _ in range(shape.depth)])
            self.final_norm = nn.RMSNorm(shape.width, norm_eps)
            self.readout = nn.Linear(shape.width, shape.vocab_size, bias=False)
            cos, sin = rotary()
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens) * embedding_scale
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            logits = self.readout(self.final_norm(x))
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Decoder()


def torch_weights(params: dict[str, np.ndarray]) -> dict[str, Any]:
    """Our weights under the names, and in the layout, of `torch_decoder`."""
    import torch

    weights = {}
    for path, value in params.items():
        name = path.replace("layers_", "layers.").replace("/", ".").removesuffix(".scale")
        row = parameter(path)
        if row.fan_in:  # nn.Linear keeps [out, in]
            value = value.reshape(int(np.prod(value.shape[: len(row.fan_in)])), -1).T
        weights[f"{name}.weight"] = torch.tensor(np.ascontiguousarray(value))
    for name in [name for name in weights if ".query." in name]:
        names = [name.replace("query", part) for part in ("query", "key", "value")]
        fused = torch.cat([weights.pop(part) for part in names])
        weights[name.replace("query", "query_key_value")] = fused
    return weights


class TorchTraining:
    """One run in PyTorch.

    Args:
      threads: of the process.
      fused: whether AdamW is one kernel.
      device: cpu or cuda.
      compiled: whether the model goes through `torch.compile`.
      bfloat16: autocast over float32 weights, with flash attention and no other in its place.
    """

    def __init__(
        self,
        threads: int,
        fused: bool,
        device: str = "cpu",
        compiled: bool = False,
        bfloat16: bool = False,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._fused, self._compiled, self._bfloat16 = fused, compiled, bfloat16
        self._device = torch.device(device)
        self._wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        if bfloat16:  # TF32 for what autocast leaves in float32
            torch.set_float32_matmul_precision("high")

    def build(self, run: config.RunConfig, params: dict[str, np.ndarray]) -> int:
        """Builds the model with our weights; its parameters, counted."""
        import torch

        self._run = run
        optimizer, scaling = run.optimizer, Scaling(run.optimizer.base_width)
        embedding_scale = scaling.base(run.model) ** 0.5
        self._model = torch_decoder(run.model, run.sequence_length, embedding_scale)
        self._model.load_state_dict(torch_weights(params))
        self._model.to(self._device)
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, weight in self._model.named_parameters():
            # muP's rate multiplier; decoupled decay is not multiplied by it.
            hidden = weight.ndim == 2 and not name.startswith("embedding")
            multiplier = scaling.base(run.model) / run.model.width if hidden else 1.0
            decay = optimizer.weight_decay / multiplier if weight.ndim == 2 else 0.0
            groups.setdefault((multiplier * optimizer.learning_rate, decay), []).append(weight)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "lr": rate, "weight_decay": decay}
                for (rate, decay), parameters in groups.items()
            ],
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            fused=self._fused,
        )
        self._forward = torch.compile(self._model) if self._compiled else self._model
        return sum(parameter.numel() for parameter in self._model.parameters())

    def train(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of `steps` steps at a constant rate, and the loss of each."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        run, losses = self._run, []
        tokens = torch.from_numpy(windows(DISPATCH, run.batch_size, run.sequence_length, seed=0))
        flash = sdpa_kernel(SDPBackend.FLASH_ATTENTION)
        with flash if self._bfloat16 else contextlib.nullcontext():
            self._wait()
            begin = time.perf_counter()
            for step in range(steps):
                batch = tokens[step % DISPATCH].to(self._device, non_blocking=True)
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                    loss = self._forward(batch[:, :-1], batch[:, 1:])
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), run.optimizer.clip_norm)
                self._optimizer.step()
                losses.append(loss.detach())
            self._wait()
            seconds = time.perf_counter() - begin
        return seconds, [float(loss) for loss in losses]

    def peak_bytes(self) -> int:
        """The most that was in use at once: on the GPU, or by the process."""
        import torch

        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return process_peak_bytes()
